"""Short names for operators, from what exporters call nodes and weights.

'/features/features.0/0/Conv' becomes 'features.0.0', 'StatefulPartitionedCall/net/conv1/Conv2D__7'
becomes 'net.conv1'. A function of the file alone: the same file gives the same names.
"""

from __future__ import annotations

import re

from edgenet.models.onnx_nodes import Node

BETWEEN_MODULES = {"Add", "Concat", "Div", "Mul", "Sub", "Sum"}
"""Kinds that exporters name after the module around them: here the kind says what it is."""

NOISE = {"PartitionedCall", "StatefulPartitionedCall"}
NUMBERED = re.compile(r"__\d+$")
FROM_TORCH_EXPORT = re.compile(r"^node_(?=\w)")
MEANINGLESS = re.compile(r"^(n\d+(_\d+)?|)$")
OPERATION = re.compile(
    r"(conv2d|depthwise|separable_conv2d|matmul|biasadd|fusedbatchnorm\w*|relu6?|avgpool|maxpool)"
    r"(_\d+)?$",
    re.IGNORECASE,
)
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")

NO_CLASSES = re.compile(
    "embed|descriptor|keypoint|landmark|^(features?|box(es)?|pose|depth)$", re.IGNORECASE
)
"""What is found in the name of a vector whose values stand for no classes."""


class Names:
    """Names handed out once each."""

    def __init__(self, reserved: tuple[str, ...]) -> None:
        self.taken = set(reserved)

    def of_layer(self, node: Node) -> str:
        """Return a name for a node with weights: the module that the weights belong to."""
        module, dot, last = node.inputs[1].rpartition(".")
        return self.unique(module if dot and last == "weight" else _tidy(node))

    def of_step(self, node: Node) -> str:
        """Return a name for a node without weights."""
        return self.unique(_tidy(node))

    def of_output(self, output: str) -> str:
        """Return what artefacts call an output of the file: without dots, as tensors inside are."""
        return self.unique(NOT_IN_NAMES.sub("_", output).replace(".", "_").strip("_-") or "output")

    def unique(self, wanted: str) -> str:
        """Return `wanted`, with a number behind it if it is taken."""
        wanted = NOT_IN_NAMES.sub("_", wanted).strip("._") or "operator"
        name, count = wanted, 1
        while name in self.taken:
            count += 1
            name = f"{wanted}_{count}"
        self.taken.add(name)
        return name


def _tidy(node: Node) -> str:
    """Return a node's path of modules with dots, without repetitions."""
    kind = node.kind.lower()
    if MEANINGLESS.match(node.name):
        return kind
    parts = [part for part in re.split("[/:;]", node.name) if part and part not in NOISE]
    if not parts:
        return kind
    parts[-1] = FROM_TORCH_EXPORT.sub("", NUMBERED.sub("", parts[-1]))
    same = re.fullmatch(rf"{re.escape(kind)}(_\d+)?", parts[-1].lower())
    if len(parts) > 1 and (same or OPERATION.fullmatch(parts[-1])):
        last = parts.pop().lower()
        parts += [last] if node.kind in BETWEEN_MODULES else []
    elif same:
        parts[-1] = parts[-1].lower()
    short: list[str] = []
    for part in parts:
        # torch writes a module's path from the top below each of its parents.
        if short and part.startswith(f"{short[-1]}."):
            short.pop()
        short.append(part)
    return ".".join(short)
