"""A diagnosis as text and as JSON. The schema is `edgenet/schemas/diagnosis.schema.json`."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from edgenet.bundle import Bundle
from edgenet.convert.diagnose import Diagnosis
from edgenet.measure.accuracy import Accuracy, Proportion
from edgenet.measure.agreement import Agreement, Closeness
from edgenet.quantize.diagnosis import LayerDiagnosis, Step
from edgenet.quantize.findings import Finding
from edgenet.report.table import render

SCHEMA_VERSION = "1.3"
TOLD = 3
"""Findings of one kind that the text spells out; the JSON has all."""
MOST_DB = 99.9
"""From here on the noise is that of float32 itself."""
NO_NOISE = "bit-identical to the reference, or no signal"
NO_CLASSES = "the network is no classifier"
NO_RATIO = "fewer than two live channels, or no weights"
LAYER_COLUMNS = (
    *("layer", "precision", "SQNR dB", "by channel", "own", "cosine", "noise %"),
    *("output range", "equalised", "weight range"),
)


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """Return the layers, the findings in words and the steps."""
    layers = render(LAYER_COLUMNS, [_layer_row(layer) for layer in diagnosis.layers])
    labelled = diagnosis.reference_accuracy is not None
    steps = render(
        (
            *("step", "SQNR dB", *_agreement_columns(diagnosis.steps)),
            *(("top-1 %", "top-5 %") if labelled else ()),
            "seconds",
        ),
        [
            *([_reference_row(diagnosis.reference_accuracy)] if labelled else []),
            *(_step_row(step) for step in diagnosis.steps),
        ],
    )
    in_float = ", ".join(diagnosis.float_layers) or "nothing"
    return "\n".join(
        [
            f"{diagnosis.form}: {diagnosis.recipe}; in float: {in_float}",
            "",
            f"Layers, worst first, on {diagnosis.layers_judged_on} (n = {diagnosis.layers_images})",
            "",
            layers,
            "",
            "What is wrong",
            "",
            *_told(diagnosis.findings),
            "",
            f"What each step bought, made from {diagnosis.calibration_images} images, judged on "
            f"{diagnosis.steps_judged_on} (n = {diagnosis.steps_images})",
            "",
            steps,
            *([""] if diagnosis.no_accuracy or diagnosis.notes else []),
            *([f"no accuracy: {diagnosis.no_accuracy}"] if diagnosis.no_accuracy else []),
            *diagnosis.notes,
        ]
    )


def diagnosis_document(
    bundle: Bundle, diagnosis: Diagnosis, *, command: Sequence[str]
) -> dict[str, Any]:
    """Return the JSON document of one diagnosis; what is unknown is null with a reason."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "diagnosis",
        "command": list(command),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "bundle_sha256": bundle.sha256,
        "machine": platform.machine(),
        "form": diagnosis.form,
        "recipe": diagnosis.recipe,
        "float_layers": list(diagnosis.float_layers),
        "calibration_images": diagnosis.calibration_images,
        "layers_judged": {"on": diagnosis.layers_judged_on, "n": diagnosis.layers_images},
        "layers": [_layer_entry(layer) for layer in diagnosis.layers],
        "findings": [
            {"layer": finding.layer, "kind": finding.kind, "text": finding.text}
            for finding in diagnosis.findings
        ],
        "steps_judged": {"on": diagnosis.steps_judged_on, "n": diagnosis.steps_images},
        "reference": _accuracy_entry(diagnosis.reference_accuracy, diagnosis.no_accuracy),
        "steps": [_step_entry(step, diagnosis.no_accuracy) for step in diagnosis.steps],
        "notes": list(diagnosis.notes),
    }


def _layer_row(layer: LayerDiagnosis) -> tuple[str, ...]:
    return (
        layer.name,
        layer.precision,
        _decibel(layer.sqnr_db),
        _decibel(layer.channels_sqnr_db),
        _decibel(layer.own_sqnr_db),
        f"{layer.cosine:.4f}",
        f"{100 * layer.noise_share:.1f}",
        _ratio(layer.output_ratio),
        _ratio(layer.equalised_ratio),
        _ratio(layer.weight_ratio),
    )


def _told(findings: Sequence[Finding]) -> list[str]:
    """Return the worst findings of each kind, and who else has the same."""
    lines = []
    for kind in dict.fromkeys(finding.kind for finding in findings):
        same = [finding for finding in findings if finding.kind == kind]
        lines += [finding.text for finding in same[:TOLD]]
        rest = ", ".join(finding.layer for finding in same[TOLD:])
        lines += [f"  the same, less so: {rest}"] if rest else []
    return lines or ["nothing stands out"]


def _reference_row(accuracy: Accuracy | None) -> tuple[str, ...]:
    assert accuracy is not None
    return ("float32", "-", "-", "-", *_percents(accuracy), "-")


def _step_row(step: Step) -> tuple[str, ...]:
    found = step.agreement
    return (
        step.name,
        _decibel(found.sqnr_db),
        *_agreement_cells(found),
        *(_percents(step.accuracy) if step.accuracy else ()),
        f"{step.seconds:.1f}",
    )


def _agreement_columns(steps: Sequence[Step]) -> tuple[str, ...]:
    """Return what stands beside the SQNR: where no class can agree, the cosine."""
    classifies = all(isinstance(step.agreement, Agreement) for step in steps)
    return ("agreement %", "95 %") if classifies else ("cosine",)


def _agreement_cells(found: Closeness) -> tuple[str, ...]:
    if not isinstance(found, Agreement):
        return ("-" if found.cosine is None else f"{found.cosine:.5f}",)
    low, high = found.top1.interval
    return f"{found.top1.percent:.2f}", f"{low:.1f}-{high:.1f}"


def _percents(accuracy: Accuracy) -> tuple[str, str]:
    return f"{accuracy.top1.percent:.2f}", f"{accuracy.top5.percent:.2f}"


def _decibel(sqnr_db: float | None) -> str:
    return "-" if sqnr_db is None else f"{min(sqnr_db, MOST_DB):.1f}"


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.1f}:1" if ratio < 100 else f"{ratio:,.0f}:1"


def _layer_entry(layer: LayerDiagnosis) -> dict[str, Any]:
    entry = asdict(layer)
    reasons = {
        f"{name}_reason": NO_RATIO if name.endswith("_ratio") else NO_NOISE
        for name, value in entry.items()
        if value is None
    }
    return {**entry, **reasons}


def _step_entry(step: Step, no_accuracy: str | None) -> dict[str, Any]:
    found = step.agreement
    entry: dict[str, Any] = {
        "name": step.name,
        "sqnr_db": found.sqnr_db,
        **({"sqnr_db_reason": NO_NOISE} if found.sqnr_db is None else {}),
        "cosine": found.cosine,
        **({"cosine_reason": NO_NOISE} if found.cosine is None else {}),
        **_agreement_entry(found),
        "seconds": step.seconds,
    }
    return {**entry, **_accuracy_entry(step.accuracy, no_accuracy)}


def _agreement_entry(found: Closeness) -> dict[str, Any]:
    if not isinstance(found, Agreement):
        return {"agreement": None, "agreement_reason": NO_CLASSES}
    return {"agreement": {"top1": _proportion(found.top1), "n": found.top1.n}}


def _accuracy_entry(accuracy: Accuracy | None, reason: str | None) -> dict[str, Any]:
    if accuracy is None:
        return {"accuracy": None, "accuracy_reason": reason}
    return {
        "accuracy": {
            "top1": _proportion(accuracy.top1),
            "top5": _proportion(accuracy.top5),
            "n": accuracy.top1.n,
        }
    }


def _proportion(found: Proportion) -> dict[str, Any]:
    low, high = found.interval
    return {"percent": found.percent, "right": found.right, "interval": [low, high]}
