"""Operators' times folded onto the network's layers, so that runtimes compare layer by layer.

Artefacts name their operators after the layers, runtimes add marks of their own behind. What a
runtime adds between layers (transposes, reorders, conversions) belongs to none and is kept apart.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from edgenet.bundle import LayerWork, Output
from edgenet.graph import LOGITS
from edgenet.measure.operators import computes
from edgenet.runtimes import OperatorTime, OperatorTimes

BETWEEN = "(between layers)"
FUSED = "fused "
"""What ONNX Runtime puts before the name of a layer that took in its activation."""
NO_NAMES: Mapping[str, str] = MappingProxyType({})
MARKS = "./_"
"""Characters that may follow a layer's name in an operator's."""


@dataclass(frozen=True, kw_only=True)
class LayerTime:
    """One layer of the network on one runtime."""

    layer: str
    """`BETWEEN` for what belongs to none."""
    duration_ms: float | None
    """Of its operators whose time is known; None where none is."""
    precision: str
    """What its main operator, the one that takes longest, computes on."""
    operators: tuple[OperatorTime, ...]


@dataclass(frozen=True, kw_only=True)
class LayerTimes:
    """Where the time of one artefact goes."""

    by: Literal["profiler", "prefix"]
    layers: tuple[LayerTime, ...]
    """In the network's order, what lies between them last."""
    resolution_ms: float
    """What the operators' times are counted in."""

    @property
    def total_ms(self) -> float:
        """Return the sum over everything whose time is known."""
        return sum(layer.duration_ms or 0.0 for layer in self.layers)


def fold(
    found: OperatorTimes, layers: Sequence[LayerWork], outputs: Sequence[Output] = ()
) -> LayerTimes:
    """Return the time of each layer that any operator is named after, or after its output."""
    names = [layer.name for layer in layers]
    made_by = {output.name: output.layer for output in outputs if output.layer in names}
    owned: dict[str, list[OperatorTime]] = {name: [] for name in (*names, BETWEEN)}
    for time in found.times:
        owned[owner(time.operator.name, names, made_by)].append(time)
    return LayerTimes(
        by=found.by,
        layers=tuple(_layer(name, operators) for name, operators in owned.items() if operators),
        resolution_ms=found.resolution_ns / 1e6,
    )


def owner(operator: str, layers: Sequence[str], made_by: Mapping[str, str] = NO_NAMES) -> str:
    """Return the layer that an operator is named after, the longest name that fits.

    `made_by` names the layers that make the outputs, by what every artefact calls these; the last
    layer's is `logits` where it says nothing.
    """
    operator = operator.removeprefix(FUSED)
    own = {name: name for name in layers}
    last = {LOGITS: layers[-1]} if layers and not made_by else {}
    aliases = {**last, **made_by, **own}
    fitting = [
        name
        for name in aliases
        if operator == name or (operator.startswith(name) and operator[len(name)] in MARKS)
    ]
    return aliases[max(fitting, key=len)] if fitting else BETWEEN


def _layer(name: str, operators: Sequence[OperatorTime]) -> LayerTime:
    # Of what computes: making bytes into floats is quick or slow as the moment has it.
    computing = [time for time in operators if computes(time.operator)] or operators
    main = max(computing, key=lambda time: time.duration_ns or 0.0)
    known_ns = [time.duration_ns for time in operators if time.duration_ns is not None]
    return LayerTime(
        layer=name,
        duration_ms=sum(known_ns) / 1e6 if known_ns else None,
        precision=main.operator.precision,
        operators=tuple(operators),
    )


def fallbacks(times: LayerTimes, int8_layers: Collection[str]) -> tuple[str, ...]:
    """Return those of the layers in 8 bits that were computed in float."""
    return tuple(
        layer.layer
        for layer in times.layers
        if layer.layer in int8_layers and layer.precision != "int8"
    )
