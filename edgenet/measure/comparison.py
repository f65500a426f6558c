"""Comparison of two measurements, artefact by artefact; of stored ones, how it is made.

Records of the same runtime, precision, variant and threads belong together. A latency differs only
if the interval of the ratio over launches says so; two files of one launch each cannot tell,
however many samples they hold. Accuracy is compared image by image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from edgenet.errors import NotComparable
from edgenet.measure.accuracy import Proportion
from edgenet.measure.conditions import Conditions, in_words, joined, of_documents, of_records
from edgenet.measure.interleaved import InterleavedLaunch, Interleaving, ratio_of
from edgenet.measure.statistics import (
    LEAST_LAUNCHES,
    PairedDifference,
    Ratio,
    Verdict,
    unpaired_ratio,
)
from edgenet.measure.stored import Document, Prediction, Record

LATENCIES = (
    *("inference_ms", "paced_inference_ms"),
    *("frame_to_label_ms", "wait_ms", "decode_ms", "preprocess_ms"),
)
"""Those that are compared; load and first inference are one sample a launch."""
RUN_INTERLEAVED = "edgenet profile NEW --against BASE"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One percentile of one latency on one side, or its own time."""

    ms: float
    interval: tuple[float, float] | None
    """Of this side's samples; it cannot tell one launch from another."""
    launches: int


@dataclass(frozen=True, kw_only=True)
class LatencyChange:
    """One percentile of one latency on both sides."""

    name: str
    percentile: str
    """Or `own` for the own time of interleaved launches."""
    base: Figure
    new: Figure
    ratio: Ratio | None
    """None with fewer than five launches on a side."""

    @property
    def verdict(self) -> Verdict:
        """Return which is faster, if that can be told."""
        return Verdict.CANNOT_TELL if self.ratio is None else self.ratio.verdict

    @property
    def would_tell(self) -> str | None:
        """Return what would tell; None where the ratio does."""
        if self.ratio is not None:
            return None
        return (
            f"at least {LEAST_LAUNCHES} launches a side (these are {self.base.launches} and "
            f"{self.new.launches}), best interleaved: {RUN_INTERLEAVED}, which times inference "
            "alone"
        )


@dataclass(frozen=True, kw_only=True)
class AccuracyChange:
    """Top-1 accuracy on the images that both sides have seen."""

    base: Proportion
    new: Proportion
    difference: PairedDifference


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One artefact on both sides."""

    base: Record
    new: Record
    latencies: tuple[LatencyChange, ...]
    accuracy: AccuracyChange | None
    accuracy_reason: str | None
    """Why there is none."""
    same_answers: Proportion | None
    """Images on which both find the same class best; None without an image in common."""
    launches: tuple[InterleavedLaunch, ...] = ()
    """Those in which both took turns; none where each side was stored by itself."""

    @property
    def label(self) -> str:
        """Return the artefact with its threads, as NEW has them."""
        return self.new.label


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two measurements side by side."""

    base: Document
    new: Document
    pairs: tuple[Pair, ...]
    only_base: tuple[Record, ...]
    only_new: tuple[Record, ...]
    conditions: Conditions
    interleaving: Interleaving | None = None
    """None where the sides were measured at different times."""


def compare(base: Document, new: Document, *, allow_unlike: bool = False) -> Comparison:
    """Return what changed from `base` to `new`.

    Raises `NotComparable` when they have no artefact in common or, unless `allow_unlike`, when they
    were not measured alike; the message names each condition with both values.
    """
    matched, only_base, only_new = _match(base.records, new.records)
    if not matched:
        raise NotComparable(
            f"nothing in common: {base.source} has {_labels(base.records)}; "
            f"{new.source} has {_labels(new.records)}"
        )
    pairs = tuple(
        paired(before, after, tuple(_latency_changes(before, after))) for before, after in matched
    )
    conditions = joined(
        [
            of_documents(base, new),
            *(of_records(p.base, p.new, [change.name for change in p.latencies]) for p in pairs),
        ]
    )
    comparison = Comparison(
        base=base,
        new=new,
        pairs=pairs,
        only_base=only_base,
        only_new=only_new,
        conditions=conditions,
    )
    if not allow_unlike:
        check_alike(comparison)
    return comparison


def check_alike(comparison: Comparison) -> None:
    """Raise `NotComparable`, naming every condition, when the sides were not measured alike."""
    unlike = comparison.conditions.differences
    if unlike:
        raise NotComparable(
            f"{comparison.base.source} and {comparison.new.source} were not measured alike: "
            f"{'; '.join(in_words(unlike))}. Measure again alike, or compare all the same with "
            "--allow-unlike"
        )


def _match(
    base: Sequence[Record], new: Sequence[Record]
) -> tuple[list[tuple[Record, Record]], tuple[Record, ...], tuple[Record, ...]]:
    """Return the pairs, and what only one side has.

    Where an artefact has no number of threads in common and one record a side, these are a pair
    too; the threads are then a condition that they do not share.
    """
    before = {(*record.artifact, record.threads): record for record in base}
    after = {(*record.artifact, record.threads): record for record in new}
    matched = [(before[key], after[key]) for key in after if key in before]
    taken = {record.artifact for record, _ in matched}
    for artifact in dict.fromkeys(record.artifact for record in new):
        sides = [[r for r in side if r.artifact == artifact] for side in (base, new)]
        if artifact not in taken and [len(side) for side in sides] == [1, 1]:
            matched.append((sides[0][0], sides[1][0]))
    used = {id(record) for pair in matched for record in pair}
    return (
        matched,
        tuple(record for record in base if id(record) not in used),
        tuple(record for record in new if id(record) not in used),
    )


def paired(
    base: Record,
    new: Record,
    latencies: tuple[LatencyChange, ...],
    launches: tuple[InterleavedLaunch, ...] = (),
) -> Pair:
    """Return one artefact on both sides, its answers compared image by image."""
    together = _together(base.predictions, new.predictions)
    accuracy = _accuracy(base, new, together)
    same = sum(before.top == after.top for before, after in together)
    return Pair(
        base=base,
        new=new,
        latencies=latencies,
        accuracy=accuracy if isinstance(accuracy, AccuracyChange) else None,
        accuracy_reason=accuracy if isinstance(accuracy, str) else None,
        same_answers=Proportion(right=same, n=len(together)) if together else None,
        launches=launches,
    )


def interleaved_changes(launches: Sequence[InterleavedLaunch]) -> Iterator[LatencyChange]:
    """Yield the change of each figure that every launch knows, the deciding one first.

    A launch that was slow has too few runs for a p95: without it, that of the others would be that
    of the fast ones.
    """
    known = [launch.figures for launch in launches]
    for name in known[0]:
        if not all(name in figures for figures in known):
            continue
        turns = [figures[name] for figures in known]
        base, new = (
            Figure(ms=median(values), interval=None, launches=len(turns))
            for values in ([each.base_ms for each in turns], [each.new_ms for each in turns])
        )
        yield LatencyChange(
            name="inference_ms",
            percentile=name,
            base=base,
            new=new,
            ratio=ratio_of([each.ratio for each in turns]),
        )


def _latency_changes(base: Record, new: Record) -> Iterator[LatencyChange]:
    for name in LATENCIES:
        before, after = _figures(base, name), _figures(new, name)
        for percentile in [known for known in before if known in after]:
            launches = [_of_launches(record, name, percentile) for record in (base, new)]
            enough = min(map(len, launches)) >= LEAST_LAUNCHES
            yield LatencyChange(
                name=name,
                percentile=percentile,
                base=before[percentile],
                new=after[percentile],
                ratio=unpaired_ratio(*launches) if enough else None,
            )


def _figures(record: Record, name: str) -> dict[str, Figure]:
    """Return the percentiles of a latency that are compared and known."""
    if name not in record.latency:
        return {}
    summary, launches = record.latency[name], len(record.launches) or 1
    known = {
        "p50": (summary.p50, summary.interval),
        "p95": (summary.p95, summary.p95_interval),
    }
    return {
        percentile: Figure(ms=ms, interval=interval, launches=launches)
        for percentile, (ms, interval) in known.items()
        if ms is not None
    }


def _of_launches(record: Record, name: str, percentile: str) -> list[float]:
    """Return the percentile of each launch that knows it."""
    summaries = [launch[name] for launch in record.launches if name in launch]
    values: list[float | None] = [getattr(summary, percentile) for summary in summaries]
    return [value for value in values if value is not None]


def _together(
    base: Sequence[Prediction], new: Sequence[Prediction]
) -> list[tuple[Prediction, Prediction]]:
    """Return the predictions of each image that both have seen under the same labels.

    A picture that is twice in a set says nothing new and counts once.
    """
    before = {prediction.image: prediction for prediction in base}
    after = {prediction.image: prediction for prediction in new}
    return [(before[image], after[image]) for image in before if image in after]


def _accuracy(
    base: Record, new: Record, together: Sequence[tuple[Prediction, Prediction]]
) -> AccuracyChange | str:
    """Return how accuracy changed, or why that is not known."""
    without = [side for side, record in (("BASE", base), ("NEW", new)) if record.top1 is None]
    if without:
        return f"no accuracy in {' and '.join(without)}"
    if not together:
        return "no labelled image in common"
    right = [(before.right, after.right) for before, after in together]
    n, lost, gained = len(right), right.count((True, False)), right.count((False, True))
    both = right.count((True, True))
    return AccuracyChange(
        base=Proportion(right=both + lost, n=n),
        new=Proportion(right=both + gained, n=n),
        difference=PairedDifference(n=n, lost=lost, gained=gained),
    )


def _labels(records: Sequence[Record]) -> str:
    return "; ".join(record.label for record in records) or "no record"
