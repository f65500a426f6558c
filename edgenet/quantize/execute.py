"""Running a graph on the host, one operator at a time, in float32 with torch.

The calibration watches the tensors go by here. Knows nothing of quantisation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from edgenet.graph import (
    ACTIVATION_RANGES,
    IMAGE,
    Convolution,
    FullyConnected,
    GlobalAveragePool,
    Graph,
    Normalise,
    Operator,
)

Watch = Callable[[str, Tensor], None]


@torch.inference_mode()
def execute(graph: Graph, images: Tensor, watch: Watch) -> Tensor:
    """Return logits (N, classes) for images (N, H, W, 3) uint8, showing `watch` every tensor.

    `watch` gets each operator's name and its output, (N, C, H, W) or (N, C) float32. A tensor is
    dropped after its last reader, so the peak is a few layers and not the whole network.
    """
    last_reader = {op.input: op.name for op in graph.operators}
    tensors: dict[str, Tensor] = {IMAGE: images.permute(0, 3, 1, 2)}
    for op in graph.operators:
        tensors[op.name] = apply(op, tensors[op.input])
        watch(op.name, tensors[op.name])
        if last_reader[op.input] == op.name:
            del tensors[op.input]
    return tensors[graph.output]


def apply(op: Operator, x: Tensor) -> Tensor:
    """Return one operator's output, (N, C, H, W) or (N, C) float32."""
    match op:
        case Normalise():
            shape = (1, -1, 1, 1)
            mean, std = torch.from_numpy(op.mean), torch.from_numpy(op.std)
            return (x.float() - mean.view(shape)) / std.view(shape)
        case Convolution():
            top, bottom, left, right = op.pad
            x = functional.conv2d(
                functional.pad(x, (left, right, top, bottom)),
                torch.from_numpy(op.weight),
                torch.from_numpy(op.bias),
                stride=op.stride,
                groups=op.groups,
            )
            low, high = ACTIVATION_RANGES[op.activation]
            return x if low is None else x.clamp(low, high)
        case GlobalAveragePool():
            return x.mean(dim=(2, 3))
        case FullyConnected():
            return functional.linear(x, torch.from_numpy(op.weight), torch.from_numpy(op.bias))
