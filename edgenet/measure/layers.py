"""Operators' times folded onto the network's layers, so that runtimes compare layer by layer.

Artefacts name their operators after the layers, runtimes add marks of their own behind. What a
runtime adds between layers (transposes, reorders, conversions) belongs to none and is kept apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgenet.bundle import LayerWork
from edgenet.graph import LOGITS
from edgenet.runtimes import OperatorTime, OperatorTimes

BETWEEN = "(between layers)"
MARKS = "./_"
"""Characters that may follow a layer's name in an operator's."""


@dataclass(frozen=True, kw_only=True)
class LayerTime:
    """One layer of the network on one runtime."""

    layer: str
    """`BETWEEN` for what belongs to none."""
    duration_ms: float
    precision: str
    """What its main operator, the one that takes longest, computes on."""
    operators: tuple[OperatorTime, ...]


@dataclass(frozen=True, kw_only=True)
class LayerTimes:
    """Where the time of one artefact goes."""

    by: Literal["profiler", "prefix"]
    layers: tuple[LayerTime, ...]
    """In the network's order, what lies between them last."""

    @property
    def total_ms(self) -> float:
        """Return the sum over everything that runs."""
        return sum(layer.duration_ms for layer in self.layers)


def fold(found: OperatorTimes, layers: Sequence[LayerWork]) -> LayerTimes:
    """Return the time of each layer that any operator is named after."""
    names = [layer.name for layer in layers]
    owned: dict[str, list[OperatorTime]] = {name: [] for name in (*names, BETWEEN)}
    for time in found.times:
        owned[owner(time.operator.name, names)].append(time)
    return LayerTimes(
        by=found.by,
        layers=tuple(_layer(name, operators) for name, operators in owned.items() if operators),
    )


def owner(operator: str, layers: Sequence[str]) -> str:
    """Return the layer that an operator is named after, the longest name that fits."""
    # The last layer's output is what every artefact calls logits.
    aliases = {**{name: name for name in layers}, LOGITS: layers[-1]} if layers else {}
    fitting = [
        name
        for name in aliases
        if operator == name or (operator.startswith(name) and operator[len(name)] in MARKS)
    ]
    return aliases[max(fitting, key=len)] if fitting else BETWEEN


def _layer(name: str, operators: Sequence[OperatorTime]) -> LayerTime:
    main = max(operators, key=lambda time: time.duration_ns)
    return LayerTime(
        layer=name,
        duration_ms=sum(time.duration_ns for time in operators) / 1e6,
        precision=main.operator.precision,
        operators=tuple(operators),
    )


def fallbacks(
    times: LayerTimes, layers: Sequence[LayerWork], meant_in_float: Sequence[str]
) -> tuple[str, ...]:
    """Return the layers of an INT8 artefact that compute in float although they are in 8 bits."""
    weighted = {layer.name for layer in layers if layer.weights}
    return tuple(
        layer.layer
        for layer in times.layers
        if layer.layer in weighted - set(meant_in_float) and layer.precision != "int8"
    )
