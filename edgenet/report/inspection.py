"""A bundle's contents as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from edgenet.bundle import (
    MANIFEST,
    POINTS,
    Bundle,
    LimitResult,
    Output,
    Precision,
    Quantization,
    artifact_fields,
)
from edgenet.measure.operators import ArtifactOperators, computes
from edgenet.report.table import render, size
from edgenet.wording import counted

NAMED = 4
"""Operators of an int8 artefact in another precision that the table names."""


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


def quantization_text(bundle: Bundle) -> str:
    """Return what INT8 cost: for each quantised model what is in float, how near, the limits."""
    return "\n".join(
        f"{quantization.name}: " + "\n  ".join(_quantization_facts(quantization))
        for quantization in bundle.quantizations
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
            quantization.name: "; ".join(_quantization_facts(quantization))
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
        ("runtime", "precision", "computing operators, by what the runtime says that they use"),
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
    counts = ", ".join(f"{name} {count}" for name, count in sorted(report.by_precision.items()))
    return "; ".join(filter(None, (counts, _named_exceptions(report))))


def _named_exceptions(report: ArtifactOperators) -> str:
    """Return the names of what does not compute in int8 in an int8 artefact, of many the first."""
    if report.artifact.precision is not Precision.INT8:
        return ""
    others = [op for op in report.computing if op.precision != Precision.INT8.value]
    names = [f"{op.kind.partition(' ')[0]} {op.name}" for op in others[:NAMED]]
    rest = [f"{len(others) - NAMED} more"] if len(others) > NAMED else []
    return f"not in int8: {', '.join([*names, *rest])}" if names else ""


def operator_document(reports: Sequence[ArtifactOperators]) -> list[dict[str, Any]]:
    """Return every operator of every artefact."""
    return [
        {
            "artifact": artifact_fields(report.artifact),
            "operators": report.operators
            and [{**asdict(op), "computes": computes(op)} for op in report.operators],
            "by_precision": dict(sorted(report.by_precision.items())),
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


def _quantization_facts(quantization: Quantization) -> list[str]:
    return [
        _float_layers(quantization),
        _judged(quantization),
        *map(_limit, quantization.limits),
    ]


def _float_layers(quantization: Quantization) -> str:
    layers, all_layers = quantization.float_layers, quantization.weighted_layers
    if not layers:
        return "integer throughout"
    share = "" if all_layers is None else f"{len(layers)} of {counted(all_layers, 'layer')} "
    return f"{share}in float: {', '.join(layers)}"


def _limit(limit: LimitResult) -> str:
    if limit.reached is None:
        found = "the same logits"
    elif limit.unit == POINTS:
        moves = "falls" if limit.reached >= 0 else "rises"
        found = f"top-1 {moves} by {abs(limit.reached):.2f} points"
    else:
        found = f"{limit.reached:.2f} {limit.unit}"
    judged = f"{found} on {limit.judged_on} (n = {limit.images})"
    return f"{limit.option} {limit.asked:g}: {judged}" + ("" if limit.holds else ", MISSED")


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
