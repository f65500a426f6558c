"""Cross-layer equalisation: channels that share one scale are brought to ranges that fit it.

A tensor between two layers can be scaled channel by channel: the first layer's weights take the
factor, the second's its inverse. With ReLU that is the same function; with ReLU6 it is for channels
that stay below 6, and one that saturates is left alone. (After Nagel et al. 2019, arXiv 1906.04721,
who equalise weights; here activations are, as their 8 bits are what hurts.)

In front of a depthwise layer it costs nothing: its weights have a scale a channel anyway, and every
channel is brought to one range. In front of any other layer the inverse factors spread that layer's
weights, which share a scale: how far to go is chosen by the noise that it predicts. With ReLU the
result does not depend on how the reference's channels happened to be scaled, so a network is no
harder for being badly scaled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgenet.graph import (
    ACTIVATION_RANGES,
    Convolution,
    GlobalAveragePool,
    Graph,
    Operator,
    Pool,
    Weighted,
    inputs_of,
    is_depthwise,
)
from edgenet.quantize.simulate import STEPS, WEIGHT_STEPS
from edgenet.quantize.statistics import ChannelStatistics, Float64Array

RELU6_MARGIN, RELU_MARGIN, SHARED_MARGIN = 1.15, 1.5, 1.25
"""How far beyond its calibrated maximum a channel may go before it is cut.

With ReLU a channel has no bound and new images pass its maximum by more: at 1.15 the Fashion-MNIST
network fell from 36.7 to 29.9 dB. Of 1.5 to 2 in front of depthwise layers and 1 to 1.5 in front of
others (where channels share the spread with the weights) these two gave most, 38.2 dB."""
LARGEST_FACTOR = 32.0
"""A channel that hardly lives below 6 is not blown up further: noise would become signal."""
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""With ReLU: how much of the spread the activation is left with; 0 brings it to one range."""
EXPONENTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
"""With ReLU6: how far a channel goes towards the limit; 0 leaves it."""
WEIGHT_NOISE = 0.4
"""What correction leaves of the weights' noise, see `correct.py`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Equalised:
    """A graph of the same function with channels in ranges that fit one scale."""

    graph: Graph
    statistics: Mapping[str, ChannelStatistics]
    """Of the new graph on the same images: channels scale with their weights."""
    headroom: Mapping[str, float]
    """For each equalised tensor, how far beyond its calibrated maximum its range is to reach."""
    factors: Mapping[str, Float64Array]
    """For each equalised tensor, what its channels were multiplied by, (channels,)."""


def equalise(graph: Graph, statistics: Mapping[str, ChannelStatistics]) -> Equalised:
    """Return `graph` with channels between two layers brought to ranges that fit one scale."""
    seen = dict(statistics)
    headroom: dict[str, float] = {}
    moved: dict[str, Float64Array] = {}
    readers = Counter(name for op in graph.operators for name in inputs_of(op))
    readers.update(graph.outputs.keys())
    operators: dict[str, Operator] = {op.name: op for op in graph.operators}
    for name in [op.name for op in graph.operators]:
        reader = operators[name]
        if not isinstance(reader, Weighted):
            continue
        between = _between(operators, readers, reader)
        if not between:
            continue
        source = operators[between[0]]
        assert isinstance(source, Convolution)
        factors = _factors(source, reader, made=seen[source.name], read=seen[reader.input])
        if factors is None or (factors == 1).all():
            continue
        bounded = ACTIVATION_RANGES[source.activation][1] is not None
        margin = RELU_MARGIN if is_depthwise(reader) else SHARED_MARGIN
        for tensor in between:
            headroom[tensor] = 1.0 if bounded else margin
            moved[tensor] = factors
            seen[tensor] = _scaled_statistics(seen[tensor], factors)
        operators[source.name] = _scaled_output(source, factors)
        operators[reader.name] = _scaled_input(reader, 1 / factors)
    ordered = tuple(operators[op.name] for op in graph.operators)
    return Equalised(
        graph=replace(graph, operators=ordered), statistics=seen, headroom=headroom, factors=moved
    )


def _between(
    operators: Mapping[str, Operator], readers: Mapping[str, int], reader: Weighted
) -> list[str]:
    """Return the tensors from a convolution to `reader` that nothing else reads, in order.

    Pools lie between at most: what they make of a channel scales with it.
    """
    names = [reader.input]
    while True:
        op = operators.get(names[0])
        if op is None or readers[op.name] != 1:
            return []
        if isinstance(op, Convolution):
            return names
        if not isinstance(op, Pool | GlobalAveragePool):
            return []
        names.insert(0, op.input)


def _factors(
    source: Convolution, reader: Weighted, *, made: ChannelStatistics, read: ChannelStatistics
) -> Float64Array | None:
    """Return what to multiply each channel between two layers by, (channels,); None: leave it.

    `made` is what leaves `source`, `read` what reaches `reader`, after pools if there are any.
    """
    low, high = ACTIVATION_RANGES[source.activation]
    if low is None:
        return None
    if is_depthwise(reader) and len(reader.weight) == len(made.high):
        return _to_one_range(made.high) if high is None else _below(made.high, high)
    plain = not isinstance(reader, Convolution) or reader.groups == 1
    if not plain or reader.weight.shape[1] != len(made.high):
        return None
    candidates = _shared_out(reader, read) if high is None else _towards(made.high, high)
    weight = reader.weight.astype(np.float64).reshape(*reader.weight.shape[:2], -1)
    limit = None if high is None or made is not read else high
    best: Float64Array = min(candidates, key=lambda factors: _noise(weight, read, factors, limit))
    return best


def _below(highest: Float64Array, limit: float) -> Float64Array:
    """Return factors that bring channels that stay below `limit` close to it."""
    ceiling = limit / RELU6_MARGIN
    alive = (highest > 0) & (highest < ceiling)
    factors = ceiling / np.where(alive, highest, 1.0)
    return np.where(alive, np.minimum(factors, LARGEST_FACTOR), 1.0)


def _towards(highest: Float64Array, limit: float) -> list[Float64Array]:
    """Return factors that bring such channels a part of the way, by `EXPONENTS`."""
    return [_below(highest, limit) ** exponent for exponent in EXPONENTS]


def _to_one_range(highest: Float64Array) -> Float64Array:
    """Return factors that bring every channel that lives to the largest one's range."""
    top = float(highest.max())
    factors: Float64Array = top / np.where(highest > 0, highest, top).astype(np.float64)
    return factors


def _shared_out(reader: Weighted, seen: ChannelStatistics) -> list[Float64Array]:
    """Return factors that leave the activation a part of the spread, by `SHARES`.

    What is shared out is the product of a channel's range and its weights', which no scaling of
    the reference changes.
    """
    column = np.abs(reader.weight.astype(np.float64)).reshape(*reader.weight.shape[:2], -1)
    product = seen.high * column.max(axis=(0, 2))
    alive = product > 0
    if not alive.any():
        return [np.ones_like(product)]
    product, reach = np.where(alive, product, 1.0), np.where(alive, seen.high, 1.0)
    candidates = [np.where(alive, product**share / reach, 1.0) for share in SHARES]
    return [factors * reach.max() / (factors * reach).max() for factors in candidates]


def _noise(
    weight: Float64Array, seen: ChannelStatistics, factors: Float64Array, limit: float | None
) -> float:
    """Return the variance that 8 bits on both sides add to a layer's outputs, in all."""
    highest = float((seen.high * factors).max())
    scaled = weight / factors[None, :, None]
    step = (highest if limit is None else min(highest, limit)) / STEPS
    from_activation = step**2 * (scaled**2).sum()
    steps = np.abs(scaled).max(axis=(1, 2)) / WEIGHT_STEPS
    energy = (seen.mean_square * factors**2).sum() * weight.shape[2]
    return float(from_activation + WEIGHT_NOISE * (steps**2).sum() * energy)


def _scaled_output(op: Convolution, factors: Float64Array) -> Convolution:
    return replace(
        op,
        weight=(op.weight * factors[:, None, None, None]).astype(np.float32),
        bias=(op.bias * factors).astype(np.float32),
    )


def _scaled_input(op: Weighted, factors: Float64Array) -> Weighted:
    by_channel = factors.reshape(-1, 1) if is_depthwise(op) else factors[None, :]
    shape = (*by_channel.shape, *[1] * (op.weight.ndim - 2))
    return replace(op, weight=(op.weight * by_channel.reshape(shape)).astype(np.float32))


def _scaled_statistics(seen: ChannelStatistics, factors: Float64Array) -> ChannelStatistics:
    return ChannelStatistics(
        low=seen.low * factors,
        high=seen.high * factors,
        mean=seen.mean * factors,
        mean_square=seen.mean_square * factors**2,
    )
