"""The INT8 form on the host: what every runtime computes, in float32 with torch.

A value in 8 bits is held as the real number that it stands for. Sums of products of such numbers
are exact enough in float32 that a byte differs from a runtime's where the sum is next to a half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from edgenet.graph import (
    IMAGE,
    Affine,
    Float32Array,
    Normalise,
    Operator,
    QuantizedGraph,
    QuantizedWeights,
    Weighted,
    inputs_of,
)
from edgenet.preprocess import UInt8Array
from edgenet.quantize.execute import Watch, apply, chunks, joined

STEPS = 255
"""Steps of an 8-bit activation."""
WEIGHT_STEPS = 127
"""Largest 8-bit weight; -128 is left out so that the range is symmetric."""


def answers(quantized: QuantizedGraph, images: Sequence[UInt8Array]) -> Float32Array:
    """Return what `execute` does, (N, values), for images (1, H, W, 3) uint8 RGB."""
    rows = [execute(quantized, chunk, lambda *_: None) for chunk in chunks(images)]
    return torch.cat(rows).numpy()


@torch.inference_mode()
def execute(quantized: QuantizedGraph, images: Tensor, watch: Watch) -> Tensor:
    """Return all outputs, `joined`, for images (N, H, W, 3) uint8, showing `watch` every tensor."""
    graph = quantized.graph
    last_reader = {name: op.name for op in graph.operators for name in inputs_of(op)}
    tensors: dict[str, Tensor] = {IMAGE: images.permute(0, 3, 1, 2)}
    for op in graph.operators:
        tensors[op.name] = step(quantized, op, *(tensors[name] for name in inputs_of(op)))
        watch(op.name, tensors[op.name])
        for name in set(inputs_of(op)).difference(graph.outputs):
            if last_reader[name] == op.name:
                del tensors[name]
    return joined(graph, tensors)


def step(quantized: QuantizedGraph, op: Operator, *inputs: Tensor) -> Tensor:
    """Return one operator's output from the values of its inputs."""
    affine = quantized.tensors.get(op.name)
    if isinstance(op, Normalise) and affine is not None and not quantized.symmetric:
        return dequantize(inputs[0], affine)
    y = apply(real(quantized, op), *inputs)
    return y if affine is None else dequantize(to_bytes(y, affine), affine)


def real(quantized: QuantizedGraph, op: Operator) -> Operator:
    """Return `op` as its integers stand for it."""
    return real_weights(quantized, op) if isinstance(op, Weighted) else op


def real_weights(quantized: QuantizedGraph, op: Weighted) -> Weighted:
    """Return a layer with the weights and bias that it has in `quantized`, in 8 bits or float."""
    integers = quantized.layers.get(op.name)
    return op if integers is None else dequantized(op, integers, quantized.tensors[op.input])


def dequantized(op: Weighted, weights: QuantizedWeights, source: Affine) -> Weighted:
    """Return `op` with the weights and bias that its integers stand for."""
    scale = weights.scale.reshape(-1, *[1] * (weights.values.ndim - 1))
    bias_scale = weights.scale.astype(np.float64) * source.scale
    return replace(
        op,
        weight=(weights.values * scale).astype(np.float32),
        bias=(weights.bias * bias_scale).astype(np.float32),
    )


def to_bytes(x: Tensor, affine: Affine) -> Tensor:
    """Return the 8-bit form of real values, uint8."""
    return ((x / affine.scale).round() + affine.zero_point).clamp(0, STEPS).to(torch.uint8)


def dequantize(x: Tensor, affine: Affine) -> Tensor:
    """Return the real values, float32, of bytes."""
    return (x.float() - affine.zero_point) * affine.scale
