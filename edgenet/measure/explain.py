"""In words: the layers that lose most against the machine's limit, and why they do.

Says what follows from the figures - precision, kind, what is moved and what is computed - and not
what a kernel does inside, which nobody here can see.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgenet.bundle import LayerWork
from edgenet.measure.layers import LayerTime, LayerTimes
from edgenet.measure.roofline import Bound

WORST = 3
SHORT_MS = 0.03
"""A layer that takes less pays mostly for being called."""
LEAST_SHARE = 0.01
FEW_MULT_ADDS = 20
"""For each value moved; a depthwise 3 x 3 has 4.5, a pointwise layer of 128 channels 64."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """One place where time goes that the machine would not need."""

    layer: str
    lost_ms: float
    """What it took above its bound."""
    words: str


def worst(
    times: LayerTimes,
    bounds: Sequence[Bound],
    layers: Sequence[LayerWork],
    fallbacks: Sequence[str],
) -> tuple[Loss, ...]:
    """Return where most time is lost, the worst first; layers whose bound was passed lose none."""
    bound = {found.layer: found for found in bounds}
    work = {layer.name: layer for layer in layers}
    losses = [
        Loss(
            layer=time.layer,
            lost_ms=lost_ms,
            words="; ".join(
                [
                    _took(time.duration_ms, bound.get(time.layer)),
                    *_reasons(time, time.duration_ms, work.get(time.layer), fallbacks),
                ]
            ),
        )
        for time in times.layers
        if time.duration_ms is not None
        and (lost_ms := time.duration_ms - _bound_ms(time, bound)) > 0
    ]
    return tuple(sorted(losses, key=lambda loss: -loss.lost_ms)[:WORST])


def _bound_ms(time: LayerTime, bounds: Mapping[str, Bound]) -> float:
    return bounds[time.layer].bound_ms if time.layer in bounds else 0.0


def _took(duration_ms: float, bound: Bound | None) -> str:
    if bound is None:
        return f"{duration_ms:.3g} ms"
    reached = bound.bound_ms / duration_ms
    share = f"{reached:.0%}" if reached >= LEAST_SHARE else f"below {LEAST_SHARE:.0%}"
    return f"{duration_ms:.3g} ms, {bound.by} allows {bound.bound_ms:.2g} ({share})"


def _reasons(
    time: LayerTime, duration_ms: float, layer: LayerWork | None, fallbacks: Sequence[str]
) -> Iterator[str]:
    """Yield why a layer takes so long; without its work it is what lies between layers."""
    if layer is None:
        kinds = sorted({found.operator.kind for found in time.operators})
        yield f"what the runtime puts between layers: {', '.join(kinds)}"
        return
    if time.layer in fallbacks:
        yield f"is in 8 bits but was computed in {time.precision}"
    yield from _nature(layer)
    if duration_ms < SHORT_MS:
        yield "so short that calling it counts"
    beside = [
        found.operator.kind
        for found in time.operators
        if (found.duration_ns or 0.0) / 1e6 < duration_ms / 2
    ]
    if len(time.operators) > 1 and beside:
        yield f"with {', '.join(sorted(set(beside)))}"


def _nature(layer: LayerWork) -> Iterator[str]:
    """Yield what is slow about a layer on any machine."""
    moved = max(layer.read + layer.written + layer.weights, 1)
    if layer.kind == "depthwise convolution":
        yield (
            f"depthwise: {layer.mult_adds / moved:.1f} mult-adds for each value moved, too few for "
            "kernels made for products of matrices"
        )
    elif layer.kind == "fully connected":
        yield f"each of its {layer.weights:,} weights is read for one mult-add"
    elif layer.kind == "convolution" and layer.mult_adds / moved < FEW_MULT_ADDS:
        yield f"thin: {layer.mult_adds / moved:.1f} mult-adds for each value moved"
    elif not layer.mult_adds:
        yield f"{layer.kind}: moves {moved:,} values and multiplies nothing"
