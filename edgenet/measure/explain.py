"""In words: the layers that lose most against the machine's limit, and why they do.

Says what follows from the figures - precision, kind, what is moved and what is computed - and not
what a kernel does inside, which nobody here can see.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgenet.bundle import LayerWork
from edgenet.measure.layers import BETWEEN, LayerTime, LayerTimes
from edgenet.measure.roofline import NOT_TIMED, PASSED, Bound, value_bytes

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


@dataclass(frozen=True, kw_only=True)
class _Case:
    """One layer that took longer than it had to, and what is known of it."""

    time: LayerTime
    duration_ms: float
    bound: Bound | None
    work: LayerWork | None
    """None for what lies between layers."""

    @property
    def lost_ms(self) -> float:
        """Return what it took above its bound."""
        return self.duration_ms - (self.bound.bound_ms if self.bound else 0.0)


def worst(
    times: LayerTimes,
    bounds: Sequence[Bound],
    layers: Sequence[LayerWork],
    fallbacks: Sequence[str],
) -> tuple[Loss, ...]:
    """Return where most time is lost, the worst first; layers whose bound was passed lose none."""
    bound = {found.layer: found for found in bounds}
    work = {layer.name: layer for layer in layers}
    cases = [
        _Case(
            time=time,
            duration_ms=time.duration_ms,
            bound=bound.get(time.layer),
            work=work.get(time.layer),
        )
        for time in times.layers
        if time.duration_ms is not None
    ]
    losing = sorted(
        (case for case in cases if case.lost_ms > 0), key=lambda case: case.lost_ms, reverse=True
    )
    return tuple(
        Loss(
            layer=case.time.layer,
            lost_ms=case.lost_ms,
            words="; ".join([_took(case), *_reasons(case, times, bound, fallbacks)]),
        )
        for case in losing[:WORST]
    )


def _took(case: _Case) -> str:
    duration_ms, bound = case.duration_ms, case.bound
    if bound is None:
        return f"{duration_ms:.3g} ms"
    reached = bound.bound_ms / duration_ms
    share = f"{reached:.0%}" if reached >= LEAST_SHARE else f"below {LEAST_SHARE:.0%}"
    return f"{duration_ms:.3g} ms, {bound.by} allows {bound.bound_ms:.2g} ({share})"


def _reasons(
    case: _Case, times: LayerTimes, bounds: Mapping[str, Bound], fallbacks: Sequence[str]
) -> Iterator[str]:
    """Yield what is known of why a layer takes so long, or that no more than its figures is."""
    if case.work is None:
        kinds = sorted({found.operator.kind for found in case.time.operators})
        yield f"what the runtime puts between layers: {', '.join(kinds)}"
        return
    nature = list(_nature(case.work))
    others = [
        *_few_positions(case.work),
        *_called(case),
        *_shifted(case.time, times, bounds),
    ]
    in_float = list(_in_float(case.time, times, fallbacks))
    yield from in_float
    yield from nature or [_intensity(case, case.work)]
    yield from others
    if not (nature or in_float or others):
        yield "nothing else is known of it"


def _in_float(time: LayerTime, times: LayerTimes, fallbacks: Sequence[str]) -> Iterator[str]:
    """Yield that a layer was computed in float, where that is not what it or the others are."""
    if time.layer in fallbacks:
        yield f"is in 8 bits but was computed in {time.precision}"
        return
    others = [other.precision for other in times.layers if other.layer not in (time.layer, BETWEEN)]
    if time.precision != "int8" and 2 * others.count("int8") > len(others):
        yield f"computed in {time.precision}, most other layers in int8"


def _intensity(case: _Case, work: LayerWork) -> str:
    """Return how much is computed for what is moved, and which of both is the bound."""
    moved = max(work.read + work.written + work.weights, 1) * value_bytes(case.time)
    told = f"{work.mult_adds / moved:.3g} mult-adds a byte"
    return f"{case.bound.by}-bound: {told}" if case.bound else told


def _few_positions(work: LayerWork) -> Iterator[str]:
    """Yield that a convolution moves more weights than values: its map is small."""
    if not work.kind.endswith("convolution") or work.weights <= work.read + work.written:
        return
    positions = work.mult_adds // work.weights
    yield f"small map: its {work.weights:,} weights are read for {positions:,} positions"


def _called(case: _Case) -> Iterator[str]:
    """Yield what calling takes, and which operators run beside the main one."""
    if case.duration_ms < SHORT_MS:
        yield "so short that calling it counts"
    beside = [
        found.operator.kind
        for found in case.time.operators
        if (found.duration_ns or 0.0) / 1e6 < case.duration_ms / 2
    ]
    if len(case.time.operators) > 1 and beside:
        yield f"with {', '.join(sorted(set(beside)))}"


def _shifted(time: LayerTime, times: LayerTimes, bounds: Mapping[str, Bound]) -> Iterator[str]:
    """Yield the neighbours by prefix whose times are too short: what they lack is counted here."""
    if times.by != "prefix":
        return
    order = [other.layer for other in times.layers if other.layer != BETWEEN]
    place = order.index(time.layer)
    short = [
        layer
        for layer in (*order[max(place - 1, 0) : place], *order[place + 1 : place + 2])
        if layer in bounds and bounds[layer].fraction in (PASSED, NOT_TIMED)
    ]
    if short:
        yield f"by prefix, what {' and '.join(short)} took may be counted here"


def _nature(layer: LayerWork) -> Iterator[str]:
    """Yield what is slow about a layer on any machine; nothing for one that is made of products."""
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
