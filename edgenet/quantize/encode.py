"""Encoding: scales and zero points from the calibration, weights and biases rounded to them.

This is the plain form, min-max and nearest rounding; `correct.py` makes up for what rounding costs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgenet.errors import ConversionFailed
from edgenet.graph import (
    ACTIVATION_RANGES,
    Affine,
    Convolution,
    Graph,
    Normalise,
    QuantizedGraph,
    QuantizedWeights,
    Weighted,
)
from edgenet.quantize.statistics import ChannelStatistics, Float64Array

STEPS = 255
"""Steps of an 8-bit activation."""
WEIGHT_STEPS = 127
"""Largest 8-bit weight; -128 is left out so that the range is symmetric."""
BIAS_LIMIT = 2**31 - 1
LEAST_SCALE = 2.0**-60
"""Smallest scale: the product of two is still a normal float32, so no bias is divided by zero."""


def encode(graph: Graph, statistics: Mapping[str, ChannelStatistics]) -> QuantizedGraph:
    """Return the INT8 form of `graph`: every tensor and every layer in 8 bits.

    Activations are asymmetric per tensor, weights symmetric per output channel.
    """
    tensors = {name: affine(seen) for name, seen in statistics.items()}
    layers: dict[str, QuantizedWeights] = {}
    normalise = graph.operators[0]
    assert isinstance(normalise, Normalise)
    tensors[normalise.name] = image_affine(normalise)
    for op in graph.weighted():
        bias = op.bias.astype(np.float64)
        if op.input == normalise.name:
            bias = bias + _zero_point_rest(normalise, op)
        layers[op.name] = _quantize_weights(op, bias, tensors[op.input])
        if isinstance(op, Convolution):
            _check_clips(op, tensors[op.name])
    return QuantizedGraph(graph=graph, tensors=tensors, layers=layers)


def image_affine(normalise: Normalise) -> Affine:
    """Return the affine under which the image's own bytes are the normalised tensor."""
    if np.ptp(normalise.mean) or np.ptp(normalise.std):
        raise ConversionFailed(
            "INT8 needs one mean and one deviation for all channels, not "
            f"{normalise.mean.tolist()} and {normalise.std.tolist()}; "
            "convert with --precision float32"
        )
    # Halves round up: the mean of 127.5 in Google's checkpoints becomes 128.
    zero_point = int(np.floor(float(normalise.mean[0]) + 0.5))
    return Affine(scale=float(np.float32(1 / float(normalise.std[0]))), zero_point=zero_point)


def _zero_point_rest(normalise: Normalise, op: Weighted) -> Float64Array:
    """Return what the image's whole zero point rounds away, as a bias (out,)."""
    rest = (image_affine(normalise).zero_point - normalise.mean[0]) / normalise.std[0]
    total: Float64Array = (
        op.weight.reshape(len(op.weight), -1).astype(np.float64).sum(axis=1) * rest
    )
    return total


def affine(seen: ChannelStatistics) -> Affine:
    """Return the affine that covers a tensor's range and holds zero exactly."""
    low, high = min(float(seen.low.min()), 0.0), max(float(seen.high.max()), 0.0)
    scale = float(np.float32(max((high - low) / STEPS, LEAST_SCALE))) if high > low else 1.0
    return Affine(scale=scale, zero_point=int(np.clip(round(-low / scale), 0, STEPS)))


def _quantize_weights(op: Weighted, bias: Float64Array, source: Affine) -> QuantizedWeights:
    flat = np.abs(op.weight.reshape(len(op.weight), -1)).max(axis=1)
    scale = (np.where(flat > 0, flat, 1) / WEIGHT_STEPS).astype(np.float32)
    # A dead channel's tiny weights would need a bias beyond int32: its scale grows instead.
    least = np.abs(bias) / (BIAS_LIMIT / 2) / source.scale
    scale = np.maximum(scale, least.astype(np.float32)).clip(LEAST_SCALE)
    per_channel = scale.reshape(-1, *[1] * (op.weight.ndim - 1))
    values = np.clip(np.rint(op.weight / per_channel), -WEIGHT_STEPS, WEIGHT_STEPS).astype(np.int8)
    bias_scale = (np.float32(source.scale) * scale).astype(np.float64)
    return QuantizedWeights(
        values=values, scale=scale, bias=np.rint(bias / bias_scale).astype(np.int32)
    )


def _check_clips(op: Convolution, affine: Affine) -> None:
    """An INT8 layer has no activation of its own: its output's affine must not reach beyond it."""
    low, high = ACTIVATION_RANGES[op.activation]
    reach_low = -affine.scale * affine.zero_point
    reach_high = affine.scale * (STEPS - affine.zero_point)
    beyond_low = low is not None and reach_low < low
    beyond_high = high is not None and reach_high > high * (1 + 1e-6)
    assert not (beyond_low or beyond_high), f"{op.name}: {affine} passes {op.activation}"
