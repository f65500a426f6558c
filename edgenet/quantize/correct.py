"""Correction: layer by layer, weights and biases are fitted to the inputs that INT8 really sees.

Two things, in the order of the network, each layer reading the already corrected INT8 output of the
one before:

- Learned rounding. Each weight is rounded in turn and its error is pushed into the weights not yet
  rounded, as the inputs' covariance says (Frantar et al. 2022, arXiv 2210.17323).
- Bias correction. What is left over is mostly a shift of each channel's mean; the bias takes it up
  until the mean after clipping is the reference's (after Nagel et al. 2019, arXiv 1906.04721).

Streams between layers are kept as bytes and worked on in chunks, so that memory stays small and
time is linear in the number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgenet.graph import (
    Affine,
    Convolution,
    FullyConnected,
    GlobalAveragePool,
    Normalise,
    QuantizedGraph,
    QuantizedWeights,
    Weighted,
)
from edgenet.preprocess import UInt8Array
from edgenet.quantize.encode import STEPS, WEIGHT_STEPS
from edgenet.quantize.execute import apply
from edgenet.quantize.statistics import ChannelStatistics

CHUNK = 4
"""Images worked on at a time."""
DAMPING = 0.01
"""Share of the mean variance added to every input's, for covariances that are nearly singular."""
NOISE_FLOOR = 1e-5
"""The same of the mean square: sums in float32 leave so much of a constant input as variance."""
BIAS_STEPS = 2
LEAST_ACTIVE = 0.05
"""A channel that is clipped more often than this moves its mean too slowly to be divided by."""
SAMPLES_PER_INPUT = 2
"""With fewer samples for each input of a layer its covariance is noise: round to nearest."""
ENOUGH_SAMPLES_PER_INPUT, ENOUGH_IMAGES = 256, 32
"""With so many of both, more images do not change the covariance."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Stream:
    """A tensor in 8 bits for all images: (N, C, H, W) or (N, C) uint8."""

    values: Tensor
    affine: Affine

    def chunks(self) -> Iterator[Tensor]:
        """Yield the real values, float32, a few images at a time."""
        for start in range(0, len(self.values), CHUNK):
            chunk = self.values[start : start + CHUNK].float()
            yield (chunk - self.affine.zero_point) * self.affine.scale


def correct(
    quantized: QuantizedGraph,
    statistics: Mapping[str, ChannelStatistics],
    images: Sequence[UInt8Array],
    *,
    on_layer: Callable[[], None] = lambda: None,
) -> QuantizedGraph:
    """Return `quantized` with weights and biases fitted on `images` (1, H, W, 3) uint8 RGB.

    `statistics` are the float graph's over the same images. Every layer must be in 8 bits.
    """
    layers = dict(quantized.layers)
    streams: dict[str, _Stream] = {}
    for op in quantized.graph.operators:
        affine = quantized.tensors[op.name]
        if isinstance(op, Normalise):
            pixels = torch.from_numpy(np.concatenate(images)).permute(0, 3, 1, 2).contiguous()
            streams[op.name] = _Stream(values=pixels, affine=affine)
            continue
        source = streams[op.input]
        if isinstance(op, GlobalAveragePool):
            outputs: Iterable[Tensor] = (apply(op, x) for x in source.chunks())
        else:
            target = torch.from_numpy(statistics[op.name].mean)
            fitted = _fit(op, layers[op.name], source, affine, target)
            layers[op.name] = fitted
            outputs = _outputs(op, fitted, source)
            on_layer()
        streams = {
            op.name: _Stream(
                values=torch.cat([_to_bytes(y, affine) for y in outputs]), affine=affine
            )
        }
    return replace(quantized, layers=layers)


@torch.inference_mode()
def _fit(
    op: Weighted, weights: QuantizedWeights, source: _Stream, affine: Affine, target: Tensor
) -> QuantizedWeights:
    fitted = replace(weights, values=_learn_rounding(op, weights, source))
    return _correct_bias(op, fitted, source, affine, target)


def _learn_rounding(
    op: Weighted, weights: QuantizedWeights, source: _Stream
) -> np.ndarray[tuple[int, ...], np.dtype[np.int8]]:
    """Return the integer weights that keep the layer's output closest to the float weights'."""
    groups = op.groups if isinstance(op, Convolution) else 1
    covariance, samples = _covariance(op, source)
    if samples < SAMPLES_PER_INPUT * covariance.shape[1]:
        return weights.values
    rows = torch.from_numpy(op.weight).double().reshape(groups, -1, covariance.shape[1])
    scale = torch.from_numpy(weights.scale).double().reshape(groups, -1)
    values = _round_in_turn(rows, covariance, scale)
    return values.reshape(op.weight.shape).to(torch.int8).numpy()


def _covariance(op: Weighted, source: _Stream) -> tuple[Tensor, int]:
    """Return the damped covariance of a layer's inputs, (groups, K, K), and the samples in it."""
    products: Tensor | float = 0.0
    sums: Tensor | float = 0.0
    count = 0
    images = 0
    for x in source.chunks():
        columns = _columns(op, x)
        images += len(x)
        products = products + (columns @ columns.transpose(1, 2)).double()
        sums = sums + columns.double().sum(2)
        count += columns.shape[2]
        if images >= ENOUGH_IMAGES and count >= ENOUGH_SAMPLES_PER_INPUT * columns.shape[1]:
            break
    assert isinstance(products, Tensor)
    assert isinstance(sums, Tensor)
    mean = sums / count
    squares = products / count
    covariance = squares - mean[:, :, None] * mean[:, None, :]
    variance, square = (m.diagonal(dim1=1, dim2=2).mean(1) for m in (covariance, squares))
    damping = DAMPING * variance.clamp(min=0) + NOISE_FLOOR * square.clamp(min=NOISE_FLOOR)
    return covariance + damping[:, None, None] * torch.eye(len(mean[0]), dtype=torch.float64), count


def _columns(op: Weighted, x: Tensor) -> Tensor:
    """Return what each weight of a layer is multiplied by: (groups, K, positions) float32."""
    if isinstance(op, FullyConnected):
        return x.T[None]
    kernel = op.weight.shape[2:]
    top, bottom, left, right = op.pad
    if tuple(kernel) == (1, 1) and op.stride == (1, 1) and not any(op.pad):
        columns = x.permute(1, 0, 2, 3).reshape(x.shape[1], -1)
    else:
        patches = functional.unfold(
            functional.pad(x, (left, right, top, bottom)), tuple(kernel), stride=op.stride
        )
        columns = patches.permute(1, 0, 2).reshape(patches.shape[1], -1)
    return columns.reshape(op.groups, -1, columns.shape[1])


def _round_in_turn(rows: Tensor, covariance: Tensor, scale: Tensor) -> Tensor:
    """Return integer weights (groups, out, K) for float `rows`, all groups at once in float64.

    `covariance` is (groups, K, K) and `scale` (groups, out). Inputs that vary most are rounded
    first, while the most other weights are left to make up for them.
    """
    size = rows.shape[2]
    variance = covariance.diagonal(dim1=1, dim2=2)
    order = variance.argsort(dim=1, descending=True, stable=True)
    rows = rows.gather(2, order[:, None, :].expand_as(rows)).clone()
    covariance = covariance.gather(1, order[:, :, None].expand(-1, -1, size))
    covariance = covariance.gather(2, order[:, None, :].expand(-1, size, -1))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
    factor = torch.linalg.cholesky(inverse, upper=True)
    integers = torch.zeros_like(rows)
    for start in range(0, size, 64):
        block = slice(start, min(start + 64, size))
        errors = torch.zeros_like(rows[:, :, block])
        for j in range(block.start, block.stop):
            integers[:, :, j] = (rows[:, :, j] / scale).round().clamp(-WEIGHT_STEPS, WEIGHT_STEPS)
            error = (rows[:, :, j] - integers[:, :, j] * scale) / factor[:, j, j, None]
            errors[:, :, j - start] = error
            rows[:, :, j : block.stop] -= error[:, :, None] * factor[:, None, j, j : block.stop]
        rows[:, :, block.stop :] -= errors @ factor[:, block, block.stop :]
    return torch.zeros_like(integers).scatter(2, order[:, None, :].expand_as(integers), integers)


def _correct_bias(
    op: Weighted, weights: QuantizedWeights, source: _Stream, affine: Affine, target: Tensor
) -> QuantizedWeights:
    """Return `weights` with the bias at which each channel's mean in 8 bits is `target`."""
    step = torch.from_numpy(weights.scale).double() * source.affine.scale
    low = -affine.scale * affine.zero_point
    high = affine.scale * (STEPS - affine.zero_point)
    for _ in range(BIAS_STEPS):
        total = torch.zeros(len(target), dtype=torch.float64)
        active = torch.zeros_like(total)
        for y in _outputs(op, weights, source):
            flat = y.flatten(2) if y.ndim > 2 else y[..., None]
            real = (_to_bytes(flat, affine).float() - affine.zero_point) * affine.scale
            total += real.double().mean(2).sum(0)
            active += ((flat > low) & (flat < high)).double().mean(2).sum(0)
        count = len(source.values)
        shift = (target - total / count) / (active / count).clamp(min=LEAST_ACTIVE)
        bias = torch.from_numpy(weights.bias).double() + (shift / step).round()
        weights = replace(weights, bias=bias.to(torch.int32).numpy())
    return weights


@torch.inference_mode()
def _outputs(op: Weighted, weights: QuantizedWeights, source: _Stream) -> Iterator[Tensor]:
    """Yield the layer's outputs before they are rounded to 8 bits, chunk by chunk."""
    scale = weights.scale.reshape(-1, *[1] * (weights.values.ndim - 1))
    step = weights.scale.astype(np.float64) * source.affine.scale
    real = replace(
        op,
        weight=(weights.values * scale).astype(np.float32),
        bias=(weights.bias * step).astype(np.float32),
    )
    if isinstance(real, Convolution):
        real = replace(real, activation=None)  # the output's affine clips in its stead
    for x in source.chunks():
        yield apply(real, x)


def _to_bytes(x: Tensor, affine: Affine) -> Tensor:
    return ((x / affine.scale).round() + affine.zero_point).clamp(0, STEPS).to(torch.uint8)
