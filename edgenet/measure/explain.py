"""In words: the layers that lose most against the machine's limit, and why they do.

Says what follows from the figures - precision, kind, what is moved and what is computed - and not
what a kernel does inside, which nobody here can see.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgenet.bundle import LayerWork
from edgenet.measure.layers import BETWEEN, LayerTime, LayerTimes
from edgenet.measure.roofline import Bound

WORST = 3
SHORT_MS = 0.03
"""A layer that takes less pays mostly for being called."""
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
            words="; ".join(_reasons(time, bound, work, fallbacks)),
        )
        for time in times.layers
        if (lost_ms := time.duration_ms - _bound_ms(time, bound)) > 0
    ]
    return tuple(sorted(losses, key=lambda loss: -loss.lost_ms)[:WORST])


def _bound_ms(time: LayerTime, bounds: Mapping[str, Bound]) -> float:
    return bounds[time.layer].bound_ms if time.layer in bounds else 0.0


def _reasons(
    time: LayerTime,
    bounds: Mapping[str, Bound],
    work: Mapping[str, LayerWork],
    fallbacks: Sequence[str],
) -> Iterator[str]:
    if time.layer == BETWEEN:
        kinds = sorted({found.operator.kind for found in time.operators})
        yield f"what the runtime puts between layers: {', '.join(kinds)}"
        return
    layer, bound = work[time.layer], bounds.get(time.layer)
    if bound is not None:
        reached = f"{bound.bound_ms / time.duration_ms:.0%}"
        yield f"{time.duration_ms:.3g} ms, {bound.by} allows {bound.bound_ms:.2g} ({reached})"
    if time.layer in fallbacks:
        yield f"is in 8 bits but was computed in {time.precision}"
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
    if time.duration_ms < SHORT_MS:
        yield "so short that calling it counts"
    if len(time.operators) > 1:
        further = [
            found for found in time.operators if found.duration_ns / 1e6 < time.duration_ms / 2
        ]
        if further:
            yield f"with {', '.join(sorted({found.operator.kind for found in further}))}"
