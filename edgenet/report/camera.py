"""A live run as text: what it was, how late its labels were and what went wrong."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from edgenet.board.detect import Board
from edgenet.measure.statistics import Summary, summarise
from edgenet.report.shadow import shadow_text
from edgenet.report.table import render
from edgenet.report.truth import truth_text
from edgenet.stream.frame import Clock, Delivered
from edgenet.stream.latency import STAGES
from edgenet.stream.run import CameraRun

MOST_FAULTS = 20
"""Shown; the record has them all."""
CLOCKS = {
    "sensor": "the camera's sensor",
    "driver": "the camera's driver",
    "arrival": "arrival here; what came before is not known",
}
SHOWN = {
    "wait": "in the slot",
    "decode": "decode",
    "preprocess": "preprocess",
    "inference": "infer",
    "draw": "draw (in the page's process)",
    "encode": "encode (in the page's process)",
    "frame_to_label": "frame to label",
}


def camera_text(run: CameraRun, *, board: Board, command: Sequence[str]) -> str:
    """Return the whole summary."""
    parts = [
        truth_text(run.truth) if run.truth else "",
        _table(run) if run.kept else _nothing(run),
        shadow_text(run.shadow, run.beside_ns) if run.shadow else "",
        "\n".join(_notes(run, board)),
        "\n".join(_faults(run)),
        f"again: {shlex.join(command)}",
    ]
    return "\n\n".join(part for part in parts if part)


def delivered_words(delivered: Delivered) -> str:
    """Return what a source delivers, in words."""
    rate = delivered.frames_per_second
    return ", ".join(
        filter(
            None,
            (
                f"{delivered.width} x {delivered.height}",
                None if rate is None else f"{rate:g}/s",
                delivered.format,
            ),
        )
    )


def _table(run: CameraRun) -> str:
    stages = (*STAGES[:-1], "draw", "encode", STAGES[-1])
    return render(
        ("", "n", "p50 ms", "p95", "p99", "max"),
        [
            (SHOWN[stage], *_figures(summarise(run.samples_ns[stage])))
            for stage in stages
            if stage in run.samples_ns
        ],
    )


def _nothing(run: CameraRun) -> str:
    if run.labelled:
        return "no latency: every frame ran beside the shadow; a longer run has others"
    return "no frame was labelled"


def _figures(found: Summary) -> tuple[str, ...]:
    return str(found.n), *(_ms(value) for value in (found.p50, found.p95, found.p99, found.max))


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _notes(run: CameraRun, board: Board) -> Iterator[str]:
    counts = run.counts
    if run.clock is not None:
        yield f"frame to label begins at: {CLOCKS[run.clock.value]}"
        yield from _before_arrival(run)
        for clock, count in list(run.clocks.items())[1:]:
            yield f"  {count} frames had another clock ({clock.value}) and are not in it"
    beside = len(run.beside_ns.get("inference", ()))
    rate = f"{run.labelled / run.seconds:.1f}/s" if run.seconds else "-"
    yield (
        f"{run.labelled} frames labelled in {run.seconds:.1f} s ({rate}); {counts.delivered} "
        f"delivered, {counts.dropped} dropped, {counts.repeated} repeated, {counts.stale} stale, "
        f"{counts.corrupt} corrupt"
    )
    if run.kept + beside < run.labelled:
        yield f"figures are of the last {run.kept} frames"
    if run.unfit:
        yield f"{run.unfit} frames had no label: the crop does not fit into them"
    yield f"source: {run.source.name}: {delivered_words(run.source.delivered)}"
    yield (
        f"{run.artifact.label} on {run.device}, {run.threads} "
        f"thread{'s' if run.threads > 1 else ''}; {board.name}"
    )
    if run.labels:
        labels = (f"{label} ({frames})" for label, frames in run.labels[:3])
        yield f"labels: {'; '.join(labels)}"
    yield from _board_notes(run)
    if run.quick:
        yield "quick: too few frames for figures that are published"
    if not run.complete:
        yield f"not complete: {run.ending} before the duration was over"
    yield from _way_notes(run)


def _before_arrival(run: CameraRun) -> Iterator[str]:
    """Tell what an arrival clock has not seen, where the playlist's clock has."""
    drawn = None if run.truth is None else run.truth.draw_to_label
    if run.clock is not Clock.ARRIVAL or drawn is None or drawn.p50 is None:
        return
    seen = summarise(run.samples_ns["frame_to_label"]).p50
    if seen is not None:
        yield (
            f"  draw to label is {drawn.p50 - seen:.0f} ms more (p50 against p50): encoder, "
            "network and buffers, which that clock cannot see"
        )


def _board_notes(run: CameraRun) -> Iterator[str]:
    temperatures = [
        state.soc_temperature_c for state in run.states if state.soc_temperature_c is not None
    ]
    if temperatures:
        yield f"{temperatures[0]:.0f} C before, {max(temperatures):.0f} C at most"
    if run.throttled:
        yield "throttled: the board slowed down meanwhile; no figure compares with another run"
    elif run.throttled is None:
        yield "throttling: the board does not tell"
    yield from run.sensor_problems


def _way_notes(run: CameraRun) -> Iterator[str]:
    if run.events is not None:
        yield f"the label changed {run.events} times"
    for way in run.ways:
        fault = f"; {way.fault}" if way.fault else ""
        yield f"{way.name}: {way.delivered} events out, {way.lost} lost{fault}"
    if run.written is not None:
        fault = f"; {run.written.fault}" if run.written.fault else ""
        yield (
            f"recording: {run.written.frames} frames in {run.written.file}, "
            f"{run.written.lost} lost{fault}"
        )
    if run.replayed is not None:
        by = " ".join(str(run.replayed.recorded_by[key]) for key in ("runtime", "precision"))
        yield (
            f"as recorded with {by}: the same label on {run.replayed.same_label} of "
            f"{run.replayed.frames} frames, bit for bit on {run.replayed.same_logits}"
        )
        if run.replayed.cut_off:
            yield "the recording was cut off: it ends without its last part"


def _faults(run: CameraRun) -> Iterator[str]:
    for at_s, fault in run.faults[:MOST_FAULTS]:
        took = f" ({fault.seconds:.1f} s)" if fault.seconds else ""
        yield f"{at_s:8.1f} s  {fault.kind.value}{took}: {fault.message}"
    if len(run.faults) > MOST_FAULTS:
        yield f"... and {len(run.faults) - MOST_FAULTS} more in the record"
