"""Small random networks that between them use every operator, and a plain INT8 form of any."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from edgenet.graph import (
    ACTIVATION_RANGES,
    IMAGE,
    KEEPS_BYTES,
    LOGITS,
    Activate,
    Add,
    Affine,
    Concatenate,
    Convolution,
    Flatten,
    FullyConnected,
    GlobalAveragePool,
    Graph,
    Multiply,
    Normalise,
    Operator,
    Pool,
    QuantizedGraph,
    QuantizedWeights,
    Select,
    infer_shapes,
    inputs_of,
)
from edgenet.preprocess import UInt8Array
from edgenet.quantize.execute import execute

IMAGE_AFFINE = Affine(scale=1 / 64, zero_point=128)


class Sketch:
    """A network being drawn: each method adds an operator to the last one and names it."""

    def __init__(self, size: int = 16) -> None:
        self.image = (3, size, size)
        self.random = np.random.default_rng(5)
        mean, std = np.full(3, 128, np.float32), np.full(3, 64, np.float32)
        self.operators: list[Operator] = [
            Normalise(name="normalised", input=IMAGE, mean=mean, std=std)
        ]

    @property
    def last(self) -> str:
        return self.operators[-1].name

    def channels(self, tensor: str) -> int:
        return infer_shapes(tuple(self.operators), self.image)[tensor][0]

    def add(self, op: Operator) -> str:
        self.operators.append(op)
        return op.name

    def conv(
        self,
        name: str,
        out: int,
        kernel: int = 1,
        *,
        source: str | None = None,
        stride: int | tuple[int, int] = 1,
        pad: int | tuple[int, int, int, int] | None = None,
        groups: int = 1,
        dilation: int = 1,
        activation: str | None = None,
    ) -> str:
        source = source or self.last
        weight, bias = self.weights((out, self.channels(source) // groups, kernel, kernel))
        pad = dilation * (kernel - 1) // 2 if pad is None else pad
        return self.add(
            Convolution(
                name=name,
                input=source,
                weight=weight,
                bias=bias,
                stride=stride if isinstance(stride, tuple) else (stride, stride),
                pad=pad if isinstance(pad, tuple) else (pad,) * 4,
                groups=groups,
                dilation=dilation,
                activation=activation,
            )
        )

    def pool(
        self,
        name: str,
        kind: str,
        kernel: int,
        stride: int,
        pad: int | tuple[int, int, int, int] = 0,
        source: str | None = None,
    ) -> str:
        pads = pad if isinstance(pad, tuple) else (pad,) * 4
        return self.add(
            Pool(
                name=name,
                input=source or self.last,
                kind=kind,
                kernel=(kernel, kernel),
                stride=(stride, stride),
                pad=pads,
            )
        )

    def activate(self, function: str, source: str | None = None) -> str:
        source = source or self.last
        return self.add(Activate(name=f"{source}_{function}", input=source, function=function))

    def head(self, activation: str | None = None, classes: int = 10) -> Graph:
        """End with pooling, if there is a map, and a classifier."""
        if len(infer_shapes(tuple(self.operators), self.image)[self.last]) == 3:
            self.add(GlobalAveragePool(name="pool", input=self.last))
        self.dense("fc", classes, activation=activation)
        return self.ending({"fc": LOGITS})

    def dense(self, name: str, out: int, *, activation: str | None = None) -> str:
        source = self.last
        weight, bias = self.weights((out, self.channels(source)))
        return self.add(
            FullyConnected(name=name, input=source, weight=weight, bias=bias, activation=activation)
        )

    def ending(self, outputs: Mapping[str, str]) -> Graph:
        """End here; `outputs` are the tensors that leave and what they are called."""
        operators = tuple(self.operators)
        shapes = infer_shapes(operators, self.image)
        return Graph(name="sketch", operators=operators, shapes=shapes, outputs=outputs)

    def weights(self, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        spread = 1.5 / np.sqrt(np.prod(shape[1:]))
        weight = self.random.normal(0, spread, shape).astype(np.float32)
        return weight, self.random.normal(0, 0.3, shape[0]).astype(np.float32)


def residual() -> Graph:
    """ResNet: a padded maximum, a block with a shortcut of its own, one with none."""
    net = Sketch(24)
    net.conv("stem", 8, 7, stride=2, pad=3, activation="relu")
    net.pool("max", "max", 3, 2, 1)
    net.conv("a1", 12, 3, stride=2, source="max", activation="relu")
    net.conv("a2", 12, 3)
    net.conv("a3", 12, 1, stride=2, source="max")
    net.add(Add(name="a", inputs=("a2", "a3"), activation="relu"))
    net.conv("b1", 12, 3, activation="relu")
    net.conv("b2", 12, 3)
    net.add(Add(name="b", inputs=("b2", "a"), activation="relu6"))
    return net.head()


def inverted_residual() -> Graph:
    """MobileNet V3: hard-swish, squeeze-and-excite, a linear residual."""
    net = Sketch(24)
    net.conv("stem", 8, 3, stride=2)
    net.activate("hard_swish")
    net.conv("expand", 16, 1)
    net.activate("hard_swish")
    net.conv("depthwise", 16, 5, groups=16)
    swish = net.activate("hard_swish")
    net.add(GlobalAveragePool(name="squeeze", input=swish, keep_map=True))
    net.conv("reduce", 4, 1, activation="relu")
    net.conv("excite", 16, 1, activation="unit")
    net.add(Multiply(name="scaled", inputs=(swish, "excite")))
    net.conv("project", 8, 1)
    net.add(Add(name="sum", inputs=("project", "stem_hard_swish")))
    return net.head()


def branches() -> Graph:
    """DenseNet and SqueezeNet: concatenations, mean and maximum windows, a flattened map."""
    net = Sketch(16)
    net.conv("stem", 8, 3, stride=2, pad=(0, 0, 1, 1), activation="relu")
    net.pool("mean", "average", 3, 2)  # of nine: no halves, which runtimes round apart
    net.conv("left", 6, 3, activation="relu")
    net.pool("right", "max", 3, 1, 1, source="mean")
    net.add(Concatenate(name="both", inputs=("left", "right", "mean")))
    net.conv("narrow", 5, 1)
    net.pool("signed", "max", 2, 2, (1, 0, 1, 0))
    net.add(Flatten(name="flat", input="signed"))
    return net.head(activation="relu")


def convolutions() -> Graph:
    """Groups, dilation, uneven strides, a depth multiplier, a sigmoid gate, every clip."""
    net = Sketch(20)
    net.conv("multiplied", 6, 3, groups=3, stride=(2, 1), activation="relu6")
    net.conv("dilated", 8, 3, dilation=2, activation="unit")
    net.conv("grouped", 12, 3, groups=4, activation="relu")
    net.conv("dilated_depthwise", 12, 3, groups=12, dilation=2, pad=1)
    net.activate("sigmoid")
    net.add(Multiply(name="gated", inputs=("dilated_depthwise", "dilated_depthwise_sigmoid")))
    net.conv("dilated_group", 8, 3, groups=2, dilation=2, stride=2)
    net.activate("relu", "dilated_group")
    net.activate("relu6", "dilated_group")
    net.activate("unit", "dilated_group")
    net.add(Add(name="sum", inputs=("dilated_group_relu", "dilated_group_unit")))
    net.add(Add(name="sums", inputs=("sum", "dilated_group_relu6"), activation="relu"))
    net.add(GlobalAveragePool(name="pool", input="sums"))
    net.add(Activate(name="logistic", input="pool", function="sigmoid"))
    return net.head()


def shuffled() -> Graph:
    """ShuffleNetV2: channels split, one part worked on, both joined and mixed; a padded mean."""
    net = Sketch(16)
    net.conv("stem", 12, 3, stride=2, activation="relu")
    for unit in ("a", "b"):
        whole = net.last
        kept = net.add(Select(name=f"{unit}_kept", input=whole, channels=(0, 6, 1, 7, 2, 8)))
        net.add(Select(name=f"{unit}_taken", input=whole, channels=(3, 9, 4, 10, 5, 11)))
        net.conv(f"{unit}1", 6, 1, activation="relu")
        net.conv(f"{unit}2", 6, 3, groups=6)
        net.conv(f"{unit}3", 6, 1, activation="relu")
        net.add(Concatenate(name=unit, inputs=(kept, f"{unit}3")))
    net.pool("smooth", "average", 3, 1, 1)
    net.conv("last", 8, 1, activation="relu")
    return net.head()


def heads() -> Graph:
    """No classifier: a map read on, a map that ends, a vector read on and one that ends."""
    net = Sketch(16)
    net.conv("stem", 8, 3, stride=2, activation="relu")
    net.conv("features", 6, 3)
    net.conv("scores", 5, 1, activation="relu6")
    net.add(GlobalAveragePool(name="pool", input="features"))
    net.dense("project", 12)
    net.dense("classify", 10)
    return net.ending(
        {"scores": "mask", "classify": "logits", "features": "inside", "project": "embedding"}
    )


NETWORKS: Mapping[str, Callable[[], Graph]] = {
    network.__name__: network
    for network in (residual, inverted_residual, branches, shuffled, convolutions)
}


def pictures(graph: Graph, count: int) -> UInt8Array:
    """Return (count, H, W, 3): noise on gradients, different in each picture."""
    channels, height, width = graph.shapes[IMAGE]
    random = np.random.default_rng(3)
    ramp = np.linspace(0, 1, width)[:, None] * random.uniform(-150, 150, (count, 1, 1, channels))
    noise = random.uniform(0, 255, (count, height, width, channels))
    return np.clip(noise * 0.7 + ramp + 40, 0, 255).astype(np.uint8)


def min_max(graph: Graph, images: UInt8Array) -> QuantizedGraph:
    """Return the plainest INT8 form of `graph`: whole ranges, nearest rounding."""
    ranges: dict[str, tuple[float, float]] = {}

    def watch(name: str, tensor: torch.Tensor) -> None:
        ranges[name] = min(0.0, float(tensor.min())), max(1e-3, float(tensor.max()))

    execute(graph, torch.from_numpy(images), watch)
    for op in (*graph.operators, *reversed(graph.operators), *graph.operators):
        if isinstance(op, KEEPS_BYTES):
            shared = [ranges[name] for name in (op.name, *inputs_of(op))]
            widest = min(low for low, _ in shared), max(high for _, high in shared)
            ranges.update(dict.fromkeys((op.name, *inputs_of(op)), widest))
    tensors = {name: affine(*reach) for name, reach in ranges.items()}
    tensors["normalised"] = IMAGE_AFFINE
    for op in graph.operators:
        name = op.function if isinstance(op, Activate) else getattr(op, "activation", None)
        if name == "unit":
            tensors[op.name] = Affine(scale=float(np.float32(1 / 255)), zero_point=0)
        elif isinstance(op, Activate) and name in ACTIVATION_RANGES:
            assert tensors[op.name].clips_as(name)
    layers = {}
    for op in graph.weighted():
        flat = op.weight.reshape(len(op.weight), -1)
        scale = (np.abs(flat).max(axis=1) / 127).astype(np.float32)
        values = np.rint(flat / scale[:, None]).astype(np.int8).reshape(op.weight.shape)
        bias = np.rint(op.bias / (np.float32(tensors[op.input].scale) * scale)).astype(np.int32)
        layers[op.name] = QuantizedWeights(values=values, scale=scale, bias=bias)
    return QuantizedGraph(graph=graph, tensors=tensors, layers=layers)


def affine(low: float, high: float) -> Affine:
    """Return the affine of a range that holds zero."""
    scale = float(np.float32((high - low) / 255))
    return Affine(scale=scale, zero_point=int(np.clip(round(-low / scale), 0, 255)))
