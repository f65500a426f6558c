"""Spare channels: what the next layer does not listen to carries a channel that suffers once more.

Trained networks keep channels that no output can feel: 9 of the 32 behind the first layer of
Google's MobileNet V1. Such a channel becomes a copy of a sensitive one whose values lie a part of a
step higher, and the layer that reads both takes their mean. Rounding does not hit m copies alike
then: their mean is held in steps m times finer, at no cost, as no channel is added. (Copies of what
suffers are how Zhao et al. 2019, arXiv 1901.09504, split outliers; theirs are further channels.)

A channel can be shifted where it keeps clear of both ends, of its 8 bits and of its activation.
Spare channels with nothing worth carrying, as where tensors are in float, are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgenet.graph import (
    ACTIVATION_RANGES,
    IMAGE,
    Affine,
    Convolution,
    Graph,
    Operator,
    QuantizedGraph,
    Weighted,
    infer_shapes,
    inputs_of,
    is_depthwise,
)
from edgenet.quantize.simulate import STEPS
from edgenet.quantize.statistics import ChannelStatistics, Float64Array

Int64Array = npt.NDArray[np.int64]

UNHEARD = 1.0
"""Steps by which all spare channels together may move any output over their whole range."""
TOGETHER = 8
"""Channels that a kernel takes at a time, at least: a number that is no multiple saves nothing."""
WORTH_CARRYING = 0.2
"""Share of a chain's noise that copies must take away where so many channels could be left out."""


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A channel that repeats another; both are numbered as in the reference."""

    channel: int
    of: int
    plus: float
    """How far its values lie above the other's, in real units."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Filled:
    """A graph of the same function whose spare channels are copies."""

    graph: Graph
    statistics: Mapping[str, ChannelStatistics]
    """Of the new graph on the same images."""
    copies: Mapping[str, tuple[Copy, ...]]
    """Of each tensor that has any."""
    left_out: Mapping[str, tuple[int, ...]]
    """Channels of the reference that a tensor has no more, for each tensor that lacks any."""

    def kept(self, tensor: str, channels: int) -> Int64Array:
        """Return which of a tensor's `channels` in the reference it still has, in order."""
        kept: Int64Array = np.setdiff1d(np.arange(channels), self.left_out.get(tensor, ()))
        return kept


@dataclass(frozen=True, kw_only=True, eq=False)
class _Chain:
    """A layer that makes channels, depthwise ones that pass them on, and one that mixes them."""

    passing: tuple[Convolution, ...]
    """All but the one that mixes, in order."""
    reader: Weighted


@dataclass(frozen=True, kw_only=True, eq=False)
class _Plan:
    """What becomes of a chain's channels; each array is (channels,)."""

    sources: Int64Array
    """The channel that each carries; its own number where it is no copy."""
    carried_by: Int64Array
    """How many channels carry the same."""
    shifts: tuple[Float64Array, ...]
    """How far each lies above its source, for each tensor of the chain."""
    gain: float
    """Share of the chain's noise that this takes away."""


def fill_spare_channels(
    graph: Graph, plain: QuantizedGraph, statistics: Mapping[str, ChannelStatistics]
) -> Filled:
    """Return `graph` with copies in its spare channels, and without those that carry none.

    `plain` is its INT8 form, which says what is held in which steps.
    """
    operators: dict[str, Operator] = {op.name: op for op in graph.operators}
    seen = dict(statistics)
    copies: dict[str, tuple[Copy, ...]] = {}
    left_out: dict[str, tuple[int, ...]] = {}
    for chain in _chains(graph):
        spare = _spare(plain, chain)
        needless = _needless(chain, spare)
        plan = _plan(plain, chain, seen, spare) if spare else None
        if plan is not None and (not needless or plan.gain >= WORTH_CARRYING):
            copies.update(_fill(operators, seen, chain, plan))
        elif needless:
            _leave_out(operators, seen, chain, needless)
            left_out.update(dict.fromkeys((op.name for op in chain.passing), tuple(needless)))
    ordered = tuple(operators[op.name] for op in graph.operators)
    depth, height, width = graph.shapes[IMAGE]
    shapes = infer_shapes(ordered, (depth, height, width))
    return Filled(
        graph=replace(graph, operators=ordered, shapes=shapes),
        statistics=seen,
        copies=copies,
        left_out=left_out,
    )


def _fill(
    operators: dict[str, Operator],
    seen: dict[str, ChannelStatistics],
    chain: _Chain,
    plan: _Plan,
) -> dict[str, tuple[Copy, ...]]:
    """Put a plan's copies into a chain; return them for each of its tensors."""
    heard, before = operators[chain.reader.name], seen[chain.reader.input].mean
    assert isinstance(heard, Weighted)
    operators[heard.name] = _mixing(heard, plan, before)
    copies = {}
    below = np.zeros(len(plan.sources))
    for op, shift in zip(chain.passing, plan.shifts, strict=True):
        layer = operators[op.name]
        assert isinstance(layer, Convolution)
        operators[op.name] = _copying(layer, plan.sources, below=below, above=shift)
        seen[op.name] = _shifted(seen[op.name], plan.sources, shift)
        copies[op.name] = tuple(
            Copy(channel=channel, of=int(of), plus=float(shift[channel]))
            for channel, of in enumerate(plan.sources)
            if of != channel
        )
        below = shift
    return copies


def _leave_out(
    operators: dict[str, Operator],
    seen: dict[str, ChannelStatistics],
    chain: _Chain,
    needless: Sequence[int],
) -> None:
    """Take channels out of a chain; what they gave on average goes into the reader's bias."""
    heard = operators[chain.reader.name]
    assert isinstance(heard, Weighted)
    given = _by_input(heard.weight)[:, needless] @ seen[heard.input].mean[needless]
    operators[heard.name] = replace(
        heard,
        weight=np.delete(heard.weight, needless, axis=1),
        bias=(heard.bias + given).astype(np.float32),
    )
    for op in chain.passing:
        layer = operators[op.name]
        assert isinstance(layer, Convolution)
        weight = np.delete(layer.weight, needless, axis=0)
        operators[op.name] = replace(
            layer,
            weight=weight,
            bias=np.delete(layer.bias, needless),
            groups=len(weight) if is_depthwise(layer) else layer.groups,
        )
        seen[op.name] = seen[op.name].without(needless)


def _chains(graph: Graph) -> list[_Chain]:
    """Return where channels are made, mixed by a single layer and seen by nobody else."""
    operators = {op.name: op for op in graph.operators}
    readers = Counter(name for op in graph.operators for name in inputs_of(op))
    readers.update(graph.outputs.keys())
    found = []
    for reader in graph.weighted():
        if isinstance(reader, Convolution) and reader.groups != 1:
            continue
        passing: list[Convolution] = []
        op = operators.get(reader.input)
        while isinstance(op, Convolution) and readers[op.name] == 1:
            passing.insert(0, op)
            if not is_depthwise(op):
                break
            op = operators.get(op.input)
        if passing and passing[0].groups == 1:
            found.append(_Chain(passing=tuple(passing), reader=reader))
    return found


def _spare(plain: QuantizedGraph, chain: _Chain) -> list[int]:
    """Return the channels that together move no output of the reader by more than `UNHEARD`."""
    reader = chain.reader
    read = plain.tensors.get(reader.input)
    made = plain.tensors.get(reader.name) or plain.sums.get(reader.name)
    if read is None or made is None:
        return []
    moved = _by_input(np.abs(reader.weight)) * read.scale * STEPS / made.scale
    order = moved.max(axis=0).argsort(kind="stable")
    together = moved[:, order].cumsum(axis=1).max(axis=0)
    return sorted(int(channel) for channel in order[together < UNHEARD])


def _needless(chain: _Chain, spare: Sequence[int]) -> list[int]:
    """Return which spare channels to leave out, the quietest: what is left fills whole kernels."""
    channels = len(chain.passing[0].weight)
    kept = -(-(channels - len(spare)) // TOGETHER) * TOGETHER
    if not 0 < kept < channels:
        return []
    loudness = np.abs(_by_input(np.abs(chain.reader.weight))).max(axis=0)
    quietest = sorted(spare, key=lambda channel: (loudness[channel], channel))
    return sorted(quietest[: channels - kept])


def _plan(
    plain: QuantizedGraph,
    chain: _Chain,
    seen: Mapping[str, ChannelStatistics],
    spare: Sequence[int],
) -> _Plan | None:
    """Return which channels the spare ones carry: where noise falls most, one after the other."""
    rooms = [_room(op, plain.tensors.get(op.name), seen[op.name]) for op in chain.passing]
    noises = _noises(plain, chain)
    carried_by = np.ones(len(rooms[0]), np.int64)
    sources = np.arange(len(carried_by))
    place = np.zeros(len(carried_by))
    before = _left(noises, rooms, carried_by).sum()
    for channel in spare:
        fall = _left(noises, rooms, carried_by) - _left(noises, rooms, carried_by + 1)
        fall[list(spare)] = 0
        of = int(fall.argmax())
        if fall[of] <= 0:
            break
        sources[channel], place[channel] = of, carried_by[of]
        carried_by[of] += 1
    if (carried_by == 1).all():
        return None
    part = place / carried_by[sources]
    return _Plan(
        sources=sources,
        carried_by=carried_by[sources],
        shifts=tuple(part * room[sources] for room in rooms),
        gain=1 - float(_left(noises, rooms, carried_by).sum() / before),
    )


def _room(op: Convolution, affine: Affine | None, seen: ChannelStatistics) -> Float64Array:
    """Return how far each channel can be shifted: a step, or not at all, (channels,)."""
    if affine is None:
        return np.zeros(len(seen.high))
    low, high = ACTIVATION_RANGES[op.activation]
    top = affine.scale * (STEPS - affine.zero_point)
    clear = seen.high + affine.scale <= (top if high is None else min(top, high))
    if low is not None:
        clear &= seen.low > low
    return np.where(clear, affine.scale, 0.0)


def _noises(plain: QuantizedGraph, chain: _Chain) -> list[Float64Array]:
    """Return what rounding each tensor of a chain adds to the reader's outputs, by channel."""
    gain = _by_input(chain.reader.weight.astype(np.float64) ** 2).sum(axis=0)
    noises: list[Float64Array] = []
    for op in reversed(chain.passing):
        held = plain.tensors.get(op.name)
        noises.insert(0, gain * (held.scale**2 / 12 if held else 0.0))
        if is_depthwise(op):
            gain = gain * (op.weight.astype(np.float64) ** 2).sum(axis=(1, 2, 3))
    return noises


def _left(
    noises: Sequence[Float64Array], rooms: Sequence[Float64Array], copies: Int64Array
) -> Float64Array:
    """Return what is left of the noises with so many copies of each channel.

    Copies that are a part of a step apart round as one finer step would. Further down their
    roundings have nothing to do with each other.
    """
    left = np.zeros(len(copies))
    differ = np.zeros(len(copies), np.bool_)
    for noise, room in zip(noises, rooms, strict=True):
        left += noise / np.where(room > 0, copies**2, np.where(differ, copies, 1))
        differ |= room > 0
    return left


def _copying(
    op: Convolution, sources: Int64Array, *, below: Float64Array, above: Float64Array
) -> Convolution:
    """Return a layer that makes copies, `above` their sources where it reads them so far `below`.

    At a padded border what is taken off for `below` is a part of a step too much.
    """
    weight = op.weight[sources]
    read = weight.reshape(len(weight), -1).sum(axis=1, dtype=np.float64)
    bias = op.bias[sources] + above - below * read
    return replace(op, weight=weight, bias=bias.astype(np.float32))


def _mixing(op: Weighted, plan: _Plan, mean: Float64Array) -> Weighted:
    """Return the reader of a chain: the mean of copies, and what spare channels gave on average."""
    copied = plan.sources != np.arange(len(plan.sources))
    shares = plan.carried_by.reshape(1, -1, *[1] * (op.weight.ndim - 2))
    weight = (op.weight[:, plan.sources] / shares).astype(np.float32)
    bias = (
        op.bias
        + _by_input(op.weight)[:, copied] @ mean[copied]
        - _by_input(weight) @ plan.shifts[-1]
    )
    return replace(op, weight=weight, bias=bias.astype(np.float32))


def _shifted(
    seen: ChannelStatistics, sources: Int64Array, shift: Float64Array
) -> ChannelStatistics:
    mean = seen.mean[sources]
    return ChannelStatistics(
        low=seen.low[sources] + shift,
        high=seen.high[sources] + shift,
        mean=mean + shift,
        mean_square=seen.mean_square[sources] + shift * (2 * mean + shift),
    )


def _by_input(weight: npt.NDArray[np.floating]) -> Float64Array:
    """Return a weight's sums over its kernel, (out, in)."""
    summed: Float64Array = weight.reshape(*weight.shape[:2], -1).sum(axis=2, dtype=np.float64)
    return summed
