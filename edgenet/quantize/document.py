"""`quantization.json`: every number of the INT8 forms, and what moved it.

Written beside the artefacts by `convert`; for people and for other people's tools. Zero points are
those of uint8; formats that hold int8 store them less 128.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from edgenet.graph import Affine, Weighted
from edgenet.quantize.form import Calibrated, Form

SCHEMA_VERSION = "1.0"
DIGITS = 6
"""Significant digits of what is not a scale: enough to compare, the same on every machine."""


def document(
    forms: Mapping[str, Form], calibrated: Calibrated, hygiene: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of `quantization.json` for forms by name."""
    return {
        "schema_version": SCHEMA_VERSION,
        "recipe": asdict(calibrated.recipe),
        "calibration": dict(hygiene),
        "ranking": [
            {
                "layer": choice.layer,
                "cost": _rounded(choice.cost),
                "gain": _rounded(choice.gain),
                "predicted_sqnr_db": _rounded(choice.predicted_sqnr_db),
            }
            for choice in calibrated.ranking
        ],
        "forms": {name: _form(form) for name, form in forms.items()},
    }


def _form(form: Form) -> dict[str, Any]:
    quantized, graph = form.quantized, form.quantized.graph
    held = {**quantized.tensors, **quantized.sums}
    return {
        "float_layers": list(form.float_layers),
        "symmetric": quantized.symmetric,
        "tensors": {
            op.name: _tensor(op.name, held[op.name], form)
            for op in graph.operators
            if op.name in held
        },
        "layers": {
            op.name: _layer(op, form) for op in graph.weighted() if op.name in quantized.layers
        },
    }


def _tensor(name: str, affine: Affine, form: Form) -> dict[str, Any]:
    factors = form.calibrated.equalised.factors.get(name)
    return {
        "scale": affine.scale,
        "zero_point": affine.zero_point,
        "granularity": "per-tensor",
        "held_in": "float32" if name in form.quantized.sums else "8 bits",
        "range": [_rounded(affine.scale * (step - affine.zero_point)) for step in (0, 255)],
        "equalised_by": None if factors is None else [_rounded(float(f)) for f in factors],
    }


def _layer(op: Weighted, form: Form) -> dict[str, Any]:
    before, after = form.plain.layers[op.name], form.quantized.layers[op.name]
    source = form.quantized.tensors[op.input]
    shift = (after.bias.astype(np.float64) - before.bias) * after.scale * source.scale
    turned = int((after.values != before.values).sum())
    return {
        "input": op.input,
        "weight": {
            "scale": [float(scale) for scale in after.scale],
            "zero_point": 0,
            "granularity": "per-channel",
            "axis": 0,
        },
        "bias": {"scale": "input scale * weight scale", "zero_point": 0, "dtype": "int32"},
        "moved": {
            "weights_rounded_otherwise": turned,
            "weights": int(after.values.size),
            "bias_shift_largest": _rounded(float(np.abs(shift).max())),
            "bias_shift_rms": _rounded(float(np.sqrt((shift**2).mean()))),
        },
    }


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
