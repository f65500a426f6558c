"""Correction: layer by layer, weights and biases are fitted to the inputs that INT8 really sees.

Two things, in the order of the network, each layer reading the already corrected INT8 output of the
one before:

- Learned rounding. Each weight is rounded in turn and its error is pushed into the weights not yet
  rounded, as the inputs' covariance says (Frantar et al. 2022, arXiv 2210.17323).
- Bias correction. What is left over is mostly a shift of each channel's mean; the bias takes it up
  until the mean after clipping is the reference's (after Nagel et al. 2019, arXiv 1906.04721).

Tensors in 8 bits are kept as bytes until their last reader is done, tensors in float are computed
again whenever they are read; work goes in chunks, so that memory stays small and time is linear in
the number of images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgenet.graph import (
    ACTIVATION_RANGES,
    Affine,
    Convolution,
    FullyConnected,
    Normalise,
    Operator,
    QuantizedGraph,
    QuantizedWeights,
    Weighted,
    inputs_of,
)
from edgenet.preprocess import UInt8Array
from edgenet.quantize import simulate
from edgenet.quantize.execute import apply, chunks
from edgenet.quantize.simulate import STEPS, WEIGHT_STEPS, dequantize, dequantized, to_bytes
from edgenet.quantize.statistics import ChannelStatistics

DAMPING = 0.01
"""Share of the mean variance added to every input's, for covariances that are nearly singular."""
LEVEL_DAMPING = 1e-5
"""The same of the mean square. Errors that inputs of constant level multiply cost nothing but a
bias, if the level really is constant: not at the padded border, and not on every new image."""
LEAST_DAMPING = 1e-10
LARGEST_BLOCK = 1152
"""Inputs whose covariance is looked at together; the work grows with the cube of their number."""
BIAS_STEPS = 2
LEAST_ACTIVE = 0.05
"""A channel that is clipped more often than this moves its mean too slowly to be divided by."""
SAMPLES_PER_INPUT = 2
"""With fewer samples for each input of a layer its covariance is noise: round to nearest."""
SCALES_TRIED = {32: 64, 128: 16}
"""How many scales of a channel are tried, by the most weights that it may have."""
LARGEST_STRETCH = 0.25
LIKENESS = 0.9
"""Correlation of neighbouring pixels, where scales are tried."""
ENOUGH_SAMPLES_PER_INPUT, ENOUGH_IMAGES = 256, 32
"""With so many of both, more images do not change the covariance."""


@dataclass(frozen=True, kw_only=True)
class Corrections:
    """Which corrections to make."""

    learned_rounding: bool = True
    bias: bool = True


class _Stream:
    """A tensor for all images, a few at a time: (n, C, H, W) or (n, C) float32."""

    def __init__(self, chunks: Callable[[], Iterator[Tensor]]) -> None:
        self.chunks = chunks


def correct(
    quantized: QuantizedGraph,
    statistics: Mapping[str, ChannelStatistics],
    images: Sequence[UInt8Array],
    *,
    corrections: Corrections = Corrections(),
    on_layer: Callable[[], None] = lambda: None,
) -> QuantizedGraph:
    """Return `quantized` with weights and biases fitted on `images` (1, H, W, 3) uint8 RGB.

    `statistics` are the float graph's over the same images.
    """
    layers = dict(quantized.layers)
    operators = quantized.graph.operators
    last_reader = {name: op.name for op in operators for name in inputs_of(op)}
    streams: dict[str, _Stream] = {}
    for op in operators:
        if isinstance(op, Normalise):
            streams[op.name] = _pixels(quantized, op, images)
            continue
        sources = [streams[name] for name in inputs_of(op)]
        if isinstance(op, Weighted) and op.name in layers:
            layers[op.name] = _fit(
                _Layer(
                    op=op,
                    source=sources[0],
                    source_affine=quantized.tensors[op.input],
                    affine=quantized.tensors.get(op.name),
                    target=torch.from_numpy(statistics[op.name].mean),
                ),
                layers[op.name],
                corrections,
            )
            on_layer()
        if last_reader.get(op.name) is not None:
            now = replace(quantized, layers=layers)
            streams[op.name] = _output(now, op, sources)
        for name in set(inputs_of(op)):
            if last_reader[name] == op.name and name in quantized.tensors:
                del streams[name]
    return replace(quantized, layers=layers)


def _pixels(quantized: QuantizedGraph, op: Normalise, images: Sequence[UInt8Array]) -> _Stream:
    def normalised() -> Iterator[Tensor]:
        for pixels in chunks(images):
            yield simulate.step(quantized, op, pixels.permute(0, 3, 1, 2))

    return _Stream(normalised)


@torch.inference_mode()
def _output(quantized: QuantizedGraph, op: Operator, sources: Sequence[_Stream]) -> _Stream:
    """Return the stream of an operator's output: bytes once and for all, floats when asked for."""
    affine = quantized.tensors.get(op.name)
    real = simulate.real(quantized, op)

    def floats() -> Iterator[Tensor]:
        for inputs in zip(*(source.chunks() for source in sources), strict=True):
            yield apply(real, *inputs)

    if affine is None:
        return _Stream(floats)
    kept = [to_bytes(y, affine) for y in floats()]
    return _Stream(lambda: (dequantize(chunk, affine) for chunk in kept))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Layer:
    """A layer that is being fitted, with what flows into it."""

    op: Weighted
    source: _Stream
    source_affine: Affine
    affine: Affine | None
    """Of the output; None where it stays in float."""
    target: Tensor
    """Mean of each output channel in the reference, (out,)."""


@torch.inference_mode()
def _fit(layer: _Layer, weights: QuantizedWeights, corrections: Corrections) -> QuantizedWeights:
    if corrections.learned_rounding:
        weights = _learn_rounding(layer, weights)
    return _correct_bias(layer, weights) if corrections.bias else weights


def _learn_rounding(layer: _Layer, weights: QuantizedWeights) -> QuantizedWeights:
    """Return the integers, and the steps, that keep the output closest to the float weights'."""
    op = layer.op
    groups = op.groups if isinstance(op, Convolution) else 1
    covariance, samples = _covariance(op, layer.source)
    if samples < SAMPLES_PER_INPUT * covariance.shape[1]:
        return weights
    size = covariance.shape[1]
    blocks = len(covariance) // groups
    rows = torch.from_numpy(op.weight).double().reshape(groups, -1, blocks, size)
    rows = rows.transpose(1, 2).reshape(len(covariance), -1, size)
    scale = torch.from_numpy(weights.scale).double().reshape(groups, -1)
    # A convolution whose output is no bytes has steps at which its sums are exact (`encode.py`).
    exact = isinstance(op, Convolution) and layer.affine is None
    if blocks == 1 and not exact:
        scale = _lucky_scale(op, rows, scale)
    values = _round_in_turn(rows, covariance, scale.repeat_interleave(blocks, dim=0))
    values = values.reshape(groups, blocks, -1, size).transpose(1, 2)
    scale32 = scale.reshape(-1).float().numpy()
    return QuantizedWeights(
        values=values.reshape(op.weight.shape).to(torch.int8).numpy(),
        scale=scale32,
        bias=np.rint(weights.bias * (weights.scale.astype(np.float64) / scale32)).astype(np.int32),
    )


def _lucky_scale(op: Weighted, rows: Tensor, finest: Tensor) -> Tensor:
    """Return the scale, (groups, out), at which most of a channel's weights fall near whole steps.

    Few weights can be lucky: of many scales, up from the finest that holds the largest weight, one
    suits them. The more weights there are, the less is in it, and the longer a try takes. The error
    is weighed as if neighbouring pixels were alike and channels had nothing to do with each other,
    not by what the images show: a scale must not depend on the last bits of an activation.
    """
    size = rows.shape[2]
    tries = next((count for most, count in SCALES_TRIED.items() if size <= most), 1)
    alike = _likeness(op).expand(len(rows), -1, -1)
    least = torch.full_like(finest, math.inf)
    best = finest
    for index in range(tries):
        scale = (finest * (1 + LARGEST_STRETCH * index / tries)).float().double()
        error = rows - _round_in_turn(rows, alike, scale) * scale[:, :, None]
        cost = ((error @ alike) * error).sum(2)
        best = torch.where(cost < least, scale, best)
        least = torch.minimum(cost, least)
    return best


def _likeness(op: Weighted) -> Tensor:
    """Return a covariance for inputs that nobody has seen, (1, K, K) float64."""
    channels, *kernel = op.weight.shape[1:]
    place = torch.cartesian_prod(*(torch.arange(side) for side in kernel)) if kernel else None
    if place is None or len(place) == 1:
        return torch.eye(channels, dtype=torch.float64)[None]
    distance = torch.cdist(place.double(), place.double())
    return torch.kron(torch.eye(channels, dtype=torch.float64), LIKENESS**distance)[None]


def _covariance(op: Weighted, source: _Stream) -> tuple[Tensor, int]:
    """Return the damped covariance of a layer's inputs, (blocks, K, K), and the samples in it.

    A block is a group of the convolution or, of a large one, a part of its input channels.
    """
    products: Tensor | float = 0.0
    sums: Tensor | float = 0.0
    origin: Tensor | None = None
    count = 0
    images = 0
    for x in source.chunks():
        columns = _columns(op, x)
        # Sums of squares far from zero would drown a small variance in float32.
        origin = columns.mean(2, keepdim=True) if origin is None else origin
        columns = columns - origin
        images += len(x)
        products = products + (columns @ columns.transpose(1, 2)).double()
        sums = sums + columns.double().sum(2)
        count += columns.shape[2]
        if images >= ENOUGH_IMAGES and count >= ENOUGH_SAMPLES_PER_INPUT * columns.shape[1]:
            break
    assert isinstance(products, Tensor)
    assert isinstance(sums, Tensor)
    assert origin is not None
    mean = sums / count
    covariance = products / count - mean[:, :, None] * mean[:, None, :]
    variance = covariance.diagonal(dim1=1, dim2=2).mean(1).clamp(min=0)
    square = variance + origin.double().square().mean((1, 2))
    damping = DAMPING * variance + LEVEL_DAMPING * square + LEAST_DAMPING
    return covariance + damping[:, None, None] * torch.eye(len(mean[0]), dtype=torch.float64), count


def _columns(op: Weighted, x: Tensor) -> Tensor:
    """Return what each weight of a layer is multiplied by: (blocks, K, positions) float32."""
    if isinstance(op, FullyConnected):
        return x.T[None]
    kernel = op.weight.shape[2:]
    top, bottom, left, right = op.pad
    if tuple(kernel) == (1, 1) and op.stride == (1, 1) and not any(op.pad):
        columns = x.permute(1, 0, 2, 3).reshape(x.shape[1], -1)
    else:
        patches = functional.unfold(
            functional.pad(x, (left, right, top, bottom)),
            tuple(kernel),
            stride=op.stride,
            dilation=op.dilation,
        )
        columns = patches.permute(1, 0, 2).reshape(patches.shape[1], -1)
    size = columns.shape[0] // op.groups
    blocks = next(n for n in range(1, size + 1) if size % n == 0 and size <= n * LARGEST_BLOCK)
    return columns.reshape(op.groups * blocks, -1, columns.shape[1])


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


def _correct_bias(layer: _Layer, weights: QuantizedWeights) -> QuantizedWeights:
    """Return `weights` with the bias at which each channel's mean in 8 bits is the target."""
    step = torch.from_numpy(weights.scale).double() * layer.source_affine.scale
    # Without an activation nothing is meant to be cut: a range that ends early, as in front of a
    # hard-swish that is 0 there, must not look like a shift.
    affine = layer.affine if layer.op.activation else None
    low, high = _ends(affine, layer.op.activation)
    for _ in range(BIAS_STEPS):
        op = dequantized(layer.op, weights, layer.source_affine)
        total = torch.zeros(len(layer.target), dtype=torch.float64)
        active = torch.zeros_like(total)
        count = 0
        for x in layer.source.chunks():
            y = apply(op, x)
            active += _mean_by_channel(((y > low) & (y < high)).float())
            held = y if affine is None else dequantize(to_bytes(y, affine), affine)
            total += _mean_by_channel(held)
            count += len(x)
        shift = (layer.target - total / count) / (active / count).clamp(min=LEAST_ACTIVE)
        bias = torch.from_numpy(weights.bias).double() + (shift / step).round()
        weights = replace(weights, bias=bias.to(torch.int32).numpy())
    return weights


def _ends(affine: Affine | None, activation: str | None) -> tuple[float, float]:
    """Return the values at which a layer's output is cut."""
    low, high = ACTIVATION_RANGES[activation]
    lowest, highest = -math.inf, math.inf
    if affine is not None:
        lowest = -affine.scale * affine.zero_point
        highest = affine.scale * (STEPS - affine.zero_point)
    return max(lowest, -math.inf if low is None else low), min(
        highest, math.inf if high is None else high
    )


def _mean_by_channel(x: Tensor) -> Tensor:
    """Return each channel's mean over the positions, summed over the images, (C,) float64."""
    flat = x.flatten(2) if x.ndim > 2 else x[..., None]
    return flat.mean(2, dtype=torch.float64).sum(0)
