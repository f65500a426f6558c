"""An evaluation as text."""

from __future__ import annotations

from edgenet.measure.accuracy import Proportion
from edgenet.measure.evaluate import ArtifactResult, Evaluation
from edgenet.report.table import render, size

UNTRAINED = "random weights: no accuracy is reported for them"


def evaluation_text(evaluation: Evaluation) -> str:
    """Return one table of all artefacts, and what must be known to read it."""
    table = render(
        (
            *("runtime", "precision", "size", "top-1 %", "95 %", "top-5 %", "95 %"),
            *("agreement %", "95 %", "SQNR dB", "max diff", "RMS diff"),
        ),
        [_row(result) for result in evaluation.results],
    )
    notes = [
        f"{evaluation.dataset}: n = {len(evaluation.pictures)}"
        + (f", {len(evaluation.unreadable)} unreadable" if evaluation.unreadable else ""),
        f"agreement is with {evaluation.reference.label}"
        if evaluation.reference
        else "no agreement: no float artefact could run",
        "intervals: Wilson, 95 %",
        *dict.fromkeys(
            f"{result.artifact.runtime}: {result.version} on {result.device}"
            for result in evaluation.results
        ),
        *(f"{artifact.label} not run: {reason}" for artifact, reason in evaluation.not_run),
    ]
    if all(result.accuracy is None for result in evaluation.results):
        notes.append(UNTRAINED)
    return table + "\n\n" + "\n".join(notes)


def _row(result: ArtifactResult) -> tuple[str, ...]:
    accuracy, agreement = result.accuracy, result.agreement
    return (
        result.artifact.runtime,
        result.artifact.form,
        size(result.artifact.size_bytes),
        *percent_cells(accuracy.top1 if accuracy else None),
        *percent_cells(accuracy.top5 if accuracy else None),
        *percent_cells(agreement.top1 if agreement else None),
        "-" if agreement is None else _decibel(agreement.sqnr_db),
        "-" if agreement is None else f"{agreement.max_difference:.2g}",
        "-" if agreement is None else f"{agreement.rms_difference:.2g}",
    )


def percent_cells(found: Proportion | None) -> tuple[str, str]:
    """Return the cells of a share and of its interval."""
    if found is None:
        return "-", "-"
    low, high = found.interval
    return f"{found.percent:.2f}", f"{low:.1f}-{high:.1f}"


def _decibel(sqnr_db: float | None) -> str:
    return "identical" if sqnr_db is None else f"{sqnr_db:.1f}"
