"""Encoding: scales and zero points from the calibration, weights and biases rounded to them.

This is the plain form, nearest rounding in the ranges given; `correct.py` makes up for what
rounding costs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from edgenet.graph import (
    IMAGE,
    KEEPS_BYTES,
    Activate,
    Affine,
    Convolution,
    FullyConnected,
    Graph,
    Normalise,
    Operator,
    QuantizedGraph,
    QuantizedWeights,
    Weighted,
    infer_shapes,
    inputs_of,
)
from edgenet.quantize.simulate import STEPS, WEIGHT_STEPS
from edgenet.quantize.windows import least_weight_scale

BIAS_LIMIT = 2**31 - 1
EXACT_SUM, EXACT_BIAS = 2**23, 2**22
"""Largest sum of products, and bias beside it, that leave float32 within its 24 bits; in units of
the last of them."""
LEAST_SCALE = 2.0**-60
"""Smallest scale: the product of two is still a normal float32, so no bias is divided by zero."""
SIGMOID = Affine(scale=1 / 256, zero_point=0)
"""The one output affine that TFLite's int8 LOGISTIC has."""
NORMALISER = "normaliser"
"""The int8 layer that normalises where mean and deviation differ by channel."""

Ranges = Mapping[str, tuple[float, float]]
"""Lowest and highest value that each tensor's 8 bits are to reach."""


def encode(
    graph: Graph,
    ranges: Ranges,
    *,
    float_layers: Collection[str] = (),
    wide_layers: Collection[str] = (),
    float_output: bool = False,
    symmetric: bool = False,
) -> QuantizedGraph:
    """Return the INT8 form of `graph`, the layers named in `float_layers` left in float.

    Those of them in `wide_layers` read bytes and have weights in 8 bits; only what they give out is
    float. The image's step is a power of two and theirs have few significant bits, so that float32
    holds every partial sum exactly and each runtime, on each processor, gives out the same bits in
    whatever order it adds.

    With `float_output` fully connected layers whose output only leaves the network compute in int8
    and give out their sums. Where an int8 layer reads an image whose mean and deviation differ by
    channel, the graph must be `with_integer_normaliser`. Activations are asymmetric per tensor,
    with `symmetric` at zero point 128 (0 in int8); weights are symmetric per output channel.
    """
    if not symmetric:
        graph = _with_whole_zero_point(_with_binary_step(graph) if wide_layers else graph)
    names = tensors_in_bytes(graph, float_layers, symmetric=symmetric)
    covered = _shared(graph, _needed(graph, ranges))
    passed_on = frozenset[str]().union(*_groups(graph))
    tensors = {
        op.name: (not symmetric and _fixed_affine(op, passed_on))
        or _affine(*covered[op.name], symmetric=symmetric)
        for op in graph.operators
        if op.name in names
    }
    sums = {
        name: tensors.pop(name)
        for name in (_float_outputs(graph) if float_output else ())
        if name not in float_layers
    }
    sums |= {name: _affine(*covered[name], symmetric=symmetric) for name in wide_layers}
    layers = {
        op.name: _quantize_weights(
            op, tensors[op.input], sums.get(op.name), exact=op.name in wide_layers
        )
        for op in graph.weighted()
        if op.name not in float_layers or op.name in wide_layers
    }
    return QuantizedGraph(
        graph=graph, tensors=tensors, layers=layers, sums=sums, symmetric=symmetric
    )


def _float_outputs(graph: Graph) -> tuple[str, ...]:
    """Return the outputs that nobody needs as bytes: a layer's own sums, as every format has."""
    read = {name for op in graph.operators for name in inputs_of(op)}
    return tuple(
        op.name
        for op in graph.operators
        if isinstance(op, FullyConnected)
        and op.activation is None
        and op.name in graph.outputs
        and op.name not in read
    )


def with_integer_normaliser(graph: Graph) -> Graph:
    """Return `graph` with the normalisation as a layer of weights, if no one affine can be it.

    With one mean and deviation for all channels the image's own bytes are the normalised tensor.
    Otherwise no zero point makes the padding right, so a 1 x 1 depthwise layer normalises.
    """
    normalise, *others = graph.operators
    assert isinstance(normalise, Normalise)
    if _is_uniform(normalise):
        return graph
    channels = len(normalise.mean)
    gain = 1 / normalise.std.astype(np.float64)
    raw = replace(
        normalise,
        name=f"{NORMALISER}.bytes",
        mean=np.zeros_like(normalise.mean),
        std=np.ones_like(normalise.std),
    )
    layer = Convolution(
        name=normalise.name,
        input=raw.name,
        weight=gain.astype(np.float32).reshape(channels, 1, 1, 1),
        bias=(-normalise.mean * gain).astype(np.float32),
        stride=(1, 1),
        pad=(0, 0, 0, 0),
        groups=channels,
        activation=None,
    )
    shape = graph.shapes[IMAGE]
    operators = (raw, layer, *others)
    return replace(
        graph, operators=operators, shapes=infer_shapes(operators, (shape[0], shape[1], shape[2]))
    )


def tensors_in_bytes(
    graph: Graph, float_layers: Collection[str], *, symmetric: bool = False
) -> frozenset[str]:
    """Return the tensors that something computing in int8 makes or reads.

    An operator without weights is in float where all that it reads is made in float. The image is
    bytes to begin with, whoever reads it, if one affine can be its normalisation.
    """
    in_float = set(float_layers)
    for op in graph.operators:
        if not isinstance(op, Weighted | Normalise) and in_float.issuperset(inputs_of(op)):
            in_float.add(op.name)
    read = {name for op in graph.operators if op.name not in in_float for name in inputs_of(op)}
    made = {op.name for op in graph.operators} - in_float
    return frozenset(
        op.name
        for op in graph.operators
        if op.name in read
        or (not symmetric and _is_uniform(op) if isinstance(op, Normalise) else op.name in made)
    )


def _needed(graph: Graph, ranges: Ranges) -> dict[str, tuple[float, float]]:
    """Return `ranges` without what no reader of a tensor can tell apart."""
    readers: dict[str, list[Operator]] = {}
    for op in graph.operators:
        for name in inputs_of(op):
            readers.setdefault(name, []).append(op)
    needed = dict(ranges)
    for name, (low, high) in ranges.items():
        functions = {
            reader.function if isinstance(reader, Activate) else None
            for reader in readers.get(name, [])
        }
        if name in graph.outputs:  # whoever reads that can tell
            continue
        if functions == {"hard_swish"}:  # it is 0 below -3
            needed[name] = max(low, -3.0), high
        elif functions == {"sigmoid"}:  # the last step of its output is at 5.5
            needed[name] = max(low, -8.0), min(high, 8.0)
    return needed


def _shared(graph: Graph, ranges: Ranges) -> dict[str, tuple[float, float]]:
    """Return `ranges` in which operators that pass bytes on have one range on all sides.

    It covers what is made there; what is only passed on lies within.
    """
    shared = dict(ranges)
    makers = {op.name for op in graph.operators if not isinstance(op, KEEPS_BYTES)}
    for group in _groups(graph):
        low = min(ranges[name][0] for name in group & makers)
        high = max(ranges[name][1] for name in group & makers)
        shared.update(dict.fromkeys(group, (low, high)))
    return shared


def _groups(graph: Graph) -> list[set[str]]:
    """Return the tensors that must have one affine, because bytes are passed on between them."""
    groups: dict[str, set[str]] = {}
    for op in graph.operators:
        if isinstance(op, KEEPS_BYTES):
            group = {op.name}.union(*(groups.get(name, {name}) for name in inputs_of(op)))
            groups.update(dict.fromkeys(group, group))
    return list({id(group): group for group in groups.values()}.values())


def _affine(low: float, high: float, *, symmetric: bool) -> Affine:
    """Return the affine that covers a range and holds zero exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        low, high = -max(-low, high), max(-low, high)
    steps = 2 * WEIGHT_STEPS if symmetric else STEPS
    scale = float(np.float32(max((high - low) / steps, LEAST_SCALE))) if high > low else 1.0
    zero_point = 128 if symmetric else int(np.clip(round(-low / scale), 0, STEPS))
    return Affine(scale=scale, zero_point=zero_point)


def _fixed_affine(op: Operator, passed_on: Collection[str] = ()) -> Affine | None:
    """Return the affine of a tensor that leaves no choice: the image's bytes, a sigmoid.

    A sigmoid's bytes that are passed on have those of what they end up with; TFLite computes it in
    float then.
    """
    match op:
        case Normalise() if _is_uniform(op):
            # The image's own bytes are the normalised tensor. Halves round up: the mean of 127.5
            # in Google's checkpoints becomes 128.
            zero_point = int(np.floor(float(op.mean[0]) + 0.5))
            return Affine(scale=float(np.float32(1 / float(op.std[0]))), zero_point=zero_point)
        case Activate(function="sigmoid") if op.name not in passed_on:
            return SIGMOID
        case _:
            return None


def _is_uniform(op: Normalise) -> bool:
    return not (np.ptp(op.mean) or np.ptp(op.std))


def _with_binary_step(graph: Graph) -> Graph:
    """Return `graph` with a power of two as the image's deviation; its readers make up for that."""
    normalise = graph.operators[0]
    assert isinstance(normalise, Normalise)
    readers = [op for op in graph.operators if normalise.name in inputs_of(op)]
    if not _is_uniform(normalise) or not all(isinstance(op, Weighted) for op in readers):
        return graph
    std = float(normalise.std[0])
    binary = 2.0 ** round(math.log2(std))
    operators = tuple(
        replace(op, weight=(op.weight * (binary / std)).astype(np.float32))
        if isinstance(op, Weighted) and op in readers
        else op
        for op in (
            replace(normalise, std=np.full_like(normalise.std, binary)),
            *graph.operators[1:],
        )
    )
    return replace(graph, operators=operators)


def _with_whole_zero_point(graph: Graph) -> Graph:
    """Return `graph` with what the image's whole zero point rounds away in its readers' biases.

    That is exact but at the padded border.
    """
    normalise = graph.operators[0]
    affine = _fixed_affine(normalise)
    if affine is None:
        return graph
    assert isinstance(normalise, Normalise)
    rest = (affine.zero_point - float(normalise.mean[0])) / float(normalise.std[0])
    operators = tuple(
        replace(
            op,
            bias=(
                op.bias + op.weight.reshape(len(op.weight), -1).sum(axis=1, dtype=np.float64) * rest
            ).astype(np.float32),
        )
        if isinstance(op, Weighted) and op.input == normalise.name
        else op
        for op in graph.operators
    )
    return replace(graph, operators=operators)


def _quantize_weights(
    op: Weighted, source: Affine, sums: Affine | None, *, exact: bool
) -> QuantizedWeights:
    """Return `op` rounded to nearest; `sums` is how its output is held if that is no 8 bits.

    With `exact` its sums and all partial ones are of at most 24 bits, if the source's step is a
    power of two.
    """
    bias = op.bias.astype(np.float64)
    flat = np.abs(op.weight.reshape(len(op.weight), -1)).max(axis=1)
    scale = (np.where(flat > 0, flat, 1) / WEIGHT_STEPS).astype(np.float32)
    # A dead channel's tiny weights would need a bias beyond int32: its scale grows instead.
    bits = _exact_bits(op.weight[0].size)
    largest_bias = EXACT_BIAS / 2**bits if exact else BIAS_LIMIT / 2
    least = np.abs(bias) / largest_bias / source.scale
    if isinstance(op, FullyConnected) and sums is not None:
        least = np.maximum(least, least_weight_scale(sums, source))
    scale = np.maximum(scale, least.astype(np.float32)).clip(LEAST_SCALE)
    if exact:
        mantissa, exponent = np.frexp(scale)
        scale = np.ldexp(np.ceil(mantissa * 2**bits) / 2**bits, exponent).astype(np.float32)
    per_channel = scale.reshape(-1, *[1] * (op.weight.ndim - 1))
    values = np.clip(np.rint(op.weight / per_channel), -WEIGHT_STEPS, WEIGHT_STEPS).astype(np.int8)
    bias_scale = (np.float32(source.scale) * scale).astype(np.float64)
    return QuantizedWeights(
        values=values, scale=scale, bias=np.rint(bias / bias_scale).astype(np.int32)
    )


def _exact_bits(inputs: int) -> int:
    """Return how many significant bits a step may have for so many products to add up exactly."""
    return max(1, int(math.log2(max(1.0, EXACT_SUM / (inputs * WEIGHT_STEPS * STEPS)))))
