"""A bundle's reference read back: its float32 ONNX file becomes the graph that it was written from.

The exact inverse of `onnx.write_float32`, bit for bit: names are the bundle's, weights are what
`convert` had. It knows that writer's files only; other people's are `models/onnx_file.py`'s, which
may fold what it reads and so would change names and weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from edgenet.bundle import AGAIN
from edgenet.errors import BrokenBundle
from edgenet.graph import (
    ACTIVATION_RANGES,
    IMAGE,
    LOGITS,
    Activate,
    Add,
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
    Select,
    infer_shapes,
)
from edgenet.models.onnx_nodes import load_model

PRODUCER = "edgenet"
NORMALISING = ["Cast", "Transpose", "Sub", "Mul"]
"""The nodes at the beginning; the last one makes the normalised tensor."""
MAP, LINEAR = ".map", ".linear"
"""Endings of the tensors inside an operator that the writer writes as two nodes."""
BOUNDS = {"Clip", "Relu"}


def read_reference(
    path: Path, mean: tuple[float, ...], std: tuple[float, ...], *, last: str = LOGITS
) -> Graph:
    """Return the graph of a float32 ONNX file that edgenet wrote.

    `mean` and `std`, per channel in steps of the input byte, are those of the manifest beside it.
    `last` names the last operator where the file does not: in an older one, of which it is a single
    node without weights. Raises `BrokenBundle` for a file that is not such a one, `BadWeights` for
    one that is no ONNX file at all.
    """
    model, _ = load_model(path)
    own = _give_own_names(model.graph.node)
    nodes = [node for node in model.graph.node if not _gives_out_a_map(node)]
    first, rest = nodes[: len(NORMALISING)], nodes[len(NORMALISING) :]
    turned = {node.output[0]: node.input[0] for node in model.graph.node if _gives_out_a_map(node)}
    if model.producer_name != PRODUCER or [node.op_type for node in first] != NORMALISING:
        raise BrokenBundle(
            f"{path}: is not a float32 file as this edgenet writes them, so the reference cannot "
            "be read back; convert again"
        )
    normalise = Normalise(
        name=first[-1].output[0],
        input=IMAGE,
        mean=np.array(mean, np.float32),
        std=np.array(std, np.float32),
    )
    # Copied: torch takes no array that cannot be written to.
    constants = {t.name: np.array(numpy_helper.to_array(t)) for t in model.graph.initializer}
    reading = _Reading(constants, last)
    try:
        operators = (normalise, *reading.operators(rest))
    except (KeyError, IndexError) as error:
        raise BrokenBundle(f"{path}: lacks {error} of one of its layers; {AGAIN}") from None
    size = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    outputs = [output.name for output in model.graph.output]
    makers = {turned.get(name) or own.get(name) or operators[-1].name: name for name in outputs}
    return Graph(
        name=model.graph.name,
        operators=operators,
        shapes=infer_shapes(operators, (3, size, size)),
        outputs=makers,
    )


def _give_own_names(nodes: Iterable[Any]) -> Mapping[str, str]:
    """Call each tensor as its node is called; return the new names of those that had others.

    These are the vectors that leave: the file has them under the names of its outputs.
    """
    own = {node.output[0]: node.name for node in nodes if node.name != node.output[0]}
    for node in nodes:
        node.input[:] = [own.get(name, name) for name in node.input]
        node.output[:] = [own.get(name, name) for name in node.output]
    return own


def _gives_out_a_map(node: Any) -> bool:
    """Tell whether a node turns a map to leave with its channels last."""
    return bool(node.op_type == "Transpose" and list(node.attribute[0].ints) == [0, 2, 3, 1])


class _Reading:
    """The walk over the nodes behind the normalisation."""

    def __init__(self, constants: Mapping[str, npt.NDArray[Any]], last: str) -> None:
        self.constants = constants
        self.last = last

    def operators(self, nodes: list[Any]) -> list[Operator]:
        """Return the operators of `nodes`, of which one or two make each."""
        made: list[Operator] = []
        while nodes:
            count = 2 if len(nodes) > 1 and _belongs(nodes[1], nodes[0]) else 1
            made.append(self._operator(nodes[0], nodes[1] if count == 2 else None))
            nodes = nodes[count:]
        return made

    def _operator(self, node: Any, end: Any | None) -> Operator:
        if node.op_type not in KINDS:
            raise KeyError(node.op_type)
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        return KINDS[node.op_type](self, node, end, attributes)

    def _name(self, node: Any, end: Any | None) -> str:
        """Return the name that the graph gave an operator; an older file says `logits` of one."""
        made = str(node.output[0])
        if end is not None:
            return made.removesuffix(LINEAR).removesuffix(MAP)
        return self.last if made == LOGITS else made

    def _activation(self, end: Any | None) -> str | None:
        return None if end is None else self._function(end)

    def _function(self, node: Any) -> str:
        if node.op_type == "Relu":
            return "relu"
        bounds = tuple(float(self.constants[name]) for name in node.input[1:])
        return next(str(key) for key, ends in ACTIVATION_RANGES.items() if ends == bounds)

    def convolution(self, node: Any, end: Any | None, attributes: Mapping[str, Any]) -> Convolution:
        """Conv, with its activation."""
        source, weight, bias = node.input
        return Convolution(
            name=weight.removesuffix(".weight"),
            input=source,
            weight=self.constants[weight],
            bias=self.constants[bias],
            stride=_pair(attributes["strides"]),
            pad=_pad(attributes["pads"]),
            groups=attributes["group"],
            dilation=attributes["dilations"][0],
            activation=self._activation(end),
        )

    def fully_connected(self, node: Any, end: Any | None, _: Mapping[str, Any]) -> FullyConnected:
        """Gemm, with its activation."""
        source, weight, bias = node.input
        return FullyConnected(
            name=weight.removesuffix(".weight"),
            input=source,
            weight=self.constants[weight],
            bias=self.constants[bias],
            activation=self._activation(end),
        )

    def pool(self, node: Any, end: Any | None, attributes: Mapping[str, Any]) -> Pool:
        """MaxPool or AveragePool."""
        return Pool(
            name=self._name(node, end),
            input=node.input[0],
            kind="max" if node.op_type == "MaxPool" else "average",
            kernel=_pair(attributes["kernel_shape"]),
            stride=_pair(attributes["strides"]),
            pad=_pad(attributes["pads"]),
        )

    def global_pool(self, node: Any, end: Any | None, _: Mapping[str, Any]) -> GlobalAveragePool:
        """GlobalAveragePool, to a row where a Flatten ends it."""
        return GlobalAveragePool(
            name=self._name(node, end), input=node.input[0], keep_map=end is None
        )

    def flatten(self, node: Any, end: Any | None, _: Mapping[str, Any]) -> Flatten:
        """A Flatten that ends nothing."""
        return Flatten(name=self._name(node, end), input=node.input[0])

    def activate(self, node: Any, end: Any | None, _: Mapping[str, Any]) -> Activate:
        """An activation that ends nothing."""
        functions = {"HardSwish": "hard_swish", "Sigmoid": "sigmoid"}
        function: Any = functions.get(node.op_type) or self._function(node)
        return Activate(name=self._name(node, end), input=node.input[0], function=function)

    def add(self, node: Any, end: Any | None, _: Mapping[str, Any]) -> Add:
        """Add, with its activation."""
        first, second = node.input
        return Add(
            name=self._name(node, end),
            inputs=(first, second),
            activation=self._activation(end),
        )

    def multiply(self, node: Any, end: Any | None, _: Mapping[str, Any]) -> Multiply:
        """Mul."""
        first, second = node.input
        return Multiply(name=self._name(node, end), inputs=(first, second))

    def concatenate(self, node: Any, end: Any | None, _: Mapping[str, Any]) -> Concatenate:
        """Concat along the channels."""
        return Concatenate(name=self._name(node, end), inputs=tuple(node.input))

    def select(self, node: Any, end: Any | None, _: Mapping[str, Any]) -> Select:
        """Gather of channels."""
        source, channels = node.input
        return Select(
            name=self._name(node, end),
            input=source,
            channels=tuple(self.constants[channels].tolist()),
        )


KINDS: Mapping[str, Callable[[_Reading, Any, Any | None, Mapping[str, Any]], Operator]] = {
    "Conv": _Reading.convolution,
    "Gemm": _Reading.fully_connected,
    "MaxPool": _Reading.pool,
    "AveragePool": _Reading.pool,
    "GlobalAveragePool": _Reading.global_pool,
    "Flatten": _Reading.flatten,
    "HardSwish": _Reading.activate,
    "Sigmoid": _Reading.activate,
    "Clip": _Reading.activate,
    "Relu": _Reading.activate,
    "Add": _Reading.add,
    "Mul": _Reading.multiply,
    "Concat": _Reading.concatenate,
    "Gather": _Reading.select,
}
"""What the writer writes, and who reads it."""


def _belongs(end: Any, node: Any) -> bool:
    """Tell whether two nodes are one operator: a bound behind it, or a pooled map as a row."""
    made = node.output[0]
    if list(end.input[:1]) != [made]:
        return False
    if node.op_type == "GlobalAveragePool":
        wanted, kinds = MAP, {"Flatten"}
    else:
        wanted, kinds = LINEAR, BOUNDS
    whole = made.removesuffix(wanted)
    return whole != made and end.op_type in kinds and end.output[0] in (whole, LOGITS)


def _pair(values: list[int]) -> tuple[int, int]:
    first, second = values
    return first, second


def _pad(values: list[int]) -> tuple[int, int, int, int]:
    """Return (top, bottom, left, right) from ONNX's order: beginnings, then ends."""
    top, left, bottom, right = values
    return top, bottom, left, right
