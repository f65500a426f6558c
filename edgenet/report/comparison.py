"""A comparison as text, as Markdown for a pull request and as JSON.

The schema is `edgenet/schemas/comparison.schema.json`.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from edgenet.measure.accuracy import Proportion
from edgenet.measure.comparison import Comparison, Figure, LatencyChange, Pair
from edgenet.measure.conditions import in_words
from edgenet.measure.gates import Gate, Outcome
from edgenet.measure.interleaved import CONFIDENCE, InterleavedLaunch, Interleaving, waited
from edgenet.measure.statistics import Verdict
from edgenet.measure.stored import Document, Record
from edgenet.report.fields import difference_fields
from edgenet.report.table import render, size

SCHEMA_VERSION = "1.2"
COLUMNS = ("artefact", "figure", "BASE", "NEW", "change", "interval", "verdict")
GATE_COLUMNS = ("gate", "artefact", "figure", "interval", "outcome", "what would tell")
GATE_NAMES = {
    "max_slowdown": "slowdown at most",
    "max_drop": "drop at most",
    "present": "still there",
}
OUTCOMES = {Outcome.FAILS: "failed", Outcome.CANNOT_TELL: "undecided", Outcome.HOLDS: "held"}
DIGITS = {"%": 1, "points": 2}
"""Behind the point, of a change in this unit."""
FIGURES = ("own", "p50", "p95")
"""Of an interleaved launch."""
BUSY = 0.1
"""Share of waiting for a processor from which on it is told."""
NOT_JUDGED = "-"
"""One number a side, without a scatter to judge it by."""
NOT_TOLD = "the records do not tell both the peak and what was resident before loading"
NOT_ADDED = (
    "peak memory in place of what the artefact adds, because one side does not tell what was "
    "resident before loading; pages of shared libraries are in it, as the page cache has it"
)
APART = (
    "ratios are of launches taken at different times: what changed on the machine in between is in "
    "them"
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of one artefact, in words."""

    figure: str
    base: str
    new: str
    change: str
    interval: str
    verdict: str

    @property
    def cells(self) -> tuple[str, ...]:
        """Return the cells behind the artefact's name."""
        return (self.figure, self.base, self.new, self.change, self.interval, self.verdict)


def comparison_text(comparison: Comparison, gates: Sequence[Gate]) -> str:
    """Return the tables for a terminal, and what must be known to read them."""
    parts = [
        "\n".join(_sides(comparison)),
        render(COLUMNS, list(_table(comparison))),
        *([render(GATE_COLUMNS, [_gate_row(gate) for gate in gates])] if gates else []),
        "\n".join(_notes(comparison)),
    ]
    return "\n\n".join(filter(None, parts))


def comparison_markdown(comparison: Comparison, gates: Sequence[Gate]) -> str:
    """Return the same for a pull request: the outcome first, what is long folded away."""
    notes = "\n".join(f"- {_escaped(note)}" for note in _notes(comparison))
    parts = [
        f"### edgenet compare: {outcome_line(gates) if gates else _verdict_line(comparison)}",
        "\n".join(f"- {_escaped(side)}" for side in _sides(comparison)),
        _pipes(GATE_COLUMNS, [_gate_row(gate) for gate in gates]) if gates else "",
        _pipes(COLUMNS, list(_table(comparison))),
        f"<details><summary>Notes</summary>\n\n{notes}\n\n</details>" if notes else "",
    ]
    return "\n\n".join(filter(None, parts))


def outcome_line(gates: Sequence[Gate]) -> str:
    """Return how many gates came out which way, the bad ones first."""
    counts = Counter(gate.outcome for gate in gates)
    told = [f"{counts[outcome]} {word}" for outcome, word in OUTCOMES.items() if counts[outcome]]
    return f"gates: {', '.join(told)}"


def comparison_document(
    comparison: Comparison, gates: Sequence[Gate], *, command: Sequence[str]
) -> dict[str, Any]:
    """Return the JSON document of one comparison; what is unknown is null with a reason."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "comparison",
        "command": list(command),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "base": _side_fields(comparison.base),
        "new": _side_fields(comparison.new),
        "unlike": [asdict(difference) for difference in comparison.conditions.differences],
        "unknown_conditions": list(comparison.conditions.unknown),
        "pairs": [_pair_fields(pair) for pair in comparison.pairs],
        "only_in_base": [_record_fields(record) for record in comparison.only_base],
        "only_in_new": [_record_fields(record) for record in comparison.only_new],
        "gates": [asdict(gate) for gate in gates],
        "interleaving": comparison.interleaving and _interleaving_fields(comparison.interleaving),
    }


def _sides(comparison: Comparison) -> Iterator[str]:
    for name, side in (("BASE", comparison.base), ("NEW ", comparison.new)):
        where = side.board or side.machine or "an unknown machine"
        yield (
            f"{name} {side.source}: {side.kind} of {side.bundle_sha256[:12]} on {where}, "
            f"{side.created}"
        )


def _table(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    """Yield the rows of all artefacts; a name stands on the first row of its artefact."""
    for pair in comparison.pairs:
        for number, row in enumerate(_rows(pair)):
            yield (pair.label if number == 0 else "", *row.cells)


def _rows(pair: Pair) -> Iterator[Row]:
    yield from (_latency_row(change) for change in pair.latencies)
    yield from _answer_rows(pair)
    base, new = pair.base, pair.new
    yield from _bytes_row("size", base.size_bytes, new.size_bytes)
    if _only_peaks(pair):
        yield from _bytes_row("peak memory", base.peak_rss_bytes, new.peak_rss_bytes)
    else:
        yield from _bytes_row("added memory", base.added_bytes, new.added_bytes)


def _latency_row(change: LatencyChange) -> Row:
    ratio = change.ratio
    seen = change.new.ms / change.base.ms if ratio is None else ratio.value
    return Row(
        figure=f"{_spoken(f'{change.name} {change.percentile}')}, ms",
        base=_figure(change.base),
        new=_figure(change.new),
        change=_change(100 * (seen - 1), "%"),
        interval="-" if ratio is None else _range(*ratio.percent_interval, "%"),
        verdict=change.verdict.value,
    )


def _answer_rows(pair: Pair) -> Iterator[Row]:
    """Yield accuracy where both have it; where not, agreement, called what it is."""
    if pair.accuracy is not None:
        found = pair.accuracy.difference
        yield Row(
            figure="top-1, %",
            base=_percent(pair.accuracy.base),
            new=_percent(pair.accuracy.new),
            change=_change(found.points, "points"),
            interval=_range(*found.interval, "points"),
            verdict=found.verdict.value,
        )
    elif pair.base.agreement and pair.new.agreement:
        yield Row(
            figure="agreement with its float reference, %",
            base=_percent(pair.base.agreement),
            new=_percent(pair.new.agreement),
            change="-",
            interval="-",
            verdict=NOT_JUDGED,
        )
    if pair.same_answers is not None:
        same = pair.same_answers
        yield Row(
            figure="same top-1 class on both sides",
            base="-",
            new=f"{same.right} of {same.n}",
            change="-",
            interval="{:.1f} to {:.1f} %".format(*same.interval),
            verdict=NOT_JUDGED,
        )


def _only_peaks(pair: Pair) -> bool:
    """Return whether the peaks are known, but not what the artefact added on both sides."""
    sides = pair.base, pair.new
    return all(side.peak_rss_bytes is not None for side in sides) and any(
        side.added_bytes is None for side in sides
    )


def _bytes_row(figure: str, base: int | None, new: int | None) -> Iterator[Row]:
    if base is None or new is None:
        return
    yield Row(
        figure=figure,
        base=size(base),
        new=size(new),
        change=_change(100 * (new / base - 1), "%") if base else "-",
        interval="-",
        verdict=NOT_JUDGED,
    )


def _gate_row(gate: Gate) -> tuple[str, ...]:
    limit = "" if gate.limit is None else f" {gate.limit:g} {gate.unit}"
    return (
        GATE_NAMES[gate.name] + limit,
        gate.artifact,
        _spoken(gate.figure),
        "-" if gate.interval is None else _range(*gate.interval, gate.unit),
        gate.outcome.value,
        gate.would_tell or "-",
    )


def _notes(comparison: Comparison) -> Iterator[str]:
    conditions, pairs = comparison.conditions, comparison.pairs
    for difference in in_words(conditions.differences):
        yield f"UNLIKE: {difference}"
    if conditions.unknown:
        yield f"stated by one side only, so perhaps unlike: {', '.join(conditions.unknown)}"
    for needed in dict.fromkeys(c.would_tell for p in pairs for c in p.latencies if c.would_tell):
        yield f"to tell latencies apart: {needed}"
    if comparison.interleaving:
        yield from _how(comparison.interleaving, pairs)
    elif any(change.ratio for pair in pairs for change in pair.latencies):
        yield APART
    for pair in pairs:
        if pair.accuracy is not None:
            found = pair.accuracy.difference
            yield (
                f"{pair.label}: top-1 lost on {found.lost} and gained on {found.gained} of "
                f"{found.n} images; McNemar p = {found.p_value:.2g}"
            )
        if _only_peaks(pair):
            yield f"{pair.label}: {NOT_ADDED}"
    for reason in dict.fromkeys(pair.accuracy_reason for pair in pairs if pair.accuracy_reason):
        yield f"no accuracy to compare: {reason}"
    for name, records in (("BASE", comparison.only_base), ("NEW", comparison.only_new)):
        if records:
            yield f"only in {name}: {'; '.join(record.label for record in records)}"
    if comparison.interleaving:
        yield f"again: {shlex.join(comparison.interleaving.command)}"


def _how(turns: Interleaving, pairs: Sequence[Pair]) -> Iterator[str]:
    """Yield what must be known of launches in which both sides took turns."""
    if not turns.complete:
        yield "interrupted: the launches that are here are whole, but fewer than were asked for"
    yield (
        f"NEW and BASE took turns: {turns.launches} launches of {turns.rounds} rounds, blocks of "
        f"{1000 * turns.block_seconds:g} ms in a drawn order, on {turns.pictures}; intervals of "
        f"latency are {100 * CONFIDENCE:g} % over launches, of answers 95 %"
    )
    for label, reason in turns.not_run:
        yield f"{label} not run: {reason}"
    for pair in pairs:
        share = waited(pair.launches)
        if share is not None and share > BUSY:
            yield (
                f"{pair.label}: {100 * share:.0f} % of the time went by waiting for a processor, "
                "because other programs ran; p50 and p95 have that in them, own time has not"
            )


def _verdict_line(comparison: Comparison) -> str:
    """Return the verdicts of latency and accuracy with how often each was given."""
    verdicts = [change.verdict for pair in comparison.pairs for change in pair.latencies]
    verdicts += [pair.accuracy.difference.verdict for pair in comparison.pairs if pair.accuracy]
    counts = Counter(verdicts)
    told = [f"{verdict.value} {counts[verdict]}" for verdict in Verdict if counts[verdict]]
    return ", ".join(told) or "nothing to judge"


def _figure(figure: Figure) -> str:
    if figure.interval is None:
        return _ms(figure.ms)
    low, high = figure.interval
    return f"{_ms(figure.ms)} ({_ms(low)}-{_ms(high)})"


def _ms(value: float) -> str:
    """Return milliseconds with three digits that count, never fewer than whole ones."""
    return f"{value:#.3g}" if value < 100 else f"{value:.0f}"


def _percent(found: Proportion) -> str:
    return f"{found.percent:.2f} ({found.right}/{found.n})"


def _range(low: float, high: float, unit: str) -> str:
    return f"{_signed(low, unit)} to {_signed(high, unit)} {unit}"


def _change(value: float, unit: str) -> str:
    return f"{_signed(value, unit)} {unit}"


def _signed(value: float, unit: str) -> str:
    """Return a number with its sign; what rounds to nothing is no minus."""
    digits = DIGITS[unit]
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def _spoken(name: str) -> str:
    spoken = name.replace("paced_inference_ms", "paced inference").replace("_ms", "")
    return spoken.replace("frame_to_label", "frame to label").replace(" own", " own time")


def _pipes(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)


def _escaped(text: str) -> str:
    """Return text that Markdown shows as it is, in a table too."""
    for special in "\\|`*_<[":
        text = text.replace(special, "\\" + special)
    return " ".join(text.split())


def _side_fields(side: Document) -> dict[str, Any]:
    return {
        "path": side.source,
        "kind": side.kind,
        "created": side.created,
        "bundle_sha256": side.bundle_sha256,
        "machine": side.machine,
        "board": side.board,
        "preprocessing_sha256": side.preprocessing_sha256,
    }


def _record_fields(record: Record) -> dict[str, Any]:
    runtime, precision, variant = record.artifact
    return {
        "artifact": {"runtime": runtime, "precision": precision, "variant": variant},
        "threads": record.threads,
    }


def _pair_fields(pair: Pair) -> dict[str, Any]:
    return {
        **_record_fields(pair.new),
        "latency": [_latency_fields(change) for change in pair.latencies],
        "accuracy": _accuracy_fields(pair),
        **({} if pair.accuracy else {"accuracy_reason": pair.accuracy_reason}),
        "agreement": {
            side: record.agreement and asdict(record.agreement)
            for side, record in (("base", pair.base), ("new", pair.new))
        },
        "same_answers": pair.same_answers and asdict(pair.same_answers),
        "size_bytes": {"base": pair.base.size_bytes, "new": pair.new.size_bytes},
        **_added_fields(pair),
        "peak_rss_bytes": {"base": pair.base.peak_rss_bytes, "new": pair.new.peak_rss_bytes},
        "device": {"base": pair.base.device, "new": pair.new.device},
        "runtime_version": {"base": pair.base.runtime_version, "new": pair.new.runtime_version},
        "launches": [_launch_fields(launch) for launch in pair.launches],
    }


def _added_fields(pair: Pair) -> dict[str, Any]:
    added = {"base": pair.base.added_bytes, "new": pair.new.added_bytes}
    reason = {"added_bytes_reason": NOT_TOLD} if None in added.values() else {}
    return {"added_bytes": added, **reason}


def _interleaving_fields(turns: Interleaving) -> dict[str, Any]:
    return {
        **asdict(turns),
        "command": list(turns.command),
        "not_run": [{"artifact": label, "reason": reason} for label, reason in turns.not_run],
    }


def _launch_fields(launch: InterleavedLaunch) -> dict[str, Any]:
    figures = launch.figures
    return {
        **{name: asdict(figures[name]) if name in figures else None for name in FIGURES},
        "waited": launch.waited,
        "rounds_own_ms": launch.rounds_own_ms and [list(both) for both in launch.rounds_own_ms],
        "rounds_p50_ms": [list(both) for both in launch.rounds_p50_ms],
    }


def _latency_fields(change: LatencyChange) -> dict[str, Any]:
    return {
        "name": change.name,
        "percentile": change.percentile,
        "base": asdict(change.base),
        "new": asdict(change.new),
        "ratio": change.ratio and asdict(change.ratio),
        **({} if change.ratio else {"ratio_reason": change.would_tell}),
        "verdict": change.verdict.value,
    }


def _accuracy_fields(pair: Pair) -> dict[str, Any] | None:
    if pair.accuracy is None:
        return None
    return {
        "base_right": pair.accuracy.base.right,
        "new_right": pair.accuracy.new.right,
        **difference_fields(pair.accuracy.difference),
    }
