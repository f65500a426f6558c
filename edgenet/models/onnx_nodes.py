"""From an ONNX file to plain nodes: one image, fixed shapes, constants worked out.

What depends on nothing but weights and shapes is computed here (onnx's reference evaluator, one
node at a time), so that what is left are the operators that see the image. Knows ONNX and nothing
of edgenet's graph. Needs the `convert` extra.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgenet.errors import BadWeights, UnsupportedOperator, needs_extra

with needs_extra("convert"):
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import TensorProto, helper, numpy_helper
    from onnx.external_data_helper import load_external_data_for_model, uses_external_data
    from onnx.reference import ReferenceEvaluator

Array = npt.NDArray[Any]

OLDEST_OPSET = 9
"""BatchNormalization, Dropout and Upsample meant something else before."""

DROPPED_AT_THE_END = ("Softmax", "LogSoftmax")
UNFIT = (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, ValueError)
RANDOM = re.compile("Random.*|Bernoulli|Multinomial")


@dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """An operator of the file that sees the image."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    """Tensor names; an input that is left out is an empty string."""
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    @property
    def output(self) -> str:
        """Return the first tensor that it makes, for most kinds the only one."""
        return self.outputs[0]

    def refuse(self, reason: str) -> UnsupportedOperator:
        """Return the error that names this node."""
        return UnsupportedOperator(f"{self.kind} ({self.name or self.output}): {reason}")


@dataclass(frozen=True, kw_only=True)
class FileOutput:
    """One output of the file."""

    name: str
    values: str
    """The tensor of the file that stands for it: itself, or what a final softmax reads."""
    made: str
    """What a node makes: `values`, or its source through nodes that change nothing."""
    dropped: str | None
    """The kind of the final softmax, if there was one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """The file's nodes between one image and its outputs, in the order of execution."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    shapes: Mapping[str, tuple[int, ...]]
    """Of every tensor that sees the image, the batch of 1 included."""
    input_name: str
    input_dtype: Literal["float32", "uint8"]
    layout: Literal["NCHW", "NHWC"]
    resolution: int
    outputs: tuple[FileOutput, ...]

    def readers(self) -> Counter[str]:
        """Return how often each tensor is read, an output once more for leaving the network."""
        read = [name for node in self.nodes for name in node.inputs]
        return Counter([*read, *(output.made for output in self.outputs)])


def load_model(path: Path) -> tuple[Any, str]:
    """Return the checked ModelProto with all its weights, and the sha256 of what was read.

    The hash is the file's own, or, with external data, of the file and then of each data file in
    the order of their names. Raises `BadWeights` for a damaged or incomplete file.
    """
    try:
        content = path.read_bytes()
        model = onnx.load_model_from_string(content)
    except OSError as error:
        raise BadWeights(f"{path}: cannot be read ({error.strerror})") from error
    except DecodeError as error:
        raise BadWeights(f"{path}: is not an ONNX file, or is cut off") from error
    if not model.graph.node:
        raise BadWeights(f"{path}: is not an ONNX file, or holds no network")
    external = sorted(
        {
            entry.value
            for tensor in model.graph.initializer
            if uses_external_data(tensor)
            for entry in tensor.external_data
            if entry.key == "location"
        }
    )
    digest = hashlib.sha256(content)
    try:
        load_external_data_for_model(model, str(path.parent))
        for name in external:
            digest.update((path.parent / name).read_bytes())
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise BadWeights(
            f"{path}: its weights are in {', '.join(external)}, which is missing or damaged; "
            "keep both files in one folder, or export with external_data=False"
        ) from error
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:  # a name may be no UTF-8
        raise BadWeights(f"{path}: is not a valid ONNX model ({_first_line(error)})") from error
    return model, digest.hexdigest()


def read_network(model: Any, *, resolution: int | None, outputs: Sequence[str] = ()) -> Network:
    """Return the nodes of a ModelProto for one image of `resolution` (None: as the file says).

    They make `outputs`, or all that the file has. Raises `BadWeights` when inputs, outputs or
    shapes are not those of a network that takes one image, and `UnsupportedOperator` for an
    operator that ONNX itself does not define.
    """
    opset = _opset(model)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    graph = model.graph
    if graph.sparse_initializer:
        raise BadWeights("has sparse weights; export it with dense ones")
    image, layout, batch = _image_input(graph, resolution)
    names = _chosen(graph, outputs)
    steps = _Steps(opset, {t.name: _values(t) for t in graph.initializer}, batch)
    steps.types[image.name] = image.type
    for node in _live(graph.node, names):
        steps.take(node)
    found = tuple(_file_output(steps, name) for name in names)
    live = _live(steps.nodes, [output.made for output in found])
    if not live:
        raise BadWeights("holds no operator between its input and its output")
    sides = _shape(image.type)
    return Network(
        nodes=live,
        constants=steps.constants,
        shapes={name: _shape(kind) for name, kind in steps.types.items()},
        input_name=image.name,
        input_dtype="uint8" if _dtype(image.type) == TensorProto.UINT8 else "float32",
        layout=layout,
        resolution=sides[2],
        outputs=found,
    )


def _file_output(steps: _Steps, name: str) -> FileOutput:
    """Return an output of the file, a softmax that ends it left out."""
    made, values, dropped = steps.alias.get(name, name), name, None
    maker = next((node for node in steps.nodes if node.output == made), None)
    if maker is not None and maker.kind in DROPPED_AT_THE_END:
        made = values = maker.inputs[0]
        dropped = maker.kind
    if made not in steps.types:
        raise BadWeights(f"output {name!r} does not depend on the image")
    return FileOutput(name=name, values=values, made=made, dropped=dropped)


def _opset(model: Any) -> int:
    opset = next((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST_OPSET:
        raise BadWeights(
            f"is in ONNX opset {opset}, too old; export it again with opset {OLDEST_OPSET} "
            "or newer (17 is a good choice)"
        )
    return opset


def _image_input(graph: Any, resolution: int | None) -> tuple[Any, Literal["NCHW", "NHWC"], int]:
    """Return the input with its shape fixed to one image, its layout, and the file's batch."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [entry for entry in graph.input if entry.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(entry.name for entry in inputs) or "none"
        raise BadWeights(f"has {len(inputs)} inputs ({names}); edgenet takes one image")
    image = inputs[0]
    if _dtype(image.type) not in (TensorProto.FLOAT, TensorProto.UINT8):
        kinds = {number: kind for kind, number in TensorProto.DataType.items()}
        kind = kinds.get(_dtype(image.type), "of an unknown type")
        raise BadWeights(f"input {image.name!r} is {kind}; export it with float32 (or uint8) input")
    dims = image.type.tensor_type.shape.dim
    sizes = [int(d.dim_value) if d.HasField("dim_value") else None for d in dims]
    shape = "x".join("?" if size is None else str(size) for size in sizes)
    if len(sizes) != 4 or 3 not in (sizes[1], sizes[3]):
        raise BadWeights(
            f"input {image.name!r} is {shape}; edgenet takes batch x 3 x H x W or batch x H x W x 3"
        )
    channels_first = sizes[1] == 3 and not (sizes[3] == 3 and _turned_first(graph, image.name))
    sides = sizes[2:] if channels_first else sizes[1:3]
    fixed = {side for side in sides if side is not None}
    if not fixed and resolution is None:
        raise BadWeights(
            f"input {image.name!r} is {shape}, its height and width are open; "
            "give the side to convert it for, such as --resolution 224"
        )
    wanted = fixed | ({resolution} if resolution is not None else set())
    if len(wanted) != 1 or min(wanted) < 1:
        asked = "" if resolution is None else f" and {resolution} was asked for"
        raise BadWeights(
            f"input {image.name!r} is {shape}{asked}; edgenet takes square images, at the "
            "resolution that the file was exported for"
        )
    side = wanted.pop()
    fixed_image = onnx.ValueInfoProto()
    fixed_image.CopyFrom(image)
    shape_now = (1, 3, side, side) if channels_first else (1, side, side, 3)
    fixed_image.type.CopyFrom(helper.make_tensor_type_proto(_dtype(image.type), shape_now))
    return fixed_image, "NCHW" if channels_first else "NHWC", sizes[0] or 1


def _turned_first(graph: Any, name: str) -> bool:
    return any(node.op_type == "Transpose" and name in node.input for node in graph.node)


def _chosen(graph: Any, wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the outputs to take, in the file's order."""
    names = tuple(str(entry.name) for entry in graph.output)
    for name in wanted:
        if name not in names:
            raise BadWeights(f"has no output {name!r}; it has {', '.join(names)}")
    return tuple(name for name in names if not wanted or name in wanted)


class _Steps:
    """The walk through a file's nodes: what is constant by now, and the shape of what is not."""

    def __init__(self, opset: int, constants: dict[str, Array], batch: int) -> None:
        self.opset = opset
        self.constants = constants
        self.batch = batch
        self.types: dict[str, Any] = {}
        self.alias: dict[str, str] = {}
        self.nodes: list[Node] = []

    def take(self, proto: Any) -> None:
        """Work out one node: a constant, another name for its input, or a step of the network."""
        node = onnx.NodeProto()
        node.CopyFrom(proto)
        node.input[:] = [self.alias.get(name, name) for name in proto.input]
        if self._is_constant(node):
            self._evaluate(node)
        elif node.op_type == "Shape" and not node.attribute:
            shape = _shape(self.types[node.input[0]])
            self.constants[node.output[0]] = np.array(shape, np.int64)
        else:
            self._infer(node)
            if self._changes_nothing(node):
                self.alias[node.output[0]] = node.input[0]
            else:
                self.nodes.append(_plain(node))

    def _is_constant(self, node: Any) -> bool:
        held = all(not name or name in self.constants for name in node.input)
        within = any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute)
        return held and not within and not RANDOM.fullmatch(node.op_type)

    def _changes_nothing(self, node: Any) -> bool:
        if node.op_type in ("Identity", "Dropout"):
            training = node.input[2] if len(node.input) > 2 else ""
            if training and bool(self.constants.get(training, np.array(True))):
                raise _plain(node).refuse("is in training mode; export the network in eval mode")
            return True
        if node.op_type != "Cast" or _dtype(self.types[node.output[0]]) != TensorProto.FLOAT:
            return False
        return bool(_dtype(self.types[node.input[0]]) == TensorProto.FLOAT)

    def _evaluate(self, node: Any) -> None:
        inputs = [name for name in node.input if name]
        function = helper.make_function(
            "edgenet", "constant", inputs, list(node.output), [node], self._opsets()
        )
        try:
            values = ReferenceEvaluator(function).run(
                None, {name: self.constants[name] for name in inputs}, attributes={}
            )
        # Whatever a damaged constant makes of somebody else's evaluator, the node is to blame.
        except Exception as error:
            raise _plain(node).refuse(f"cannot be computed ({_first_line(error)})") from error
        self.constants.update(zip(node.output, map(np.asarray, values), strict=True))

    def _infer(self, node: Any) -> None:
        """Note the types of what `node` makes."""
        if node.domain not in ("", "ai.onnx"):
            raise _plain(node).refuse(f"is of {node.domain}; export with ONNX's own operators only")
        if node.op_type == "Reshape" and node.input[1] in self.constants:
            self._reshape_one_image(node)
        types, data = {}, {}
        for name in filter(None, node.input):
            values = self.constants.get(name)
            if values is None and name not in self.types:
                raise _plain(node).refuse(f"the shape of its input {name!r} cannot be worked out")
            if values is None:
                types[name] = self.types[name]
                continue
            kind = helper.np_dtype_to_tensor_dtype(values.dtype)
            types[name] = helper.make_tensor_type_proto(kind, values.shape)
            if values.ndim < 2:  # shapes, axes, pads: what an output's shape can depend on
                data[name] = numpy_helper.from_array(values, name)
        try:
            schema = onnx.defs.get_schema(node.op_type, self.opset, "")
            made = onnx.shape_inference.infer_node_outputs(
                schema, node, types, data, opset_imports=self._opsets()
            )
        except onnx.defs.SchemaError as error:
            raise _plain(node).refuse(f"is not an operator of opset {self.opset}") from error
        except UNFIT as error:
            raise BadWeights(
                f"{node.op_type} ({node.name or node.output[0]}) does not fit what it reads "
                f"({_first_line(error)})"
            ) from error
        self.types.update(made)

    def _reshape_one_image(self, node: Any) -> None:
        """Make the batch that the file was exported for, written into a shape, a batch of 1."""
        wanted = self.constants[node.input[1]]
        if self.batch > 1 and wanted.size > 1 and wanted[0] == self.batch:
            name = f"{node.output[0]}/one_image"
            self.constants[name] = np.concatenate([[1], wanted[1:]]).astype(np.int64)
            node.input[1] = name

    def _opsets(self) -> list[Any]:
        return [helper.make_opsetid("", self.opset)]


def _plain(node: Any) -> Node:
    return Node(
        kind=node.op_type,
        name=node.name if isinstance(node.name, str) else "",  # protobuf lets bytes through
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        attributes={a.name: helper.get_attribute_value(a) for a in node.attribute},
    )


def _live(nodes: Iterable[Any], outputs: Iterable[str]) -> tuple[Any, ...]:
    """Return the nodes (NodeProto or `Node`) that `outputs` depend on, in their order."""
    needed, live = set(outputs), []
    for node in reversed(list(nodes)):
        made, read = (
            (node.outputs, node.inputs)
            if isinstance(node, Node)
            else (node.output, [*node.input, *_captured(node)])
        )
        if needed.intersection(made):
            live.append(node)
            needed.update(read)
    needed.discard("")
    return tuple(reversed(live))


def _captured(node: Any) -> list[str]:
    """Return what the branches of an If or Loop read from outside (and a little more)."""
    branches = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    return [name for branch in branches for inner in branch.node for name in inner.input]


def _values(tensor: Any) -> Array:
    """Return a tensor of weights."""
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except (KeyError, TypeError, ValueError) as error:
        raise BadWeights(f"weights {tensor.name!r} are damaged ({_first_line(error)})") from error


def _dtype(kind: Any) -> int:
    return int(kind.tensor_type.elem_type)


def _shape(kind: Any) -> tuple[int, ...]:
    """Return a type's shape; a dimension that is not known is -1."""
    dims = kind.tensor_type.shape.dim
    return tuple(int(d.dim_value) if d.HasField("dim_value") else -1 for d in dims)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
