"""Sensitivity: what each layer's 8 bits do to the outputs, and which to keep in float for it.

Every rounding is taken as a small error at the place where it happens. How much of it arrives at
the outputs is read off one backward pass for each random probe: for a vector v of random signs,
(v . J e)^2 is on average the squared error |J e|^2 that e causes there (Hutchinson 1990). So the
cost does not grow with the number of layers. Errors are added up as if they were independent.

Costs are counted in mult-adds and bytes, not measured: the same network gets the same layers on
every machine.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgenet.graph import (
    IMAGE,
    Convolution,
    Graph,
    Normalise,
    QuantizedGraph,
    inputs_of,
    mult_adds,
)
from edgenet.preprocess import UInt8Array
from edgenet.quantize import simulate
from edgenet.quantize.encode import tensors_in_bytes
from edgenet.quantize.execute import apply, joined

IMAGES = 16
"""Images that the noise is averaged over."""
PROBES = 4
"""Random probes for each; 64 in all leave an uncertainty of 0.8 dB."""
CONVERTED = 4
"""What turning one value from bytes to float or back costs, in mult-adds."""
FREE_COST = 0.04
"""Share of the network's cost that the default form may spend on layers in float."""
LEAST_GAIN = 0.05
"""Share of all noise that a layer must take away to be kept in float by default."""
ROUNDED_WEIGHTS = 0.02
"""Share of the noise left that 8 bits may add to the weights of a layer that reads bytes and gives
out float: OpenVINO computes such a layer in int8."""
LEFT_BY_LEARNED_ROUNDING = 0.12
"""Of the noise of weights that are rounded to nearest. Of MobileNet V1's it leaves 0.115: of
the layers that make most 0.04 to 0.16, of some that make next to none all."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Squared error of all outputs by what causes it, as shares of their own square."""

    by_tensor: Mapping[str, float]
    by_weights: Mapping[str, float]

    def with_learned_rounding(self) -> Noise:
        """Return what is to be expected once the weights' rounding is learned (`correct.py`)."""
        left = {name: LEFT_BY_LEARNED_ROUNDING * each for name, each in self.by_weights.items()}
        return Noise(by_tensor=self.by_tensor, by_weights=left)

    def total(self, graph: Graph, float_layers: Collection[str]) -> float:
        """Return what is left with `float_layers` in float."""
        in_bytes = tensors_in_bytes(graph, float_layers)
        return sum(noise for name, noise in self.by_tensor.items() if name in in_bytes) + sum(
            noise for name, noise in self.by_weights.items() if name not in float_layers
        )


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One layer of the ranking: what keeping it in float, with those before it, is worth."""

    layer: str
    cost: float
    """Of this layer, as a share of the network's: mult-adds, weight bytes and conversions."""
    gain: float
    """Share of the noise of the full-integer form that it takes away."""
    predicted_sqnr_db: float
    """Of the outputs with this layer and all before it in float."""


def measure_noise(quantized: QuantizedGraph, images: Sequence[UInt8Array], *, seed: int) -> Noise:
    """Return how much each 8-bit tensor and each layer's weights disturb the outputs.

    `quantized` is the plain full-integer form, `images` are (1, H, W, 3) uint8 RGB.
    """
    totals: tuple[dict[str, float], dict[str, float]] = {}, {}
    signal = 0.0
    shifts = _mean_weight_errors(quantized, images[:IMAGES])
    generator = torch.Generator().manual_seed(seed)
    for image in images[:IMAGES]:
        tensors = _run(quantized.graph, torch.from_numpy(image))
        values = joined(quantized.graph, tensors)
        signal += PROBES * float(values.detach().square().sum())
        with torch.inference_mode():
            by_weights = _weight_errors(quantized, tensors)
            errors = (
                _rounding_errors(quantized, tensors),
                {name: error - shifts[name] for name, error in by_weights.items()},
            )
        reached = [tensors[name] for name in errors[0]]
        for _ in range(PROBES):
            signs = torch.randint(0, 2, values.shape, generator=generator) * 2.0 - 1.0
            gradients = dict(
                zip(
                    errors[0],
                    torch.autograd.grad(
                        values, reached, signs, retain_graph=True, materialize_grads=True
                    ),
                    strict=True,
                )
            )
            for total, error in zip(totals, errors, strict=True):
                for name, e in error.items():
                    arrived = float((gradients[name] * e).sum())
                    total[name] = total.get(name, 0.0) + arrived**2
    tensor_noise, weight_noise = (
        {name: noise / max(signal, math.ulp(1.0)) for name, noise in total.items()}
        for total in totals
    )
    return Noise(by_tensor=tensor_noise, by_weights=weight_noise)


@torch.inference_mode()
def _mean_weight_errors(
    quantized: QuantizedGraph, images: Sequence[UInt8Array]
) -> dict[str, Tensor]:
    """Return the mean error of each output channel, (1, C, ...); the bias takes it up."""
    totals: dict[str, Tensor] = {}
    for image in images:
        tensors = _run(quantized.graph, torch.from_numpy(image))
        for name, error in _weight_errors(quantized, tensors).items():
            places = tuple(range(2, error.ndim))
            mean = error.mean(dim=places, keepdim=True) if places else error
            totals[name] = totals.get(name, torch.zeros(())) + mean / len(images)
    return totals


def _run(graph: Graph, image: Tensor) -> dict[str, Tensor]:
    """Return every tensor of the float network on one image, with what a gradient needs."""
    tensors = {IMAGE: image.permute(0, 3, 1, 2)}
    for op in graph.operators:
        made = apply(op, *(tensors[name] for name in inputs_of(op)))
        # The first one is where the gradient ends.
        tensors[op.name] = made.requires_grad_() if isinstance(op, Normalise) else made
    return tensors


def _rounding_errors(quantized: QuantizedGraph, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what 8 bits change in each tensor; the image's own bytes lose nothing."""
    errors = {}
    for op in quantized.graph.operators:
        x, affine = tensors[op.name], quantized.tensors.get(op.name)
        exact = affine is None or isinstance(op, Normalise)
        errors[op.name] = (
            torch.zeros_like(x)
            if exact or affine is None
            else simulate.dequantize(simulate.to_bytes(x, affine), affine) - x
        )
    return errors


def _weight_errors(quantized: QuantizedGraph, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what rounding a layer's weights changes in its output."""
    return {
        op.name: apply(simulate.real(quantized, op), tensors[op.input]) - tensors[op.name]
        for op in quantized.graph.weighted()
        if op.name in quantized.layers
    }


def rank(graph: Graph, noise: Noise) -> tuple[Choice, ...]:
    """Return every layer with weights, in the order that takes most noise away for its cost."""
    full = noise.total(graph, ())
    left = [op.name for op in graph.weighted()]
    ranking: list[Choice] = []
    chosen: list[str] = []
    spent, noisy = 0.0, full
    while left:
        tried = {
            name: (cost(graph, [*chosen, name]), noise.total(graph, [*chosen, name]))
            for name in left
        }
        # Joining two layers in float can save more conversions than the second one costs.
        layer = max(
            left, key=lambda name: (noisy - tried[name][1]) / max(tried[name][0] - spent, 1e-6)
        )
        after_cost, after = tried[layer]
        ranking.append(
            Choice(
                layer=layer,
                cost=after_cost - spent,
                gain=(noisy - after) / full if full else 0.0,
                predicted_sqnr_db=-10 * math.log10(max(after, 1e-12)),
            )
        )
        chosen.append(layer)
        left.remove(layer)
        spent, noisy = after_cost, after
    return tuple(ranking)


def free_layers(ranking: Sequence[Choice]) -> tuple[str, ...]:
    """Return the layers that cost nothing that shows: the head of the ranking, while it pays."""
    spent = 0.0
    chosen = []
    for choice in ranking:
        spent += choice.cost
        if choice.gain < LEAST_GAIN or spent > FREE_COST:
            break
        chosen.append(choice.layer)
    return tuple(chosen)


def wide_layers(graph: Graph, noise: Noise, float_layers: Collection[str]) -> tuple[str, ...]:
    """Return the convolutions in float that need no float but in what they give out.

    They read bytes, nobody reads bytes of theirs, and their weights lose next to nothing in 8 bits.
    """
    in_bytes = tensors_in_bytes(graph, float_layers)
    allowed = ROUNDED_WEIGHTS * noise.total(graph, float_layers)
    return tuple(
        op.name
        for op in graph.operators
        if isinstance(op, Convolution)
        and op.name in float_layers
        and op.input in in_bytes
        and op.name not in in_bytes
        and noise.by_weights[op.name] <= allowed
    )


def cost(graph: Graph, float_layers: Collection[str]) -> float:
    """Return what layers cost in float, as a share of the whole network's mult-adds and bytes."""
    weighted = graph.weighted()
    in_float = [op for op in weighted if op.name in float_layers]
    converted = {op.name for op in in_float} | {op.input for op in in_float}
    converted &= tensors_in_bytes(graph, float_layers)
    work = sum(mult_adds(graph, op) for op in in_float) + CONVERTED * sum(
        math.prod(graph.shapes[name]) for name in converted
    )
    return work / sum(mult_adds(graph, op) for op in weighted) + sum(
        op.weight.size for op in in_float
    ) / sum(op.weight.size for op in weighted)
