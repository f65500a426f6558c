"""From the torch reference to the graph that the writers take: BatchNorm folded in float64."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edgenet.graph import (
    IMAGE,
    LOGITS,
    Convolution,
    Float32Array,
    FullyConnected,
    GlobalAveragePool,
    Graph,
    Normalise,
    Operator,
    infer_shapes,
)
from edgenet.models.mobilenet_v1 import ConvLayer, MobileNetV1


def fold(
    model: MobileNetV1, *, name: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> Graph:
    """Return `model` as a graph from bytes to logits; `mean` and `std` in steps of the byte."""
    operators: list[Operator] = [
        Normalise(
            name="normalised",
            input=IMAGE,
            mean=np.array(mean, np.float32),
            std=np.array(std, np.float32),
        )
    ]
    for layer in model.layers[:-1]:
        weight, bias = _fold_batch_norm(model.get_submodule(layer.name))
        before, after = layer.pad
        operators.append(
            Convolution(
                name=layer.name,
                input=operators[-1].name,
                weight=weight,
                bias=bias,
                stride=(layer.stride, layer.stride),
                pad=(before, after, before, after),
                groups=layer.groups,
                activation=model.activation.value,
            )
        )
    operators.append(GlobalAveragePool(name="pool", input=operators[-1].name))
    classifier = model.get_submodule(model.layers[-1].name)
    assert isinstance(classifier, nn.Linear)
    operators.append(
        FullyConnected(
            name=model.layers[-1].name,
            input="pool",
            weight=classifier.weight.detach().numpy().copy(),
            bias=classifier.bias.detach().numpy().copy(),
        )
    )
    size = model.resolution
    return Graph(
        name=name,
        operators=tuple(operators),
        shapes=infer_shapes(tuple(operators), (3, size, size)),
        outputs={operators[-1].name: LOGITS},
    )


def _fold_batch_norm(layer: torch.nn.Module) -> tuple[Float32Array, Float32Array]:
    """Return the weight (out, in / groups, k, k) and bias (out,) of both in one."""
    assert isinstance(layer, ConvLayer)
    norm = layer.bn
    assert norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    weight = layer.conv.weight.detach().double() * gain[:, None, None, None]
    bias = norm.bias.detach().double() - norm.running_mean.double() * gain
    return weight.float().numpy(), bias.float().numpy()
