"""A bundle's contents as text and as JSON."""

from __future__ import annotations

import json
from typing import Any

from edgenet.bundle import MANIFEST, Bundle, Quantization
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
        "output": f"logits, float32 (1, {len(bundle.labels)})",
        "preprocessing": f"shorter side to {round(side / bundle.preprocessing.crop_fraction)}, "
        f"centre {side} x {side} ({bundle.preprocessing.sha256()[:12]})",
        "labels": f"{len(bundle.labels)}: {bundle.labels[0]} ... {bundle.labels[-1]}",
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


def _judged(quantization: Quantization) -> str:
    sqnr = "identical" if quantization.sqnr_db is None else f"{quantization.sqnr_db:.1f} dB"
    return (
        f"logits {sqnr}, top-1 agrees on {quantization.agreement_right} of {quantization.images} "
        f"{quantization.judged_on}"
    )
