"""Live accuracy as text and as JSON, to stand in the record of a camera run.

The schema is `edgenet/schemas/truth.schema.json`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from edgenet.bundle import artifact_fields
from edgenet.measure.accuracy import Accuracy
from edgenet.measure.statistics import PairedDifference, Summary
from edgenet.report.evaluation import percent_cells
from edgenet.report.fields import difference_fields, proportion_fields, summary_fields, unknown
from edgenet.report.table import render
from edgenet.stream.truth import NOTHING_SCORED, PictureScore, Running, TruthReport
from edgenet.wording import counted

MOST_CLASSES = 10
"""Lines of the table of classes; all are in the JSON."""
NO_DIRECT = "no picture was fed directly"
NOT_READ = "no marker was read"


def truth_text(report: TruthReport) -> str:
    """Return the tables for a terminal, and what must be known to read them."""
    parts = [
        _accuracies(report),
        _losses(report),
        _classes(report),
        "\n".join(_notes(report)),
    ]
    return "\n\n".join(filter(None, parts))


def running_line(running: Running) -> str:
    """Return how it stands, on one line."""
    top1, window = running.top1, running.window_top1
    low, high = top1.interval
    return (
        f"top-1 {top1.percent:.1f} % ({low:.1f}-{high:.1f}) of "
        f"{counted(top1.n, 'picture')}, {window.percent:.1f} % of the last {window.n}"
    )


def truth_fields(report: TruthReport) -> dict[str, Any]:
    """Return the report as plain JSON values; what is unknown is null with a reason."""
    return {
        "playlist": {"name": report.playlist, "pictures": report.pictures_in_playlist},
        "frames": {**asdict(report.frames), "guard": report.guard},
        **(
            {"frames_right": {"right": report.frames_right.right, "n": report.frames_right.n}}
            if report.frames_right
            else unknown("frames_right", NOTHING_SCORED)
        ),
        "pictures_left_out": {
            "other_pixels": report.other_pixels,
            "unreadable": report.unreadable,
        },
        "calibrated_on": report.calibrated_on,
        **_accuracy_fields("live", report.live, NOTHING_SCORED),
        **_accuracy_fields("window", report.window, NOTHING_SCORED),
        "window_length": report.window_length,
        **_accuracy_fields("direct", report.direct, NO_DIRECT),
        **_accuracy_fields("reference", report.reference, NO_DIRECT),
        "reference_artifact": report.reference_artifact
        and artifact_fields(report.reference_artifact),
        **_loss_fields(report),
        "classes": [asdict(found) for found in report.classes],
        **_summary_fields("draw_to_label_ms", report.draw_to_label, report.draw_to_label_reason),
        "clock_offset_ms": report.clock_offset_ms,
        **_summary_fields("marker_reading_ms", report.reading, NOT_READ),
        "pictures": [_picture_fields(picture) for picture in report.pictures],
    }


def _accuracies(report: TruthReport) -> str:
    rows = [("live", report.live), ("the same, fed directly", report.direct)]
    if report.reference_artifact and report.reference and report.losses and report.losses.both:
        rows.append((f"{report.reference_artifact.label}, directly", report.reference))
    if report.window and report.live and report.window.top1.n < report.live.top1.n:
        rows.insert(1, (f"live, the last {report.window.top1.n}", report.window))
    return render(
        ("pictures", "n", "top-1 %", "95 %", "top-5 %", "95 %"),
        [
            (name, str(found.top1.n), *percent_cells(found.top1), *percent_cells(found.top5))
            for name, found in rows
            if found is not None
        ],
    )


def _losses(report: TruthReport) -> str:
    if report.losses is None:
        return ""
    rows = [
        ("camera (live - direct)", report.losses.camera),
        ("quantisation (direct - reference)", report.losses.quantisation),
        ("both (live - reference)", report.losses.both),
    ]
    return render(
        ("top-1 lost to", "points", "95 %", "lost", "gained", "verdict"),
        [(name, *_difference(found)) for name, found in rows if found is not None],
    )


def _classes(report: TruthReport) -> str:
    """Return the classes in which something was wrong, worst first."""
    wrong = sorted(
        (found for found in report.classes if found.right < found.n),
        key=lambda found: (found.right - found.n, found.label),
    )
    if not wrong:
        return ""
    table = render(
        ("class", "n", "right live", "right directly"),
        [
            (
                _short(found.label),
                str(found.n),
                str(found.right),
                "-" if found.direct_right is None else str(found.direct_right),
            )
            for found in wrong[:MOST_CLASSES]
        ],
    )
    rest = len(wrong) - MOST_CLASSES
    return table + (f"\nand {rest} more (--json has all)" if rest > 0 else "")


def _short(label: str) -> str:
    """Return the first name of each label: "orca" for "orca, killer whale, ..."."""
    return " | ".join(part.partition(",")[0] for part in label.split(" | "))


def _notes(report: TruthReport) -> Iterator[str]:
    frames = report.frames
    yield (
        f"{report.playlist}: {len(report.pictures)} of "
        f"{counted(report.pictures_in_playlist, 'picture')} seen; each counts once, by the mean of "
        "its frames"
    )
    yield (
        f"frames: {frames.total}, of which {frames.scored} scored, {frames.guarded} within "
        f"{report.guard} of a change, {frames.unlabelled} without a marker that could be read, "
        f"{frames.without_picture} without a picture"
    )
    if frames.other_playlist:
        yield (
            f"{counted(frames.other_playlist, 'frame')} had the marker of other data; give --truth "
            "the DATA that edgenet playlist was given"
        )
    if report.live is None:
        yield f"no accuracy: {NOTHING_SCORED}"
    for count, why in (
        (report.other_pixels, "stored otherwise here than where it was shown"),
        (report.unreadable, "not readable here"),
    ):
        if count:
            yield f"left out: {counted(count, 'picture')}, {why}"
    if report.calibrated_on:
        yield (
            f"INT8 was calibrated on {report.calibrated_on} of these pictures: take them out of "
            "DATA for a figure that can be believed"
        )
    if report.losses_reason and report.live is not None:
        yield f"no losses: {report.losses_reason}"
    if report.losses and report.losses.quantisation_reason:
        yield f"no loss to quantisation: {report.losses.quantisation_reason}"
    yield _draw_to_label(report)
    if report.reading and report.reading.p50 is not None:
        yield f"reading a marker: p50 {report.reading.p50:.2f} ms, in no stage above"
    yield "intervals: 95 %, Wilson for shares, Tango for differences of pairs"


def _draw_to_label(report: TruthReport) -> str:
    found = report.draw_to_label
    if found is None:
        return f"draw to label: not known; {report.draw_to_label_reason}"
    told = [
        f"{name} {value:.1f} ms"
        for name, value in (("p50", found.p50), ("p95", found.p95), ("p99", found.p99))
        if value is not None
    ]
    offset = (
        ""
        if report.clock_offset_ms is None
        else f", with a stated offset of {report.clock_offset_ms:g} ms between the clocks"
    )
    return (
        f"draw to label: {', '.join(told) or f'{found.min:.1f}-{found.max:.1f} ms'} of {found.n} "
        f"frames, from the drawing, not from the light of a screen{offset}"
    )


def _difference(found: PairedDifference) -> tuple[str, ...]:
    low, high = found.interval
    return (
        _signed(found.points),
        f"{_signed(low)} to {_signed(high)}",
        str(found.lost),
        str(found.gained),
        found.verdict.value,
    )


def _signed(value: float) -> str:
    """Return a number with its sign; what rounds to nothing is no minus."""
    return f"{round(value, 2) + 0.0:+.2f}"


def _accuracy_fields(name: str, found: Accuracy | None, reason: str) -> dict[str, Any]:
    if found is None:
        return unknown(name, reason)
    return {
        name: {
            "top1": proportion_fields(found.top1),
            "top5": proportion_fields(found.top5),
            "n": found.top1.n,
        }
    }


def _loss_fields(report: TruthReport) -> dict[str, Any]:
    losses = report.losses
    if losses is None:
        return unknown("losses", report.losses_reason or NO_DIRECT)
    fields = {"camera": difference_fields(losses.camera)}
    for name, found in (("quantisation", losses.quantisation), ("both", losses.both)):
        if found is None:
            fields |= unknown(name, losses.quantisation_reason or NO_DIRECT)
        else:
            fields[name] = difference_fields(found)
    return {"losses": fields}


def _picture_fields(picture: PictureScore) -> dict[str, Any]:
    direct = picture.direct
    return {
        "sample": picture.sample_id,
        "name": picture.name,
        "label": sorted(picture.accepted),
        "frames": picture.frames,
        "top5": list(picture.top),
        "image_sha256": direct and direct.image_sha256,
        "direct_top5": direct and list(direct.top),
        "reference_top5": list(direct.reference_top) if direct and direct.reference_top else None,
    }


def _summary_fields(name: str, found: Summary | None, reason: str | None) -> dict[str, Any]:
    return {name: summary_fields(found)} if found else unknown(name, reason or NOT_READ)
