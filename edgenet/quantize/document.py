"""`quantization.json`: every number of the INT8 forms, and what moved it.

Written beside the artefacts by `convert`; for people and for other people's tools: it says itself
how to read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from edgenet.graph import Affine, Weighted
from edgenet.quantize.form import Calibrated, Form
from edgenet.quantize.windows import windows

SCHEMA_VERSION = "1.3"
CONVENTIONS = {
    "real value": "scale * (q - zero_point)",
    "zero_point": "of uint8, as ONNX and OpenVINO hold it; TFLite and the symmetric form for "
    "TensorRT hold int8: q and zero_point less 128",
    "held_in": "8 bits; float32: an int8 layer that gives out its sums, in ONNX and OpenVINO "
    "without a Q / DQ pair, in TFLite as the sum of the windows listed; scale and zero_point are "
    "those that 8 bits would have",
    "equalised_by": "each channel's values, multiplied by this, are what the INT8 form holds",
    "channels_left_out": "channels that no output can feel, by the tensor that has them no more; "
    "these, equalised_by and copies are numbered as in the reference",
    "weights": "symmetric int8 of -127 to 127, zero point 0, one scale an output channel",
}
DIGITS = 6
"""Significant digits of what is not a scale: enough to compare, the same on every machine."""


def document(
    forms: Mapping[str, Form], calibrated: Calibrated, hygiene: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of `quantization.json` for forms by name."""
    return {
        "schema_version": SCHEMA_VERSION,
        "conventions": CONVENTIONS,
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
        "channels_left_out": {
            name: list(channels) for name, channels in form.filled.left_out.items()
        },
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
        **_affine(affine),
        "granularity": "per-tensor",
        **_held_in(name, affine, form),
        "range": [_rounded(affine.scale * (step - affine.zero_point)) for step in (0, 255)],
        "equalised_by": None if factors is None else [_rounded(float(f)) for f in factors],
        "copies": [
            {"channel": copy.channel, "of": copy.of, "plus": _rounded(copy.plus)}
            for copy in form.filled.copies.get(name, ())
        ],
    }


def _affine(affine: Affine) -> dict[str, Any]:
    return {"scale": affine.scale, "zero_point": affine.zero_point}


def _held_in(name: str, affine: Affine, form: Form) -> dict[str, Any]:
    if name not in form.quantized.sums:
        return {"held_in": "8 bits"}
    if form.quantized.symmetric or name not in form.quantized.graph.outputs:
        return {"held_in": "float32"}
    found = windows(affine)
    return {
        "held_in": "float32",
        "windows": {**_affine(found.affine), "shifts": [_rounded(s) for s in found.shifts]},
    }


def _layer(op: Weighted, form: Form) -> dict[str, Any]:
    after = form.quantized.layers[op.name]
    return {
        "input": op.input,
        "weight": {
            "scale": [float(scale) for scale in after.scale],
            "zero_point": 0,
            "granularity": "per-channel",
            "axis": 0,
        },
        "bias": {"scale": "input scale * weight scale", "zero_point": 0, "dtype": "int32"},
        "moved_by": {
            "equalisation": _equalisation(op, form),
            "learned_rounding": _learned_rounding(op, form),
            "bias_correction": _bias_correction(op, form),
        },
    }


def _equalisation(op: Weighted, form: Form) -> dict[str, Any] | None:
    """Return by how much the weights were multiplied; None for a layer that it left alone."""
    reference, equalised = (
        {layer.name: layer.weight for layer in graph.weighted()}
        for graph in (form.calibrated.reference, form.calibrated.equalised.graph)
    )
    weight = reference.get(op.name)
    if weight is None or np.array_equal(weight, equalised[op.name]):
        return None
    factors = equalised[op.name][weight != 0] / weight[weight != 0]
    return {
        "weights_times_least": _rounded(float(factors.min())),
        "weights_times_most": _rounded(float(factors.max())),
    }


def _learned_rounding(op: Weighted, form: Form) -> dict[str, Any]:
    before, after = form.plain.layers[op.name], form.quantized.layers[op.name]
    scale = after.scale.reshape(-1, *[1] * (op.weight.ndim - 1))
    nearest = np.rint(op.weight / scale)
    return {
        "weights": int(after.values.size),
        "rounded_otherwise": int((after.values != nearest).sum()),
        "scale_times_most": _rounded(float((after.scale / before.scale).max())),
    }


def _bias_correction(op: Weighted, form: Form) -> dict[str, Any]:
    """Return the shift of the biases, in units of the layer's output."""
    before, after = form.plain.layers[op.name], form.quantized.layers[op.name]
    source = form.quantized.tensors[op.input].scale
    shift = source * (
        after.bias.astype(np.float64) * after.scale - before.bias.astype(np.float64) * before.scale
    )
    return {
        "shift_largest": _rounded(float(np.abs(shift).max())),
        "shift_rms": _rounded(float(np.sqrt((shift**2).mean()))),
    }


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
