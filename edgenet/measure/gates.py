"""Gates: does a comparison keep within the limits that somebody set?

A limit is on what may be true, not on what was seen: a gate holds when the whole interval is
within, fails when the whole interval is beyond, and cannot tell in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from edgenet.measure.comparison import RUN_INTERLEAVED, Comparison, LatencyChange, Pair
from edgenet.measure.statistics import MOST_IMAGES, MOST_LAUNCHES, PairedDifference, Ratio

GATED = ("own", "p50")
"""The first of these that a latency has is gated. The p95 moves too much from launch to launch for
a limit of a few percent; it is reported."""


GATED_LATENCIES = ("inference_ms", "paced_inference_ms", "frame_to_label_ms")
"""The others are parts of the last, or of the source's making."""


class Outcome(str, Enum):
    """What became of a gate."""

    HOLDS = "holds"
    FAILS = "fails"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What NEW may be worse than BASE by; None where nothing is asked."""

    max_slowdown_percent: float | None = None
    max_drop_points: float | None = None
    """Of top-1 accuracy, in percentage points."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One limit on one figure of one artefact."""

    name: str
    """max_slowdown, max_drop, or present: an artefact of BASE is in NEW."""
    unit: str
    """Of `limit` and `interval`: % or points."""
    limit: float | None
    artifact: str
    figure: str
    interval: tuple[float, float] | None
    """Of the slowdown or the drop; below 0 where NEW is better."""
    outcome: Outcome
    would_tell: str | None
    """What would decide; None where it is decided."""


def judge(comparison: Comparison, limits: Limits) -> tuple[Gate, ...]:
    """Return each gate of `limits` for each artefact of BASE.

    An artefact that NEW lacks cannot be told: leaving it out is no way to pass.
    """
    gates: list[Gate] = []
    for pair in comparison.pairs:
        if limits.max_slowdown_percent is not None:
            gates += _slowdown_gates(pair, limits.max_slowdown_percent)
        if limits.max_drop_points is not None:
            gates.append(_drop_gate(pair, limits.max_drop_points))
    if limits != Limits():
        gates += [
            _missing(record.label, "a record of it in NEW") for record in comparison.only_base
        ]
        not_run = comparison.interleaving.not_run if comparison.interleaving else ()
        gates += [_missing(label, f"a launch of it: {reason}") for label, reason in not_run]
    return tuple(gates)


def _slowdown_gates(pair: Pair, percent: float) -> Iterator[Gate]:
    gated = [
        change
        for change in pair.latencies
        if change.name in GATED_LATENCIES
        and change.percentile == _gated_percentile(pair, change.name)
    ]
    for change in gated:
        yield _slowdown_gate(pair, change, percent)
    if not gated:
        yield Gate(
            name="max_slowdown",
            unit="%",
            limit=percent,
            artifact=pair.label,
            figure="latency",
            interval=None,
            outcome=Outcome.CANNOT_TELL,
            would_tell=f"a latency on both sides: {RUN_INTERLEAVED}",
        )


def _gated_percentile(pair: Pair, name: str) -> str | None:
    known = [change.percentile for change in pair.latencies if change.name == name]
    return next((percentile for percentile in GATED if percentile in known), None)


def _slowdown_gate(pair: Pair, change: LatencyChange, percent: float) -> Gate:
    ratio = change.ratio
    interval = None if ratio is None else ratio.percent_interval
    outcome = _outcome(interval, percent)
    undecided = outcome is Outcome.CANNOT_TELL
    return Gate(
        name="max_slowdown",
        unit="%",
        limit=percent,
        artifact=pair.label,
        figure=f"{change.name} {change.percentile}",
        interval=interval,
        outcome=outcome,
        would_tell=change.would_tell
        if ratio is None
        else (_launches(ratio, 1 + percent / 100) if undecided else None),
    )


def _drop_gate(pair: Pair, points: float) -> Gate:
    found = pair.accuracy.difference if pair.accuracy else None
    interval = None if found is None else (-found.interval[1], -found.interval[0])
    outcome = _outcome(interval, points)
    undecided = outcome is Outcome.CANNOT_TELL
    return Gate(
        name="max_drop",
        unit="points",
        limit=points,
        artifact=pair.label,
        figure="top-1",
        interval=interval,
        outcome=outcome,
        would_tell=f"accuracy on both sides: {pair.accuracy_reason}"
        if found is None
        else (_images(found, points) if undecided else None),
    )


def _missing(artifact: str, would_tell: str) -> Gate:
    return Gate(
        name="present",
        unit="",
        limit=None,
        artifact=artifact,
        figure="artefact",
        interval=None,
        outcome=Outcome.CANNOT_TELL,
        would_tell=would_tell,
    )


def _outcome(interval: tuple[float, float] | None, limit: float) -> Outcome:
    if interval is None:
        return Outcome.CANNOT_TELL
    low, high = interval
    if high <= limit:
        return Outcome.HOLDS
    return Outcome.FAILS if low > limit else Outcome.CANNOT_TELL


def _launches(ratio: Ratio, limit: float) -> str:
    needed = ratio.launches_to_decide(limit)
    count = f"more than {MOST_LAUNCHES:,}" if needed is None else f"about {needed:,}"
    return f"{count} launches a side, {_towards(ratio.value <= limit)}; these are {ratio.launches}"


def _images(found: PairedDifference, points: float) -> str:
    needed = found.images_to_decide(-points)
    count = f"more than {MOST_IMAGES:,}" if needed is None else f"about {needed:,}"
    return f"{count} images, {_towards(-found.points <= points)}; these are {found.n:,}"


def _towards(within: bool) -> str:
    return f"to show that it {'holds' if within else 'fails'}"
