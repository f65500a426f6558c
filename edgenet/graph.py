"""The network between the reference and its files: plain operators with folded weights.

A `Graph` is what every writer in `convert/` takes. BatchNorm is folded into the convolution before
it; activations are part of the operator that they follow. Tensors are named after the operator
that makes them and are described channels first, without the batch: (C, H, W) or (C,); each
writer lays them out as its format likes. Operators are added here as networks need them.

`QuantizedGraph` is the same network with the numbers of its INT8 form. One of it is made for all
runtimes; a writer only writes it down. Needs numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Int8Array = npt.NDArray[np.int8]
Int32Array = npt.NDArray[np.int32]

IMAGE = "image"
"""The graph's input: (3, H, W) of bytes, RGB; uint8 NHWC (1, H, W, 3) in every artefact."""

LOGITS = "logits"
"""What artefacts call a classifier's output: float32 (1, classes)."""

ACTIVATION_RANGES: Mapping[str | None, tuple[float | None, float | None]] = {
    None: (None, None),
    "relu": (0.0, None),
    "relu6": (0.0, 6.0),
    "unit": (0.0, 1.0),
}
"""Lowest and highest output of each activation that an operator can carry.

`unit` is the clip of a hard sigmoid, clip(x / 6 + 1/2, 0, 1): the rest of it belongs in the weights
of the layer before."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Normalise:
    """(x - mean) / std for each channel of the image; the first operator of a network."""

    name: str
    input: str
    mean: Float32Array
    """(C,), in steps of the input byte."""
    std: Float32Array
    """(C,), in steps of the input byte."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Convolution:
    """2-D convolution with bias and activation; depthwise when `groups` is its input channels."""

    name: str
    input: str
    weight: Float32Array
    """(out, in / groups, kernel height, kernel width)."""
    bias: Float32Array
    """(out,)."""
    stride: tuple[int, int]
    """Down and across."""
    pad: tuple[int, int, int, int]
    """Zeros added (top, bottom, left, right)."""
    groups: int
    dilation: int = 1
    activation: str | None
    """A key of `ACTIVATION_RANGES`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FullyConnected:
    """weight @ x + bias on a (C,) tensor, and activation."""

    name: str
    input: str
    weight: Float32Array
    """(out, in)."""
    bias: Float32Array
    """(out,)."""
    activation: str | None = None
    """A key of `ACTIVATION_RANGES`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """The maximum or the mean of what every window sees of a tensor."""

    name: str
    input: str
    kind: Literal["max", "average"]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int, int, int]
    """Pixels added (top, bottom, left, right) that never win a maximum nor count in a mean.

    Those of a mean are as `same_padding` has them: TFLite knows no others."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GlobalAveragePool:
    """The mean over height and width: (C, H, W) to (C,), or to (C, 1, 1) with `keep_map`."""

    name: str
    input: str
    keep_map: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Flatten:
    """(C, H, W) to (C * H * W,), channels slowest."""

    name: str
    input: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Activate:
    """A function that no other operator carries, element by element."""

    name: str
    input: str
    function: Literal["relu", "relu6", "unit", "hard_swish", "sigmoid"]
    """hard_swish(x) = x * clip(x / 6 + 1/2, 0, 1); sigmoid(x) = 1 / (1 + exp(-x))."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Add:
    """The sum of two tensors of one shape, and activation."""

    name: str
    inputs: tuple[str, str]
    activation: str | None = None
    """A key of `ACTIVATION_RANGES`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Multiply:
    """The product of two tensors; the second may be (C, 1, 1) against (C, H, W)."""

    name: str
    inputs: tuple[str, str]


@dataclass(frozen=True, kw_only=True, eq=False)
class Concatenate:
    """Tensors (C1, H, W), (C2, H, W), ... one after the other along their channels."""

    name: str
    inputs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Select:
    """Some channels of a tensor, in any order: what splits and shuffles channels."""

    name: str
    input: str
    channels: tuple[int, ...]
    """All of them in an order that is not its own inverse need two operators, joined again:
    OpenVINO (2026.4) moves such an order into the next layer's weights the wrong way round."""


Weighted = Convolution | FullyConnected
Operator = (
    Normalise
    | Weighted
    | Pool
    | GlobalAveragePool
    | Flatten
    | Activate
    | Add
    | Multiply
    | Concatenate
    | Select
)
KEEPS_BYTES = (Pool, Flatten, Concatenate, Select)
"""Operators whose 8-bit inputs and output share one affine: they pass bytes on or compare them."""


def inputs_of(op: Operator) -> tuple[str, ...]:
    """Return the tensors that an operator reads, in order."""
    return op.inputs if isinstance(op, Add | Multiply | Concatenate) else (op.input,)


def is_depthwise(op: Operator) -> bool:
    """Tell whether `op` is a convolution with one filter for each channel."""
    return isinstance(op, Convolution) and op.weight.shape[1] == 1 and op.groups == len(op.weight)


@dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """A network as operators in the order of execution."""

    name: str
    operators: tuple[Operator, ...]
    shapes: Mapping[str, tuple[int, ...]]
    """Shape of every tensor, the image included, channels first and without the batch."""
    outputs: Mapping[str, str]
    """The tensors that leave the network, vectors or maps, and what every artefact calls each."""

    @property
    def output_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return the shape of each output as it leaves an artefact: (1, C) or (1, H, W, C)."""
        shapes = {name: self.shapes[tensor] for tensor, name in self.outputs.items()}
        return {name: (1, *shape[1:], shape[0]) for name, shape in shapes.items()}

    @property
    def is_classifier(self) -> bool:
        """Tell whether all that leaves are logits, a number for each class."""
        return [(name, len(shape)) for name, shape in self.output_shapes.items()] == [(LOGITS, 2)]

    def weighted(self) -> tuple[Weighted, ...]:
        """Return the operators that hold weights."""
        return tuple(op for op in self.operators if isinstance(op, Weighted))


def mult_adds(graph: Graph, op: Operator) -> int:
    """Return the multiply-adds of convolutions and products with a matrix, 0 of anything else."""
    if not isinstance(op, Weighted):
        return 0
    places = math.prod(graph.shapes[op.name][1:]) if isinstance(op, Convolution) else 1
    return int(op.weight.size) * places


def infer_shapes(
    operators: tuple[Operator, ...], image: tuple[int, int, int]
) -> Mapping[str, tuple[int, ...]]:
    """Return the shape of every tensor of a network whose input is (C, H, W)."""
    shapes: dict[str, tuple[int, ...]] = {IMAGE: image}
    for op in operators:
        shapes[op.name] = _output_shape(op, [shapes[name] for name in inputs_of(op)])
    return shapes


def _output_shape(op: Operator, sources: list[tuple[int, ...]]) -> tuple[int, ...]:
    source = sources[0]
    match op:
        case Convolution():
            height, width = (op.dilation * (side - 1) + 1 for side in op.weight.shape[2:])
            return (len(op.weight), *_slide(source, (height, width), op.stride, op.pad))
        case Pool():
            return (source[0], *_slide(source, op.kernel, op.stride, op.pad))
        case FullyConnected():
            return (len(op.weight),)
        case GlobalAveragePool():
            return (source[0], 1, 1) if op.keep_map else source[:1]
        case Flatten():
            return (math.prod(source),)
        case Concatenate():
            return (sum(shape[0] for shape in sources), *source[1:])
        case Select():
            return (len(op.channels), *source[1:])
        case Normalise() | Activate() | Add() | Multiply():
            return source


def same_padding(size: int, window: int, stride: int) -> tuple[int, int]:
    """Return the pixels before and after an axis that make it ceil(size / stride) places long."""
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


def _slide(
    source: tuple[int, ...],
    window: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int, int, int],
) -> tuple[int, int]:
    """Return how many places a window takes down and across."""
    top, bottom, left, right = pad
    return (
        (source[1] + top + bottom - window[0]) // stride[0] + 1,
        (source[2] + left + right - window[1]) // stride[1] + 1,
    )


@dataclass(frozen=True, kw_only=True)
class Affine:
    """How a tensor is held in 8 bits: real = scale * (q - zero_point), q in 0 ... 255.

    Formats that hold int8 store q - 128 and zero_point - 128.
    """

    scale: float
    """A value that float32 holds exactly."""
    zero_point: int

    def clips_as(self, activation: str | None) -> bool:
        """Tell whether 0 ... 255 end within the activation's range, give or take a rounding."""
        low, high = ACTIVATION_RANGES[activation]
        below = low is not None and round(low / self.scale) + self.zero_point > 0
        above = high is not None and round(high / self.scale) + self.zero_point < 255
        return not (below or above)


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedWeights:
    """One layer's weights in 8 bits: real = scale * q, symmetric, one scale a channel."""

    values: Int8Array
    """As the layer's float weight, in -127 ... 127."""
    scale: Float32Array
    """(out,)."""
    bias: Int32Array
    """(out,), in steps of (input scale * weight scale)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedGraph:
    """The INT8 form of a graph: which tensors travel as bytes, which layers compute in int8.

    Every consumer of a tensor in `tensors` sees its 8-bit value. An operator computes in int8 when
    `is_integer` says so; any other runs in float, between what it reads and what it makes.
    A `Normalise` whose output is in `tensors` leaves the bytes as they are: the affine then *is*
    the normalisation, and what its whole zero point rounds away sits in the next layer's bias. (In
    the symmetric form it computes in float like any other operator.)
    An int8 operator needs no separate activation where the affine of its output ends with it.
    """

    graph: Graph
    tensors: Mapping[str, Affine]
    layers: Mapping[str, QuantizedWeights]
    sums: Mapping[str, Affine] = field(default_factory=dict)
    """What layers with 8-bit weights that read bytes give out in float, as sums of products are.

    The affine is what 8 bits would have, for formats that cannot write sums. A convolution with
    sums computes in float where a runtime has no such layer: the same values but for float's own
    rounding.
    """
    symmetric: bool = False
    """Every zero point is 0 in int8 (128 here): TensorRT knows no other."""

    def gives_sums(self, op: Operator) -> bool:
        """Tell whether `op` is a convolution of bytes, with 8-bit weights, that gives out float."""
        return isinstance(op, Convolution) and op.name in self.sums

    def is_integer(self, op: Operator) -> bool:
        """Tell whether `op` computes in int8: all it reads and makes is, and its weights are."""
        within = all(name in self.tensors for name in (op.name, *inputs_of(op)))
        return within and (not isinstance(op, Weighted) or op.name in self.layers)
