"""A bundle's contents as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from edgenet.bundle import MANIFEST, Bundle, Output, Quantization
from edgenet.measure.operators import ArtifactOperators
from edgenet.report.record import artifact_fields
from edgenet.report.table import render, size


def artifact_table(bundle: Bundle) -> str:
    """Return the artefacts, one a line."""
    return render(
        ("runtime", "precision", "size", "sha256", "file"),
        [
            (
                artifact.runtime,
                artifact.form,
                size(artifact.size_bytes),
                artifact.sha256[:12],
                artifact.files[0],
            )
            for artifact in bundle.artifacts
        ],
    )


def bundle_text(bundle: Bundle) -> str:
    """Return what a person wants to know of a bundle."""
    model, side = bundle.model, bundle.model.resolution
    calibration = bundle.calibration
    facts = {
        "bundle": f"{bundle.name} ({bundle.sha256[:12]})",
        "model": model.summary,
        "weights": f"{model.weights} ({model.weights_sha256[:12]}), {bundle.licence}"
        + ("" if model.trained else "; random: its answers mean nothing"),
        "input": f"image, uint8 (1, {side}, {side}, 3) RGB NHWC; normalised inside "
        f"by mean {_numbers(bundle.mean)} and deviation {_numbers(bundle.std)}",
        "output": "; ".join(map(_output, bundle.outputs)),
        "preprocessing": f"shorter side to {round(side / bundle.preprocessing.crop_fraction)}, "
        f"centre {side} x {side} ({bundle.preprocessing.sha256()[:12]})",
        "labels": f"{len(bundle.labels)}: {bundle.labels[0]} ... {bundle.labels[-1]}"
        if bundle.labels
        else "none, it is no classifier",
        "calibration": "none, nothing is in 8 bits"
        if calibration is None
        else f"{calibration.count} of {calibration.name}, {calibration.method}, seed "
        f"{calibration.seed} ({calibration.sha256[:12]})",
        **{
            quantization.name: f"{_float_layers(quantization)}; {_judged(quantization)}"
            for quantization in bundle.quantizations
        },
        "tools": ", ".join(f"{name} {version}" for name, version in bundle.tools.items()),
    }
    width = max(map(len, facts))
    lines = [f"{name.ljust(width)}  {value}" for name, value in facts.items()]
    return "\n".join(lines) + "\n\n" + artifact_table(bundle)


def operator_text(reports: Sequence[ArtifactOperators], *, every: bool) -> str:
    """Return how many operators of each artefact compute in what; with `every` name them all."""
    table = render(
        ("runtime", "precision", "operators, by what the runtime says that they compute in"),
        [(r.artifact.runtime, r.artifact.form, _counts(r)) for r in reports],
    )
    if not every:
        return table
    lists = [
        f"{report.artifact.label}:\n"
        + render(
            ("operator", "kind", "precision"),
            [(op.name, op.kind, op.precision) for op in report.operators or ()],
        )
        for report in reports
    ]
    return "\n\n".join([table, *lists])


def _counts(report: ArtifactOperators) -> str:
    if report.operators is None:
        return f"unknown: {report.reason}"
    return ", ".join(f"{name} {count}" for name, count in sorted(report.by_precision.items()))


def operator_document(reports: Sequence[ArtifactOperators]) -> list[dict[str, Any]]:
    """Return every operator of every artefact."""
    return [
        {
            "artifact": artifact_fields(report.artifact),
            "operators": report.operators and [asdict(op) for op in report.operators],
            "operators_reason": report.reason,
        }
        for report in reports
    ]


def bundle_document(bundle: Bundle) -> dict[str, Any]:
    """Return the manifest as it stands, with the bundle's identity beside it."""
    manifest = json.loads((bundle.root / MANIFEST).read_text("utf-8"))
    return {"bundle_sha256": bundle.sha256, "path": str(bundle.root), "manifest": manifest}


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in dict.fromkeys(values))


def _float_layers(quantization: Quantization) -> str:
    if not quantization.float_layers:
        return "integer throughout"
    return "in float: " + ", ".join(quantization.float_layers)


def _output(output: Output) -> str:
    layout = " NHWC" if output.is_map else ""
    return f"{output.name}, float32 ({', '.join(map(str, output.shape))}){layout}"


def _judged(quantization: Quantization) -> str:
    sqnr = "identical" if quantization.sqnr_db is None else f"{quantization.sqnr_db:.1f} dB"
    on = f"{quantization.images} {quantization.judged_on}"
    if quantization.agreement_right is not None:
        return f"logits {sqnr}, top-1 agrees on {quantization.agreement_right} of {on}"
    cosine = "-" if quantization.cosine is None else f"{quantization.cosine:.5f}"
    return f"outputs {sqnr}, cosine {cosine} on {on}"
