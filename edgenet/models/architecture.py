"""MobileNet V1 as a table of layers: shapes, strides, padding. Pure Python, no tensors.

The paper's Table 1 (Howard et al. 2017, arXiv 1704.04861) with its one misprint corrected: the
last depthwise layer is printed with stride 2 but keeps its 7 x 7 input, so its stride is 1.
Knows nothing of weights; `mobilenet_v1.py` builds the network from this table and `cost.py`
counts it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from edgenet.errors import UsageError

STEM_CHANNELS = 32
"""Output channels of the first convolution at width multiplier 1."""

BLOCKS = (
    *((1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512)),
    *((1, 512),) * 5,
    *((2, 1024), (1, 1024)),
)
"""(stride of the depthwise layer, output channels of the pointwise layer) of the 13 blocks."""

MIN_RESOLUTION, MAX_RESOLUTION = 32, 512


class Padding(str, Enum):
    """How the 3 x 3 layers pad; strided layers differ, and so do the logits."""

    TF_SAME = "tf_same"
    """TensorFlow SAME: an even input pads bottom and right only (Google's checkpoints)."""
    KERAS = "keras"
    """Keras applications: SAME in the stem, always bottom and right in strided depthwise layers."""
    SYMMETRIC = "symmetric"
    """One pixel on every side (torch habit, timm)."""


class Activation(str, Enum):
    """What follows every BatchNorm."""

    RELU6 = "relu6"
    RELU = "relu"


class LayerKind(str, Enum):
    """The four layer types of the paper's Table 2."""

    CONVOLUTION = "convolution"
    DEPTHWISE = "depthwise"
    POINTWISE = "pointwise"
    FULLY_CONNECTED = "fully_connected"


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One weighted layer; sizes are the side of a square map in pixels."""

    name: str
    kind: LayerKind
    kernel: int
    stride: int
    pad: tuple[int, int]
    """Pixels added before and after each spatial axis."""
    in_channels: int
    out_channels: int
    input_size: int
    output_size: int

    @property
    def groups(self) -> int:
        """Channel groups of the convolution: all of them in a depthwise layer."""
        return self.in_channels if self.kind is LayerKind.DEPTHWISE else 1


def check_width_multiplier(width_multiplier: float) -> None:
    """Raise `UsageError` unless 1/32 <= width_multiplier <= 1: every layer needs a channel."""
    if not (0 < width_multiplier <= 1) or int(STEM_CHANNELS * width_multiplier) < 1:
        raise UsageError(
            f"width multiplier {width_multiplier:g} is out of range: choose a number from "
            f"{1 / STEM_CHANNELS:g} (one channel in the first layer) to 1"
        )


def check_resolution(resolution: int) -> None:
    """Raise `UsageError` unless 32 <= resolution <= 512 (the network halves its input 5 times)."""
    if not MIN_RESOLUTION <= resolution <= MAX_RESOLUTION:
        raise UsageError(
            f"resolution {resolution} is out of range: choose a whole number of pixels from "
            f"{MIN_RESOLUTION} to {MAX_RESOLUTION}"
        )


def layers(
    *,
    width_multiplier: float = 1.0,
    resolution: int = 224,
    num_classes: int = 1000,
    padding: Padding = Padding.TF_SAME,
) -> tuple[Layer, ...]:
    """Return the 28 weighted layers in order: stem, 13 depthwise and pointwise pairs, classifier.

    Channels are `int(c * width_multiplier)`, as Keras does. Raises `UsageError` for a width
    multiplier, resolution or class count that no such network has.
    """
    check_width_multiplier(width_multiplier)
    check_resolution(resolution)
    if num_classes < 1:
        raise UsageError(f"a classifier needs at least one class, not {num_classes}")

    def channels(full: int) -> int:
        return int(full * width_multiplier)

    def convolution(
        name: str, kind: LayerKind, stride: int, in_channels: int, out_channels: int, size: int
    ) -> Layer:
        kernel = 1 if kind is LayerKind.POINTWISE else 3
        pad = _pad(padding, kind, kernel, stride, size)
        return Layer(
            name=name,
            kind=kind,
            kernel=kernel,
            stride=stride,
            pad=pad,
            in_channels=in_channels,
            out_channels=out_channels,
            input_size=size,
            output_size=(size + sum(pad) - kernel) // stride + 1,
        )

    table = [convolution("stem", LayerKind.CONVOLUTION, 2, 3, channels(STEM_CHANNELS), resolution)]
    for number, (stride, width) in enumerate(BLOCKS, start=1):
        before = table[-1]
        depthwise = convolution(
            f"conv_dw_{number}",
            LayerKind.DEPTHWISE,
            stride,
            before.out_channels,
            before.out_channels,
            before.output_size,
        )
        pointwise = convolution(
            f"conv_pw_{number}",
            LayerKind.POINTWISE,
            1,
            before.out_channels,
            channels(width),
            depthwise.output_size,
        )
        table += [depthwise, pointwise]
    table.append(
        Layer(
            name="fc",
            kind=LayerKind.FULLY_CONNECTED,
            kernel=1,
            stride=1,
            pad=(0, 0),
            in_channels=table[-1].out_channels,
            out_channels=num_classes,
            input_size=1,
            output_size=1,
        )
    )
    return tuple(table)


def _pad(padding: Padding, kind: LayerKind, kernel: int, stride: int, size: int) -> tuple[int, int]:
    if kernel == 1:
        return (0, 0)
    if padding is Padding.SYMMETRIC or stride == 1:
        return (1, 1)
    if padding is Padding.KERAS and kind is LayerKind.DEPTHWISE:
        return (0, 1)
    # TensorFlow SAME: just enough for ceil(size / stride) outputs, the odd pixel at the end.
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return (total // 2, total - total // 2)
