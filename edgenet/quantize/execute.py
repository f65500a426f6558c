"""Running a graph on the host, one operator at a time, in float32 with torch.

The calibration watches the tensors go by here. Knows nothing of quantisation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgenet.graph import (
    ACTIVATION_RANGES,
    IMAGE,
    Activate,
    Add,
    Concatenate,
    Convolution,
    Flatten,
    Float32Array,
    FullyConnected,
    GlobalAveragePool,
    Graph,
    Multiply,
    Normalise,
    Operator,
    Pool,
    Select,
    inputs_of,
)
from edgenet.preprocess import UInt8Array

CHUNK = 4
"""Images worked on at a time."""

Watch = Callable[[str, Tensor], None]


def chunks(images: Sequence[UInt8Array]) -> Iterator[Tensor]:
    """Yield (n, H, W, 3) uint8 for images (1, H, W, 3), a few at a time."""
    for start in range(0, len(images), CHUNK):
        yield torch.from_numpy(np.concatenate(images[start : start + CHUNK]))


def answers(graph: Graph, images: Sequence[UInt8Array]) -> Float32Array:
    """Return what `execute` does, (N, values), for images (1, H, W, 3) uint8 RGB."""
    rows = [execute(graph, chunk, lambda *_: None) for chunk in chunks(images)]
    return torch.cat(rows).numpy()


@torch.inference_mode()
def execute(graph: Graph, images: Tensor, watch: Watch) -> Tensor:
    """Return all outputs, `joined`, for images (N, H, W, 3) uint8, showing `watch` every tensor.

    `watch` gets each operator's name and its output, (N, C, H, W) or (N, C) float32. A tensor is
    dropped after its last reader, so the peak is a few layers and not the whole network.
    """
    last_reader = {name: op.name for op in graph.operators for name in inputs_of(op)}
    tensors: dict[str, Tensor] = {IMAGE: images.permute(0, 3, 1, 2)}
    for op in graph.operators:
        tensors[op.name] = apply(op, *(tensors[name] for name in inputs_of(op)))
        watch(op.name, tensors[op.name])
        for name in set(inputs_of(op)).difference(graph.outputs):
            if last_reader[name] == op.name:
                del tensors[name]
    return joined(graph, tensors)


def joined(graph: Graph, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the outputs among `tensors` one after the other, (N, values), channels last.

    Of a classifier these are its logits, (N, classes).
    """
    left = [tensors[name] for name in graph.outputs]
    return torch.cat([x.movedim(1, -1).flatten(1) for x in left], dim=1)


def apply(op: Operator, *inputs: Tensor) -> Tensor:
    """Return one operator's output, (N, C, H, W) or (N, C) float32."""
    x = inputs[0]
    match op:
        case Normalise():
            shape = (1, -1, 1, 1)
            mean, std = torch.from_numpy(op.mean), torch.from_numpy(op.std)
            return (x.float() - mean.view(shape)) / std.view(shape)
        case Convolution():
            y = functional.conv2d(
                _padded(x, op.pad, 0.0),
                torch.from_numpy(op.weight),
                torch.from_numpy(op.bias),
                stride=op.stride,
                dilation=op.dilation,
                groups=op.groups,
            )
            return _clip(y, op.activation)
        case FullyConnected():
            y = functional.linear(x, torch.from_numpy(op.weight), torch.from_numpy(op.bias))
            return _clip(y, op.activation)
        case Pool(kind="max"):
            x = _padded(x, op.pad, float("-inf"))
            return functional.max_pool2d(x, op.kernel, op.stride)
        case Pool():
            means = functional.avg_pool2d(_padded(x, op.pad, 0.0), op.kernel, op.stride)
            within = _padded(torch.ones_like(x[:1, :1]), op.pad, 0.0)
            return means / functional.avg_pool2d(within, op.kernel, op.stride)
        case GlobalAveragePool():
            return x.mean(dim=(2, 3), keepdim=op.keep_map)
        case Flatten():
            return x.flatten(1)
        case Activate(function="hard_swish"):
            return functional.hardswish(x)
        case Activate(function="sigmoid"):
            return x.sigmoid()
        case Activate():
            return _clip(x, op.function)
        case Add():
            return _clip(x + inputs[1], op.activation)
        case Multiply():
            return x * inputs[1]
        case Concatenate():
            return torch.cat(inputs, dim=1)
        case Select():
            return x[:, list(op.channels)]


def _padded(x: Tensor, pad: tuple[int, int, int, int], value: float) -> Tensor:
    top, bottom, left, right = pad
    return functional.pad(x, (left, right, top, bottom), value=value)


def _clip(x: Tensor, activation: str | None) -> Tensor:
    low, high = ACTIVATION_RANGES[activation]
    return x if low is None else x.clamp(low, high)
