"""A graph under construction: operators by name, and what goes into one that is there already.

Scales, shifts and clips behind a layer that nobody else reads become part of it, computed in
float64. Patterns follow from that: x + 3, clipped to 0 ... 6, over 6, is a layer with the
activation `unit`, and x times it is a hard-swish. Knows nothing of files; needs numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgenet.graph import (
    ACTIVATION_RANGES,
    Activate,
    Add,
    Concatenate,
    Convolution,
    Flatten,
    Float32Array,
    FullyConnected,
    GlobalAveragePool,
    Multiply,
    Normalise,
    Operator,
    Select,
    Weighted,
    inputs_of,
    is_depthwise,
)

Float64Array = npt.NDArray[np.float64]
Clip = Literal["relu", "relu6", "unit", "nothing"]

NO_PAD = (0, 0, 0, 0)
A_SIXTH = 1 / 6


class Assembly:
    """The operators so far in their order, the shapes that they make, and who reads them."""

    def __init__(
        self, first: Normalise, shape: tuple[int, ...], *, unique: Callable[[str], str]
    ) -> None:
        self.operators: dict[str, Operator] = {first.name: first}
        self.shapes: dict[str, tuple[int, ...]] = {first.name: shape}
        self._unique = unique
        self._reads: dict[str, int] = {}
        self._flattened: dict[str, str] = {}
        self._diagonal: set[str] = set()
        """Fully connected layers that scale and shift only: they go into the next one."""

    def append(self, op: Operator, shape: tuple[int, ...]) -> str:
        """Add an operator that makes `shape`, and return its name."""
        self.operators[op.name] = op
        self.shapes[op.name] = shape
        return op.name

    def note_readers(self, name: str, count: int) -> None:
        """Say that a tensor which `name` makes has `count` readers.

        For a second tensor of the same operator, one reader of the first made it.
        """
        self._reads[name] = self._reads.get(name, 1) - 1 + count

    def is_shared(self, name: str) -> bool:
        """Tell whether several read an operator, so that nothing can be folded into it."""
        return self._reads.get(name, 1) > 1

    def is_never_negative(self, name: str) -> bool:
        """Tell whether an operator's activation leaves nothing below zero."""
        op = self.operators[name]
        if isinstance(op, Activate):
            return op.function != "hard_swish"
        return getattr(op, "activation", None) is not None

    def finished(self, outputs: Iterable[str]) -> tuple[Operator, ...]:
        """Return the operators that `outputs` depend on, the first one in any case."""
        needed = {*outputs, next(iter(self.operators))}
        for op in reversed(self.operators.values()):
            if op.name in needed:
                needed.update(inputs_of(op))
        live = [op for op in self.operators.values() if op.name in needed]
        return tuple(part for op in live for part in self._halved(op))

    def _halved(self, op: Operator) -> tuple[Operator, ...]:
        """Return `op`, or an order of all channels as two halves, see `Select`."""
        if not isinstance(op, Select):
            return (op,)
        all_of_them = sorted(op.channels) == list(range(self.shapes[op.input][0]))
        if not all_of_them or all(
            op.channels[channel] == at for at, channel in enumerate(op.channels)
        ):
            return (op,)
        middle = len(op.channels) // 2
        halves = tuple(
            Select(name=self._unique(f"{op.name}.{name}"), input=op.input, channels=channels)
            for name, channels in (("first", op.channels[:middle]), ("rest", op.channels[middle:]))
        )
        return (*halves, Concatenate(name=op.name, inputs=tuple(half.name for half in halves)))

    # Shapes

    def vector(self, name: str) -> str:
        """Return the operator that makes what `name` makes as (C,): `name` itself if it can."""
        if len(self.shapes[name]) == 1 or self._make_vector(name):
            return name
        if name not in self._flattened:
            flat = self._unique(f"{name}.flatten")
            self.append(Flatten(name=flat, input=name), (math.prod(self.shapes[name]),))
            self._reads[flat] = self._reads[name]
            self._flattened[name] = flat
        return self._flattened[name]

    def _make_vector(self, name: str) -> bool:
        """Make an operator's (C, 1, 1) output (C,), if all that leads to it can; tell whether."""
        if self.is_shared(name) or self.shapes[name][1:] != (1, 1):
            return False
        op = self.operators[name]
        changed: Operator = op
        match op:
            case GlobalAveragePool():
                self.append(replace(op, keep_map=False), self.shapes[name][:1])
                return True
            case Convolution(groups=1, pad=(0, 0, 0, 0)) if op.weight[0, 0].size == 1:
                changed = FullyConnected(
                    name=name,
                    input=op.input,
                    weight=float32(op.weight[:, :, 0, 0]),
                    bias=op.bias,
                    activation=op.activation,
                )
            case Activate():
                pass
            case _:
                return False
        if not self._make_vector(op.input):
            return False
        self.append(changed, self.shapes[name][:1])
        return True

    def make_map(self, name: str) -> bool:
        """Make an operator's (C,) output (C, 1, 1), if all that leads to it can; tell whether."""
        if self.is_shared(name):
            return False
        op = self.operators[name]
        changed: Operator = op
        shape = (self.shapes[name][0], 1, 1)
        match op:
            case GlobalAveragePool():
                self.append(replace(op, keep_map=True), shape)
                return True
            case FullyConnected() if name in self._diagonal:
                scale = np.diag(op.weight)
                changed = _by_channel(name, op.input, scale, op.bias, op.activation)
            case FullyConnected():
                changed = _one_by_one(
                    name, op.input, op.weight[:, :, None, None], op.bias, 1, op.activation
                )
            case Activate():
                pass
            case _:
                return False
        if not self.make_map(op.input):
            return False
        self.append(changed, shape)
        return True

    # Channels

    def select(
        self, source: str, channels: tuple[int, ...], *, name: Callable[[], str], again: bool
    ) -> str:
        """Return the operator that makes some channels of `source`: `source` itself if all.

        It is the one reader of `source` that its node is, or, `again`, one more.
        """
        shape = self.shapes[source]
        if channels == tuple(range(shape[0])):
            return source
        before = self.operators[source]
        if isinstance(before, Select):
            source, again = before.input, True
            channels = tuple(before.channels[channel] for channel in channels)
        self._reads[source] = self._reads.get(source, 1) + again
        op = Select(name=name(), input=source, channels=channels)
        return self.append(op, (len(channels), *shape[1:]))

    def without_select(self, source: str, weight: Float64Array) -> tuple[str, Float64Array]:
        """Return input and weight (out, in, ...) of a layer, with a selection before it inside.

        A permutation costs nothing there, and of the image's few channels all can be read.
        """
        before = self.operators[source]
        if not isinstance(before, Select) or self.is_shared(source):
            return source, weight
        channels = self.shapes[before.input][0]
        permutes = sorted(before.channels) == list(range(channels))
        if not permutes and not isinstance(self.operators[before.input], Normalise):
            return source, weight
        whole = np.zeros((len(weight), channels, *weight.shape[2:]))
        for at, channel in enumerate(before.channels):
            whole[:, channel] += weight[:, at]
        return before.input, whole

    def rejoined(self, names: list[str]) -> tuple[str, Float64Array, Float64Array] | None:
        """Return the operator all of whose channels `names` are, in order, and a scale and shift.

        So networks end up that normalise the image's colours one by one. None for anything else.
        """
        parts = [self._selected(name) for name in names]
        selects = [select for select, _, _ in parts if select is not None]
        sources = {select.input for select in selects}
        if len(selects) < len(names) or len(sources) != 1:
            return None
        (source,) = sources
        channels = [channel for select in selects for channel in select.channels]
        if channels != list(range(self.shapes[source][0])):
            return None
        self._reads[source] += 1 - len(names)
        return (
            source,
            np.concatenate([scale for _, scale, _ in parts]),
            np.concatenate([shift for _, _, shift in parts]),
        )

    def _selected(self, name: str) -> tuple[Select | None, Float64Array, Float64Array]:
        """Return the selection that `name` scales and shifts, if it does only that, and these."""
        op, channels = self.operators[name], self.shapes[name][0]
        scale, shift = np.ones(channels), np.zeros(channels)
        alone = not self.is_shared(name)
        if isinstance(op, Convolution) and _scales_only(op):
            scale, shift = op.weight.ravel().astype(np.float64), op.bias.astype(np.float64)
            op = self.operators[op.input]
            alone = alone and not self.is_shared(op.name)
        return op if alone and isinstance(op, Select) else None, scale, shift

    # Scales and shifts

    def scale(
        self, source: str, scale: Float64Array, shift: Float64Array, *, name: Callable[[], str]
    ) -> str:
        """Return the operator that makes scale * x + shift, (C,) each: `source` if it can.

        Else a new one called `name`: a depthwise 1 x 1 convolution, or for a vector a layer that
        goes into the next one.
        """
        if bool(np.all(scale == 1) and np.all(shift == 0)):
            return source
        if not self.is_shared(source) and self._fold(source, scale, shift):
            return source
        new = name()
        if len(self.shapes[source]) == 3:
            return self.append(_by_channel(new, source, scale, shift, None), self.shapes[source])
        self._diagonal.add(new)
        layer = FullyConnected(
            name=new, input=source, weight=float32(np.diag(scale)), bias=float32(shift)
        )
        return self.append(layer, self.shapes[source])

    def without_diagonal(
        self, source: str, weight: Float64Array, bias: Float64Array
    ) -> tuple[str, Float64Array, Float64Array]:
        """Return input, weight (out, in) and bias of a layer, with the scales before it inside."""
        before = self.operators[source]
        if (
            source not in self._diagonal
            or self.is_shared(source)
            or not isinstance(before, FullyConnected)
            or before.activation is not None
        ):
            return source, weight, bias
        del self.operators[source]
        return before.input, weight * np.diag(before.weight), bias + weight @ before.bias

    def _fold(self, name: str, scale: Float64Array, shift: Float64Array) -> bool:
        """Put a scale and a shift into an operator, if it has weights for them; tell whether."""
        op = self.operators[name]
        still, upwards = bool(np.all(shift == 0)), bool(np.all(scale > 0))
        if isinstance(op, Normalise) and upwards:
            step = op.std / scale
            self.operators[name] = replace(
                op, mean=float32(op.mean - shift * step), std=float32(step)
            )
            return True
        if isinstance(op, Weighted):
            return self._fold_into_layer(op, scale, shift, keeps_sign=still and upwards)
        if isinstance(op, Multiply) and still:
            # x * relu6(x + 3), over 6: the sixth belongs to the second factor.
            for factor in op.inputs:
                gate = self.operators[factor]
                clipped = isinstance(gate, Weighted) and gate.activation == "relu6"
                if clipped and not self.is_shared(factor) and self._fold(factor, scale, shift):
                    self.fuse_hard_swish(name)
                    return True
        return False

    def _fold_into_layer(
        self, op: Weighted, scale: Float64Array, shift: Float64Array, *, keeps_sign: bool
    ) -> bool:
        activation = op.activation
        if activation == "relu6" and np.allclose(scale, A_SIXTH, rtol=1e-5, atol=0) and keeps_sign:
            activation = "unit"
        elif not (activation is None or (activation == "relu" and keeps_sign)):
            return False
        self.operators[op.name] = replace(
            op,
            weight=float32(op.weight * scale.reshape(-1, *(1,) * (op.weight.ndim - 1))),
            bias=float32(op.bias * scale + shift),
            activation=activation,
        )
        return True

    def fuse_hard_swish(self, name: str) -> None:
        """Make a product x * clip(x / 6 + 1/2, 0, 1) one hard-swish; leave any other alone."""
        op = self.operators[name]
        assert isinstance(op, Multiply)
        for x, other in (op.inputs, op.inputs[::-1]):
            gate = self.operators[other]
            if (
                isinstance(gate, Weighted)
                and gate.input == x
                and gate.activation == "unit"
                and not self.is_shared(other)
                and self._scales_by(gate, A_SIXTH)
                and np.allclose(gate.bias, 0.5, rtol=1e-5, atol=0)
            ):
                del self.operators[other]
                self._reads[x] -= 1
                self.operators[name] = Activate(name=name, input=x, function="hard_swish")
                return

    def _scales_by(self, gate: Weighted, factor: float) -> bool:
        """Tell whether a layer multiplies every element by `factor`, its bias aside."""
        if isinstance(gate, FullyConnected):
            own = gate.name in self._diagonal
            weight = np.diag(gate.weight)
        else:
            own = is_depthwise(gate) and gate.weight[0, 0].size == 1 and gate.pad == NO_PAD
            weight = gate.weight
        return own and bool(np.allclose(weight, factor, rtol=1e-5, atol=0))

    # Clips

    def clip(self, name: str, low: float, high: float) -> bool:
        """Clip what an operator makes in its own activation, if it can; tell whether."""
        op = self.operators[name]
        if self.is_shared(name):
            return False
        if isinstance(op, Convolution | FullyConnected | Add):
            both = clip_activation(low, high, after=op.activation)
            if both is not None:
                activation = None if both == "nothing" else both
                self.operators[name] = replace(op, activation=activation)
            return both is not None
        if isinstance(op, Activate) and op.function in ACTIVATION_RANGES:
            both = clip_activation(low, high, after=op.function)
            if both is None or both == "nothing":
                return False
            self.operators[name] = replace(op, function=both)
            return True
        return False


def clip_activation(low: float, high: float, *, after: str | None = None) -> Clip | None:
    """Return what clips as `after` and then to low ... high; None if no activation does."""
    lowest, highest = ACTIVATION_RANGES[after]
    low = max(low, -math.inf if lowest is None else lowest)
    high = min(high, math.inf if highest is None else highest)
    clips: tuple[tuple[Clip, float, float], ...] = (
        ("nothing", -math.inf, math.inf),
        ("relu", 0.0, math.inf),
        ("relu6", 0.0, 6.0),
        ("unit", 0.0, 1.0),
    )
    return next((name for name, *bounds in clips if bounds == [low, high]), None)


def float32(values: npt.NDArray[Any]) -> Float32Array:
    """Return a copy in float32, contiguous and writable."""
    return np.array(values, np.float32, order="C")


def _scales_only(op: Convolution) -> bool:
    """Tell whether a layer scales and shifts each channel, and no more."""
    one_by_one = is_depthwise(op) and op.weight[0, 0].size == 1
    return one_by_one and (op.stride, op.pad, op.activation) == ((1, 1), NO_PAD, None)


def _by_channel(
    name: str,
    source: str,
    scale: npt.NDArray[Any],
    shift: npt.NDArray[Any],
    activation: str | None,
) -> Convolution:
    """Return the depthwise 1 x 1 convolution that scales and shifts each channel."""
    return _one_by_one(name, source, scale.reshape(-1, 1, 1, 1), shift, len(scale), activation)


def _one_by_one(
    name: str,
    source: str,
    weight: npt.NDArray[Any],
    bias: npt.NDArray[Any],
    groups: int,
    activation: str | None,
) -> Convolution:
    return Convolution(
        name=name,
        input=source,
        weight=float32(weight),
        bias=float32(bias),
        stride=(1, 1),
        pad=NO_PAD,
        groups=groups,
        activation=activation,
    )
