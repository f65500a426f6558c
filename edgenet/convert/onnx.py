"""The ONNX writer: float32, and INT8 as QuantizeLinear / DequantizeLinear pairs (QDQ).

The file takes the image as bytes in NHWC and holds the normalisation and the turn to NCHW. Opset 17
and IR version 8 are old enough for the ONNX Runtime of JetPack 5 and new enough for scales per
channel. The writer knows operators, not networks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgenet.convert.description import Description
from edgenet.graph import (
    ACTIVATION_RANGES,
    IMAGE,
    LOGITS,
    Affine,
    Convolution,
    FullyConnected,
    GlobalAveragePool,
    Graph,
    Normalise,
    Operator,
    QuantizedGraph,
    QuantizedWeights,
    Weighted,
)

OPSET = 17
IR_VERSION = 8


def write_float32(graph: Graph, path: Path, *, description: Description) -> None:
    """Write `graph` as a float32 ONNX file: `image` uint8 (1, H, W, 3) to `logits` (1, classes)."""
    path.write_bytes(encode(QuantizedGraph(graph=graph, tensors={}, layers={}), description))


def write_int8(quantized: QuantizedGraph, path: Path, *, description: Description) -> None:
    """Write the INT8 form as QDQ: bytes with the graph's own scales, zero points in uint8."""
    path.write_bytes(encode(quantized, description))


def encode(quantized: QuantizedGraph, description: Description) -> bytes:
    """Return the bytes of the ONNX file; with nothing in 8 bits it is the float32 form."""
    graph = quantized.graph
    builder = _Builder(quantized)
    for op in graph.operators:
        builder.add(op)
    channels, height, width = graph.shapes[IMAGE]
    classes = graph.shapes[graph.output][0]
    model = helper.make_model(
        helper.make_graph(
            builder.nodes,
            graph.name,
            [helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, [1, height, width, channels])],
            [helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, [1, classes])],
            builder.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="edgenet",
        producer_version=description.version,
    )
    helper.set_model_props(model, description.properties())
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


class _Builder:
    """Nodes and initializers in the making; a tensor in 8 bits is quantised once, where it is made.

    Operators read the float form of their input. For a tensor in 8 bits that is the output of its
    DequantizeLinear, which runtimes fuse into the integer kernel.
    """

    def __init__(self, quantized: QuantizedGraph) -> None:
        self.quantized = quantized
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def add(self, op: Operator) -> None:
        """Append one operator and, where its output travels as bytes, its Q / DQ pair."""
        affine = self.quantized.tensors.get(op.name)
        if isinstance(op, Normalise):
            self._normalise(op, affine)
            return
        output = self.float_form(op.name) if affine is None else f"{op.name}.float"
        match op:
            case Convolution():
                self._convolution(op, output)
            case GlobalAveragePool():
                self.node("GlobalAveragePool", [self.float_form(op.input)], f"{op.name}.map")
                self.node("Flatten", [f"{op.name}.map"], output, axis=1)
            case FullyConnected():
                inputs = [self.float_form(op.input), *self._weights(op)]
                self.node("Gemm", inputs, output, transB=1)
        if affine is not None:
            self._quantize(op.name, output, affine)

    def float_form(self, tensor: str) -> str:
        """Return the name under which `tensor` can be read as float32."""
        if tensor == self.quantized.graph.output:
            return LOGITS
        return f"{tensor}.dequantized" if tensor in self.quantized.tensors else tensor

    def node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> None:
        """Append one node named after its output."""
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))

    def constant(self, name: str, values: npt.NDArray[np.generic]) -> str:
        """Add an initializer and return its name."""
        self.initializers.append(numpy_helper.from_array(values, name))
        return name

    def _normalise(self, op: Normalise, affine: Affine | None) -> None:
        if affine is not None:  # the bytes themselves, read with the normalisation's own affine
            self.node("Transpose", [op.input], op.name, perm=[0, 3, 1, 2])
            self._dequantize(op.name, affine)
            return
        gain = self.constant(f"{op.name}.gain", (1 / op.std.astype(np.float64)).astype(np.float32))
        shift = (-op.mean.astype(np.float64) / op.std).astype(np.float32)
        self.node("Cast", [op.input], f"{op.name}.cast", to=TensorProto.FLOAT)
        self.node("Mul", [f"{op.name}.cast", gain], f"{op.name}.scaled")
        self.node(
            "Add",
            [f"{op.name}.scaled", self.constant(f"{op.name}.shift", shift)],
            f"{op.name}.nhwc",
        )
        self.node("Transpose", [f"{op.name}.nhwc"], op.name, perm=[0, 3, 1, 2])

    def _convolution(self, op: Convolution, output: str) -> None:
        # A Clip between an INT8 convolution and its QuantizeLinear keeps ONNX Runtime from fusing
        # them (21.6 ms instead of 4.6); the output's affine clips in its stead.
        clips = op.activation is not None and op.name not in self.quantized.layers
        top, bottom, left, right = op.pad
        self.node(
            "Conv",
            [self.float_form(op.input), *self._weights(op)],
            f"{op.name}.linear" if clips else output,
            strides=list(op.stride),
            pads=[top, left, bottom, right],
            kernel_shape=list(op.weight.shape[2:]),
            group=op.groups,
        )
        if clips:
            self._activate(op, output)

    def _activate(self, op: Convolution, output: str) -> None:
        low, high = ACTIVATION_RANGES[op.activation]
        if high is None:
            self.node("Relu", [f"{op.name}.linear"], output)
            return
        bounds = [
            self.constant(f"{op.name}.{side}", np.array(bound, np.float32))
            for side, bound in (("low", low), ("high", high))
        ]
        self.node("Clip", [f"{op.name}.linear", *bounds], output)

    def _weights(self, op: Weighted) -> list[str]:
        """Return the names of weight and bias as float32 tensors."""
        integers = self.quantized.layers.get(op.name)
        if integers is None:
            return [
                self.constant(f"{op.name}.weight", op.weight),
                self.constant(f"{op.name}.bias", op.bias),
            ]
        return self._integer_weights(op, integers)

    def _integer_weights(self, op: Weighted, integers: QuantizedWeights) -> list[str]:
        bias_scale = np.float32(self.quantized.tensors[op.input].scale) * integers.scale
        names = []
        for part, values, scale in (
            ("weight", integers.values, integers.scale),
            ("bias", integers.bias, bias_scale),
        ):
            name = f"{op.name}.{part}"
            inputs = [
                self.constant(f"{name}.quantized", values),
                self.constant(f"{name}.scale", scale),
                self.constant(f"{name}.zero_point", np.zeros(scale.shape, values.dtype)),
            ]
            self.node("DequantizeLinear", inputs, name, axis=0)
            names.append(name)
        return names

    def _quantize(self, tensor: str, source: str, affine: Affine) -> None:
        self.node("QuantizeLinear", [source, *self._affine(tensor, affine)], tensor)
        self._dequantize(tensor, affine)

    def _dequantize(self, tensor: str, affine: Affine) -> None:
        names = [f"{tensor}.scale", f"{tensor}.zero_point"]
        if not any(known.name == names[0] for known in self.initializers):
            self._affine(tensor, affine)
        self.node("DequantizeLinear", [tensor, *names], self.float_form(tensor))

    def _affine(self, tensor: str, affine: Affine) -> list[str]:
        return [
            self.constant(f"{tensor}.scale", np.array(affine.scale, np.float32)),
            self.constant(f"{tensor}.zero_point", np.array(affine.zero_point, np.uint8)),
        ]
