"""What a live run's shadow has shown, as text and as JSON for the record of a camera run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgenet.bundle import artifact_fields
from edgenet.measure.statistics import summarise
from edgenet.report.fields import proportion_fields, summary_fields, unknown
from edgenet.report.table import render
from edgenet.stream.drift import BRIGHTNESS, CLASSES, CONFIDENCE, SHARPNESS, Measure
from edgenet.stream.shadow import ShadowReport
from edgenet.wording import counted

NOT_ACCURACY = "agreement with float, not accuracy"
NOT_LABELLED = f"nobody said what is right on these frames: it is {NOT_ACCURACY}"
NOTHING_ANSWERED = "the reference has answered for no frame"
SAME_BITS = "bit-identical to the reference"
WORDS = {
    CONFIDENCE: ("less sure", "surer"),
    BRIGHTNESS: ("darker", "brighter"),
    SHARPNESS: ("more blurred", "sharper"),
}
"""Of the stream, below and above what is usual."""
UNITS = {CONFIDENCE: "mean largest softmax", BRIGHTNESS: "mean grey", SHARPNESS: "Laplacian var."}


def shadow_text(report: ShadowReport, beside_ns: Mapping[str, Sequence[int]]) -> str:
    """Return it for a terminal, alarms last."""
    alarms = [measure for measure in report.drift if measure.alarm]
    lines = [
        *_agreement(report),
        *_frames(report, beside_ns),
        *(f"no alarm for {each.name}: {each.reason}" for each in report.drift if each.reason),
        *(
            f"alarm earlier in the run, not any more: {name}"
            for name in report.raised
            if name not in [measure.name for measure in alarms]
        ),
    ]
    parts = ["\n".join(lines), _drift(report)]
    return "\n\n".join(filter(None, parts))


def alarm_words(measure: Measure, labels: Sequence[str]) -> str:
    """Return what a measure that is out of the usual says of the stream."""
    assert measure.value is not None
    assert measure.usual is not None
    if measure.name == CLASSES:
        grown = "" if measure.grown is None else f" ({labels[measure.grown]} has grown most)"
        return (
            f"other classes than in the calibration set: {100 * measure.value:.0f} % of the frames "
            f"would have to be of others{grown}"
        )
    low, high = measure.usual
    below, above = WORDS[measure.name]
    return (
        f"{below if measure.value < low else above} than the calibration set: {measure.name} "
        f"{measure.value:.3g}, usual {low:.3g} to {high:.3g}"
    )


def shadow_fields(
    report: ShadowReport, beside_ns: Mapping[str, Sequence[int]], labels: Sequence[str]
) -> dict[str, Any]:
    """Return it as plain JSON values; what is unknown is null with a reason."""
    standing = report.standing
    return {
        "reference": artifact_fields(report.reference),
        "reference_is_artifact": report.is_artifact,
        "device": report.device,
        "runtime_version": report.version,
        "frames": {
            "sampled": standing.frames,
            "passed_over": report.passed_over,
            "unanswered": report.unanswered,
        },
        **_agreement_fields(report),
        **_accuracy_fields(report),
        "drift": [
            {
                "name": each.name,
                "alarm": each.alarm,
                **_told("value", each.value, each.reason),
                **_told("calibration", each.calibration, each.reason or "a distance has none"),
                **_told("usual", each.usual and list(each.usual), each.reason),
            }
            for each in report.drift
        ],
        "alarms": [alarm_words(each, labels) for each in report.drift if each.alarm],
        "raised": list(report.raised),
        "beside": {
            f"{stage}_ms": summary_fields(summarise(samples))
            for stage, samples in beside_ns.items()
        },
        **_told("fault", report.fault, "nothing failed"),
    }


def _agreement(report: ShadowReport) -> Iterator[str]:
    standing, name = report.standing, report.reference.label
    top1, overlap = standing.top1, standing.top5_overlap
    if top1 is None or overlap is None:
        yield f"shadow, {name}: {NOTHING_ANSWERED}"
        return
    low, high = top1.interval
    sqnr = SAME_BITS if standing.sqnr_db is None else f"SQNR {standing.sqnr_db:.1f} dB"
    yield (
        f"shadow, {name}: the same label on {top1.percent:.1f} % ({low:.1f}-{high:.1f}) of "
        f"{counted(top1.n, 'frame')}, {100 * overlap:.1f} % of its five best; {sqnr}"
    )
    if report.is_artifact:
        yield "  the artefact is the reference itself: it agrees, whatever it says"
    bound, right, own = standing.bound, standing.reference_accuracy, standing.accuracy
    if bound is None or right is None or own is None:
        yield f"  {NOT_ACCURACY}; without labels nothing says how often float itself is right"
    else:
        yield (
            f"  float is right on {right.percent:.1f} % of the {counted(right.n, 'labelled frame')}"
            f" among them, so by agreement alone the artefact is on {bound[0]:.1f} to "
            f"{bound[1]:.1f} % (it is on {own.percent:.1f} %)"
        )
    yield "  frames of one scene resemble each other: the interval counts them as independent"


def _frames(report: ShadowReport, beside_ns: Mapping[str, Sequence[int]]) -> Iterator[str]:
    took = "" if report.infer_ns is None else f"; the last took it {report.infer_ns / 1e6:.1f} ms"
    lost = f", {report.unanswered} not answered" if report.unanswered else ""
    yield (
        f"  {counted(report.standing.frames, 'frame')} sampled, {report.passed_over} passed over"
        f"{lost}{took}"
    )
    samples = beside_ns.get("inference")
    if samples:
        found = summarise(samples)
        told = f"p50 {found.p50:.4g}" if found.p50 is not None else f"at most {found.max:.4g}"
        yield (
            f"  {counted(found.n, 'frame')} ran beside it and {_are(found.n)} in no latency above: "
            f"infer {told} ms"
        )
    if report.fault is not None:
        yield f"  the shadow ended before the run: {report.fault}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _drift(report: ShadowReport) -> str:
    rows = [
        (
            f"{each.name} ({UNITS[each.name]})" if each.name in UNITS else "classes (distance)",
            "-" if each.value is None else f"{each.value:.3g}",
            "-" if each.calibration is None else f"{each.calibration:.3g}",
            "-" if each.usual is None else f"{each.usual[0]:.3g} to {each.usual[1]:.3g}",
            "ALARM" if each.alarm else "-" if each.usual is None else "usual",
        )
        for each in report.drift
    ]
    headers = ("newest frames against calibration", "now", "calibration", "usual", "")
    return render(headers, rows) if rows else ""


def _agreement_fields(report: ShadowReport) -> dict[str, Any]:
    standing = report.standing
    if standing.top1 is None:
        return unknown("agreement", NOTHING_ANSWERED)
    return {
        "agreement": {
            "top1": proportion_fields(standing.top1),
            "top5_overlap": standing.top5_overlap,
            **_told("sqnr_db", standing.sqnr_db, SAME_BITS),
            "n": standing.frames,
        }
    }


def _accuracy_fields(report: ShadowReport) -> dict[str, Any]:
    standing = report.standing
    bound, right, own = standing.bound, standing.reference_accuracy, standing.accuracy
    if bound is None or right is None or own is None:
        return unknown("accuracy_bound", NOT_LABELLED)
    return {
        "accuracy_bound": {
            "percent": list(bound),
            "n": standing.labelled,
            "same": standing.labelled_same,
            "reference": proportion_fields(right),
            "artifact": proportion_fields(own),
        }
    }


def _told(name: str, value: Any, reason: str | None) -> dict[str, Any]:
    return {name: value} if value is not None else unknown(name, reason or NOTHING_ANSWERED)
