"""The network between the reference and its files: plain operators with folded weights.

A `Graph` is what every writer in `convert/` takes. BatchNorm is folded into the convolution before
it; activations are part of the operator that they follow. Tensors are named after the operator
that makes them and are described channels first, without the batch: (C, H, W) or (C,); each
writer lays them out as its format likes. Operators are added here as networks need them.

`QuantizedGraph` is the same network with the numbers of its INT8 form. One of it is made for all
runtimes; a writer only writes it down. Needs numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Int8Array = npt.NDArray[np.int8]
Int32Array = npt.NDArray[np.int32]

IMAGE = "image"
"""The graph's input: (3, H, W) of bytes, RGB; uint8 NHWC (1, H, W, 3) in every artefact."""

LOGITS = "logits"
"""What artefacts call the last operator's output: float32 (1, classes)."""

ACTIVATION_RANGES: Mapping[str | None, tuple[float | None, float | None]] = {
    None: (None, None),
    "relu": (0.0, None),
    "relu6": (0.0, 6.0),
}
"""Lowest and highest output of each activation that an operator can carry."""


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
    stride: int
    pad: tuple[int, int, int, int]
    """Zeros added (top, bottom, left, right)."""
    groups: int
    activation: str | None
    """A key of `ACTIVATION_RANGES`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GlobalAveragePool:
    """The mean over height and width: (C, H, W) to (C,)."""

    name: str
    input: str


@dataclass(frozen=True, kw_only=True, eq=False)
class FullyConnected:
    """weight @ x + bias on a (C,) tensor."""

    name: str
    input: str
    weight: Float32Array
    """(out, in)."""
    bias: Float32Array
    """(out,)."""


Operator = Normalise | Convolution | GlobalAveragePool | FullyConnected
Weighted = Convolution | FullyConnected


@dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """A network as operators in the order of execution."""

    name: str
    operators: tuple[Operator, ...]
    shapes: Mapping[str, tuple[int, ...]]
    """Shape of every tensor, the image included, channels first and without the batch."""

    @property
    def output(self) -> str:
        """Return the name of the tensor that leaves every artefact as `logits`."""
        return self.operators[-1].name

    def weighted(self) -> tuple[Weighted, ...]:
        """Return the operators that hold weights."""
        return tuple(op for op in self.operators if isinstance(op, Weighted))


def infer_shapes(
    operators: tuple[Operator, ...], image: tuple[int, int, int]
) -> Mapping[str, tuple[int, ...]]:
    """Return the shape of every tensor of a network whose input is (C, H, W)."""
    shapes: dict[str, tuple[int, ...]] = {IMAGE: image}
    for op in operators:
        source = shapes[op.input]
        match op:
            case Normalise():
                shapes[op.name] = source
            case Convolution():
                top, bottom, left, right = op.pad
                kernel_height, kernel_width = op.weight.shape[2:]
                shapes[op.name] = (
                    op.weight.shape[0],
                    (source[1] + top + bottom - kernel_height) // op.stride + 1,
                    (source[2] + left + right - kernel_width) // op.stride + 1,
                )
            case GlobalAveragePool():
                shapes[op.name] = source[:1]
            case FullyConnected():
                shapes[op.name] = (op.weight.shape[0],)
    return shapes


@dataclass(frozen=True, kw_only=True)
class Affine:
    """How a tensor is held in 8 bits: real = scale * (q - zero_point), q in 0 ... 255.

    Formats that hold int8 store q - 128 and zero_point - 128.
    """

    scale: float
    """A value that float32 holds exactly."""
    zero_point: int


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

    Every consumer of a tensor in `tensors` sees its 8-bit value. A layer in `layers` multiplies
    int8 by int8 and needs its input (and output) in `tensors`; any other runs in float.
    A `Normalise` whose output is in `tensors` leaves the bytes as they are: the affine then *is*
    the normalisation, and what its whole zero point rounds away sits in the next layer's bias.
    An int8 layer needs no separate activation: the affine of its output ends where it ends.
    """

    graph: Graph
    tensors: Mapping[str, Affine]
    layers: Mapping[str, QuantizedWeights]
