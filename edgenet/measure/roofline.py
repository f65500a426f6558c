"""How close to the machine's limit: the least time that each layer could take, and all of them.

A layer cannot be faster than its mult-adds at the best rate that this machine was seen to reach,
nor than its bytes at the best bandwidth: the larger of both is its bound, and the bound over the
time that it took is the fraction reached (the roofline of Williams, Waterman and Patterson 2009).

It knows no kernel: one that needs fewer mult-adds than the plain sum (Winograd's convolution) may
pass its bound, as does any when the peak was measured too low. Neither gets a fraction, and where
they make up much of the time the whole gets none; by prefix only those that pass it together with
their neighbours count, because there the noise gives to one what it takes from the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgenet.bundle import LayerWork
from edgenet.measure.layers import BETWEEN, LayerTime, LayerTimes
from edgenet.measure.peaks import Peaks

MOST_FRACTION = 1.05
"""A peak that is passed by more is wrong, and no fraction of it is told."""
MOST_PASSED = 0.1
"""Of the time of all layers may be in layers that passed their bound, for a share in all."""
LEAST_COUNTS = 10
"""Of a profiler's clock, before a fraction is made of them."""
BYTES = {"float32": 4, "float16": 4, "bfloat16": 2, "int8": 1}
"""Of a value where it is computed on; float16 weights are widened on loading."""

NOT_TIMED = "no time stands out of the noise"
PASSED = (
    "passes its bound: the peak was measured too low, or it needs fewer mult-adds (Winograd), or "
    "its time is the difference of two pieces and came out too short"
)


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The least time that one layer could take, and how near it came."""

    layer: str
    bound_ms: float
    by: str
    """`compute` or `memory`, whichever is the larger."""
    fraction: float | str
    """Of the bound's speed, or why there is none."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How near an artefact came to what the machine could do."""

    bounds: tuple[Bound, ...]
    """Of every layer that ran as an operator of its own."""
    fraction: float | str
    """In all: the bounds' sum over the time of an inference, or why there is none."""

    @property
    def passed(self) -> tuple[str, ...]:
        """Return the layers that were faster than their bound."""
        return tuple(bound.layer for bound in self.bounds if bound.fraction == PASSED)


def limits(
    times: LayerTimes, inference_ms: float, layers: Sequence[LayerWork], peaks: Peaks
) -> Limits:
    """Return the bounds of the layers that were timed, and the share of the limit in all.

    `inference_ms` is the median of whole runs, without a profiler. Peaks without any rate of
    mult-adds bound nothing, and give no bounds.
    """
    if "float32" not in peaks.rates:
        return Limits(bounds=(), fraction="no installed runtime has run the products for a peak")
    bounds = tuple(_bounds(times, {layer.name: layer for layer in layers}, peaks))
    return Limits(bounds=bounds, fraction=_in_all(times, bounds, inference_ms))


def _bounds(times: LayerTimes, work: dict[str, LayerWork], peaks: Peaks) -> Iterator[Bound]:
    timed = [time for time in times.layers if time.layer != BETWEEN]
    weights_bytes = sum(work[time.layer].weights * value_bytes(time) for time in timed)
    for time in timed:
        layer, value = work[time.layer], value_bytes(time)
        rate = peaks.rates.get(time.precision) or peaks.rates["float32"]
        compute = layer.mult_adds / rate.mult_adds_per_second
        values = (layer.read + layer.written) * value
        # Its inputs were just made and lie near; all the weights go by between two of its runs.
        memory = peaks.seconds_for_bytes(values, values)
        memory += peaks.seconds_for_bytes(layer.weights * value, weights_bytes)
        bound_ms = 1e3 * max(compute, memory)
        yield Bound(
            layer=layer.name,
            bound_ms=bound_ms,
            by="compute" if compute >= memory else "memory",
            fraction=_fraction(bound_ms, time.duration_ms, times.resolution_ms),
        )


def value_bytes(time: LayerTime) -> int:
    """Return the bytes of a value where the layer computes."""
    return BYTES.get(time.precision, 4)


def _fraction(bound_ms: float, duration_ms: float | None, resolution_ms: float) -> float | str:
    if duration_ms is None:
        return NOT_TIMED
    if duration_ms < LEAST_COUNTS * resolution_ms:
        return f"takes fewer than {LEAST_COUNTS} counts of the profiler's {resolution_ms:g} ms"
    fraction = bound_ms / duration_ms
    return fraction if fraction <= MOST_FRACTION else PASSED


def _in_all(times: LayerTimes, bounds: Sequence[Bound], inference_ms: float) -> float | str:
    """Return the share of the limit that an inference reached, or why there is none to tell."""
    passed = _beyond_doubt(times, bounds)
    taken_ms = {time.layer: time.duration_ms or 0.0 for time in times.layers}
    passed_ms = sum(taken_ms[layer] for layer in passed)
    if passed_ms > MOST_PASSED * times.total_ms:
        together = "" if times.by == "profiler" else " together with its neighbours"
        return (
            f"{', '.join(sorted(passed))} took {passed_ms / times.total_ms:.0%} of the time and "
            f"each{together} {PASSED}"
        )
    # What passed its bound shows with its own time that the machine can do that.
    least_ms = sum(
        taken_ms[bound.layer] if bound.layer in passed else bound.bound_ms for bound in bounds
    )
    fraction = least_ms / inference_ms
    if fraction > MOST_FRACTION:
        return f"the layers' bounds take {fraction:.2f} times the inference: a peak is too low"
    return fraction


def _beyond_doubt(times: LayerTimes, bounds: Sequence[Bound]) -> set[str]:
    """Return the layers that passed their bound, and not by noise alone.

    By prefix a piece that came out too short adds to one layer what it takes from the next: a layer
    counts if it passes together with those beside it, where that cancels out.
    """
    passed = [place for place, bound in enumerate(bounds) if bound.fraction == PASSED]
    if times.by == "prefix":
        taken_ms = {time.layer: time.duration_ms for time in times.layers}
        passed = [
            place
            for place in passed
            if _pass_together(bounds[max(place - 1, 0) : place + 2], taken_ms)
        ]
    return {bounds[place].layer for place in passed}


def _pass_together(bounds: Sequence[Bound], taken_ms: Mapping[str, float | None]) -> bool:
    timed = [(bound.bound_ms, ms) for bound in bounds if (ms := taken_ms[bound.layer]) is not None]
    return sum(least for least, _ in timed) > MOST_FRACTION * sum(ms for _, ms in timed)
