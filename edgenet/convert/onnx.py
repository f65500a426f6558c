"""The ONNX writer: float32, and INT8 as QuantizeLinear / DequantizeLinear pairs (QDQ).

The file takes the image as bytes in NHWC and holds the normalisation and the turn to NCHW; maps
that leave it are turned back. Opset 17 and IR version 8 are old enough for the ONNX Runtime of
JetPack 5 and new enough for scales per channel. The writer knows operators, not networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgenet.bundle import LayerWork, Output
from edgenet.convert import int8_rules, tensorrt_rules
from edgenet.convert.description import Description
from edgenet.convert.golden_layers import tensors_of
from edgenet.graph import (
    ACTIVATION_RANGES,
    IMAGE,
    KEEPS_BYTES,
    Activate,
    Add,
    Affine,
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
    QuantizedGraph,
    QuantizedWeights,
    Select,
    Weighted,
    inputs_of,
)
from edgenet.quantize import simulate

OPSET = 17
IR_VERSION = 8


def write_float32(graph: Graph, path: Path, *, description: Description) -> None:
    """Write `graph` as a float32 ONNX file, from `image` uint8 (1, H, W, 3) to the outputs."""
    path.write_bytes(encode(QuantizedGraph(graph=graph, tensors={}, layers={}), description))


def write_int8(quantized: QuantizedGraph, path: Path, *, description: Description) -> None:
    """Write the INT8 form as QDQ: bytes with the graph's own scales, zero points in uint8.

    An int8 layer whose output is no 8-bit tensor reads int8 and makes float32. Raises
    `ConversionFailed` for a form that breaks one of `int8_rules`.
    """
    path.write_bytes(encode(quantized, description))


def encode(
    quantized: QuantizedGraph, description: Description, *, bytes_in_float: bool = False
) -> bytes:
    """Return the bytes of the ONNX file; with nothing in 8 bits it is the float32 form.

    With `bytes_in_float` the image's bytes take the way through float that OpenVINO looks for.

    The numbers of a tensor in 8 bits are the initializers `<tensor>.scale` and
    `<tensor>.zero_point`, those of a layer `<layer>.weight.quantized`, `<layer>.weight.scale` and
    the same of its bias.
    """
    int8_rules.check(quantized)
    graph = quantized.graph
    builder = _Builder(quantized, bytes_in_float=bytes_in_float)
    for op in graph.operators:
        builder.add(op)
    builder.turn_maps()
    channels, height, width = graph.shapes[IMAGE]
    model = helper.make_model(
        helper.make_graph(
            builder.nodes,
            graph.name,
            [helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, [1, height, width, channels])],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
                for name, shape in graph.output_shapes.items()
            ],
            builder.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="edgenet",
        producer_version=description.version,
    )
    helper.set_model_props(model, description.properties())
    onnx.checker.check_model(model, full_check=True)
    if quantized.symmetric:
        tensorrt_rules.require(model)
    return bytes(model.SerializeToString(deterministic=True))


def layer_tensors(
    path: Path, layers: Sequence[LayerWork], outputs: Sequence[Output]
) -> dict[str, str]:
    """Return the tensor that each layer makes, its bytes where it has any."""
    there = frozenset(name for node in onnx.load(path).graph.node for name in node.output)
    return tensors_of(layers, outputs, there, lambda layer: (layer,))


class _Builder:
    """Nodes and initializers in the making; a tensor in 8 bits is quantised once, where it is made.

    Operators read the float form of their input. For a tensor in 8 bits that is the output of its
    DequantizeLinear, which runtimes fuse into the integer kernel.
    """

    def __init__(self, quantized: QuantizedGraph, *, bytes_in_float: bool) -> None:
        self.quantized = quantized
        self.bytes_in_float = bytes_in_float
        graph = quantized.graph
        self.vectors = {t: name for t, name in graph.outputs.items() if len(graph.shapes[t]) == 1}
        """Outputs that leave as they are made, and what they are called."""
        self.makers = {name: t for t, name in self.vectors.items() if t not in quantized.tensors}
        """Nodes with such a name as output, and the operator that they are."""
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def add(self, op: Operator) -> None:
        """Append one operator and, where its output travels as bytes, its Q / DQ pair."""
        affine = self.quantized.tensors.get(op.name)
        if isinstance(op, Normalise):
            self._normalise(op, affine)
            return
        output = self.float_form(op.name) if affine is None else f"{op.name}.float"
        inputs = [self.float_form(name) for name in inputs_of(op)]
        match op:
            case Convolution():
                self._convolution(op, inputs, output)
            case FullyConnected():
                inputs += self._weights(op)
                self._activated(op, op.activation, "Gemm", inputs, output, transB=1)
            case Pool():
                self._pool(op, inputs, output)
            case GlobalAveragePool(keep_map=True):
                self.node("GlobalAveragePool", inputs, output)
            case GlobalAveragePool():
                self._pool_to_row(op, inputs, output)
            case Flatten():
                self.node("Flatten", inputs, output, axis=1)
            case Activate(function="hard_swish") if self.quantized.symmetric:
                # TensorRT's parser does not know HardSwish before version 10.
                gate = f"{op.name}.gate"
                self.node("HardSigmoid", inputs, gate, alpha=1 / 6, beta=0.5)
                self.node("Mul", [*inputs, gate], output)
            case Activate(function="hard_swish"):
                self.node("HardSwish", inputs, output)
            case Activate(function="sigmoid"):
                self.node("Sigmoid", inputs, output)
            case Activate():
                output = self._clip(op, inputs[0], output)
            case Add():
                self._activated(op, op.activation, "Add", inputs, output)
            case Multiply():
                self.node("Mul", inputs, output)
            case Concatenate():
                self.node("Concat", inputs, output, axis=1)
            case Select():
                channels = self.constant(f"{op.name}.channels", np.array(op.channels, np.int64))
                self.node("Gather", [*inputs, channels], output, axis=1)
        if affine is not None:
            self._quantize(op.name, output, affine)

    def turn_maps(self) -> None:
        """Append what gives out maps as they leave every artefact, channels last."""
        for tensor, name in self.quantized.graph.outputs.items():
            if tensor not in self.vectors:
                self.node("Transpose", [self.float_form(tensor)], name, perm=[0, 2, 3, 1])

    def float_form(self, tensor: str) -> str:
        """Return the name under which `tensor` can be read as float32."""
        if tensor in self.vectors:
            return self.vectors[tensor]
        return f"{tensor}.dequantized" if tensor in self.quantized.tensors else tensor

    def node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> None:
        """Append one node named after its output; what makes an output, after the operator."""
        name = self.makers.get(output, output)
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name, **attributes))

    def constant(self, name: str, values: npt.NDArray[np.generic]) -> str:
        """Add an initializer and return its name."""
        self.initializers.append(numpy_helper.from_array(values, name))
        return name

    def _normalise(self, op: Normalise, affine: Affine | None) -> None:
        if affine is None:
            self._normalise_in_float(op, op.mean, op.std, op.name)
        elif self.quantized.symmetric:
            self._normalise_in_float(op, op.mean, op.std, f"{op.name}.float")
            self._quantize(op.name, f"{op.name}.float", affine)
        elif self.bytes_in_float:
            self._bytes_in_float(op, affine)
        else:  # the bytes themselves, read in their own affine
            self.node("Transpose", [op.input], op.name, perm=[0, 3, 1, 2])
            self._dequantize(op.name, self._affine(op.name, affine))

    def _bytes_in_float(self, op: Normalise, affine: Affine) -> None:
        """Append what the bytes stand for, made in float and, for int8 readers, bytes again."""
        mean = np.array([affine.zero_point], np.float32)
        std = np.array([1 / affine.scale], np.float32)
        readers = [r for r in self.quantized.graph.operators if op.name in inputs_of(r)]
        if any(isinstance(r, Weighted) and r.name in self.quantized.layers for r in readers):
            if np.frexp(std)[0] == 0.5:
                # OpenVINO sees that a gain and a step cancel that are powers of two, drops both and
                # computes the layer in float32. The next float rounds to the same bytes.
                std = np.nextafter(std, np.float32(0))
            self._normalise_in_float(op, mean, std, f"{op.name}.float")
            self._quantize(op.name, f"{op.name}.float", affine)
        else:
            self._normalise_in_float(op, mean, std, self.float_form(op.name), bounded=True)

    def _normalise_in_float(
        self,
        op: Normalise,
        mean: Float32Array,
        std: Float32Array,
        output: str,
        *,
        bounded: bool = False,
    ) -> None:
        # Turned first and with one value a plane: broadcasting along channels that lie innermost
        # takes ONNX Runtime 1.4 ms, a fifth of MobileNet V1.
        gain = (1 / std.astype(np.float64)).astype(np.float32)
        pixels = f"{op.name}.cast"
        self.node("Cast", [op.input], pixels, to=TensorProto.FLOAT)
        if bounded:
            # Changes no value. Without it OpenVINO takes what follows for a dequantisation, turns
            # the bytes first and then the floats back: 0.13 ms, 4 % of MobileNet V1.
            pixels = f"{op.name}.bounded"
            low = self.constant(f"{op.name}.darkest", np.array(0, np.float32))
            high = self.constant(f"{op.name}.brightest", np.array(255, np.float32))
            self.node("Clip", [f"{op.name}.cast", low, high], pixels)
        self.node("Transpose", [pixels], f"{op.name}.planes", perm=[0, 3, 1, 2])
        middle = self.constant(f"{op.name}.mean", _by_plane(mean))
        self.node("Sub", [f"{op.name}.planes", middle], f"{op.name}.centred")
        scale = self.constant(f"{op.name}.gain", _by_plane(gain))
        self.node("Mul", [f"{op.name}.centred", scale], output)

    def _convolution(self, op: Convolution, inputs: list[str], output: str) -> None:
        self._activated(
            op,
            op.activation,
            "Conv",
            [*inputs, *self._weights(op)],
            output,
            strides=list(op.stride),
            pads=_pads(op.pad),
            kernel_shape=list(op.weight.shape[2:]),
            dilations=[op.dilation, op.dilation],
            group=op.groups,
        )

    def _pool(self, op: Pool, inputs: list[str], output: str) -> None:
        self.node(
            {"max": "MaxPool", "average": "AveragePool"}[op.kind],
            inputs,
            output,
            kernel_shape=list(op.kernel),
            strides=list(op.stride),
            pads=_pads(op.pad),
        )

    def _pool_to_row(self, op: GlobalAveragePool, inputs: list[str], output: str) -> None:
        """Append the mean of each channel as a row; in int8 both steps have a pair of their own.

        Without the first, ONNX Runtime turns the whole map to float and averages that.
        """
        means = f"{op.name}.map"
        if not self.quantized.is_integer(op):
            self.node("GlobalAveragePool", inputs, means)
            self.node("Flatten", [means], output, axis=1)
            return
        names = [f"{op.name}.scale", f"{op.name}.zero_point"]  # `add` defines them
        self.node("GlobalAveragePool", inputs, f"{means}.float")
        self.node("QuantizeLinear", [f"{means}.float", *names], means)
        self.node("DequantizeLinear", [means, *names], f"{means}.dequantized")
        self.node("Flatten", [f"{means}.dequantized"], output, axis=1)

    def _activated(
        self,
        op: Operator,
        activation: str | None,
        kind: str,
        inputs: list[str],
        output: str,
        **attributes: object,
    ) -> None:
        """Append a node and what keeps it what it is: a guard, an activation.

        A Clip between an INT8 convolution and its QuantizeLinear keeps ONNX Runtime from fusing
        them (21.6 ms instead of 4.6); the output's affine clips in its stead.
        """
        ends: list[Callable[[str, str], None]] = []
        if self._float_between_bytes(op):  # an identity
            ends.append(lambda source, made: self.node("LeakyRelu", [source], made, alpha=1.0))
        if activation is not None and not self._affine_clips(op, activation):
            ends.append(lambda source, made: self._bound(op.name, activation, source, made))
        made = [f"{op.name}.{step}" for step in ("linear", "guarded")[: len(ends)]] + [output]
        self.node(kind, inputs, made[0], **attributes)
        for end, source, target in zip(ends, made, made[1:], strict=False):
            end(source, target)

    def _float_between_bytes(self, op: Operator) -> bool:
        """Tell whether `op` has float weights but Q and DQ around it, as ONNX Runtime finds them.

        Its WeightBiasQuantization takes that for a mistake and quantises the weights, with one
        scale for all channels, unless it finds another node in between; a LeakyRelu it fuses into
        the layer. It moves Q and DQ past operators that keep bytes.
        """
        if not isinstance(op, Weighted) or op.name in self.quantized.layers:
            return False
        readers = [r for r in self.quantized.graph.operators if op.name in inputs_of(r)]
        to_bytes = op.name in self.quantized.tensors or any(
            isinstance(reader, KEEPS_BYTES) for reader in readers
        )
        return to_bytes and self._from_bytes(op.input)

    def _from_bytes(self, tensor: str) -> bool:
        if tensor in self.quantized.tensors:
            return True
        (maker,) = (op for op in self.quantized.graph.operators if op.name == tensor)
        return isinstance(maker, KEEPS_BYTES) and all(map(self._from_bytes, inputs_of(maker)))

    def _clip(self, op: Activate, source: str, output: str) -> str:
        """Append relu, relu6 or unit; return its output, or its input where the affine clips."""
        if self._affine_clips(op, op.function):
            return source
        self._bound(op.name, op.function, source, output)
        return output

    def _affine_clips(self, op: Operator, activation: str) -> bool:
        """Tell whether the 8 bits of what `op` makes end where its activation does."""
        affine = self.quantized.tensors.get(op.name)
        return affine is not None and affine.clips_as(activation)

    def _bound(self, name: str, activation: str, source: str, output: str) -> None:
        low, high = ACTIVATION_RANGES[activation]
        if high is None:
            self.node("Relu", [source], output)
            return
        bounds = [
            self.constant(f"{name}.{side}", np.array(bound, np.float32))
            for side, bound in (("low", low), ("high", high))
        ]
        self.node("Clip", [source, *bounds], output)

    def _weights(self, op: Weighted) -> list[str]:
        """Return the names of weight and bias as float32 tensors."""
        integers = self.quantized.layers.get(op.name)
        # OpenVINO has convolutions of bytes that give out float, and takes them only like this;
        # ONNX Runtime has none, and is faster with weights that are floats to begin with.
        in_float = self.quantized.gives_sums(op) and not self.bytes_in_float
        if integers is None or in_float:
            op = simulate.real_weights(self.quantized, op)
            return [
                self.constant(f"{op.name}.weight", op.weight),
                self.constant(f"{op.name}.bias", op.bias),
            ]
        if self.quantized.symmetric:
            return self._tensorrt_weights(op, integers)
        return self._integer_weights(op, integers)

    def _tensorrt_weights(self, op: Weighted, integers: QuantizedWeights) -> list[str]:
        """Return weights as floats with a Q / DQ pair and a bias in float, as TensorRT 8 to 11 ask.

        The floats are the integers times their scale, so Q gives the integers back.
        """
        real = simulate.dequantized(op, integers, self.quantized.tensors[op.input])
        name = f"{op.name}.weight"
        pair = [
            self.constant(f"{name}.scale", integers.scale),
            self.constant(f"{name}.zero_point", np.zeros(integers.scale.shape, np.int8)),
        ]
        self.constant(f"{name}.float", real.weight)
        self.node("QuantizeLinear", [f"{name}.float", *pair], f"{name}.quantized", axis=0)
        self.node("DequantizeLinear", [f"{name}.quantized", *pair], name, axis=0)
        return [name, self.constant(f"{op.name}.bias", real.bias)]

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
        names = self._affine(tensor, affine)
        self.node("QuantizeLinear", [source, *names], tensor)
        self._dequantize(tensor, names)

    def _dequantize(self, tensor: str, affine: list[str]) -> None:
        self.node("DequantizeLinear", [tensor, *affine], self.float_form(tensor))

    def _affine(self, tensor: str, affine: Affine) -> list[str]:
        return [
            self.constant(f"{tensor}.scale", np.array(affine.scale, np.float32)),
            self.constant(
                f"{tensor}.zero_point",
                np.array(affine.zero_point - 128, np.int8)
                if self.quantized.symmetric
                else np.array(affine.zero_point, np.uint8),
            ),
        ]


def _by_plane(values: Float32Array) -> Float32Array:
    """Return (C,) as a scalar if one value stands for all channels, else as (C, 1, 1)."""
    return values[0] if (values == values[0]).all() else values[:, None, None]


def _pads(pad: tuple[int, int, int, int]) -> list[int]:
    """Return (top, bottom, left, right) in ONNX's order: beginnings, then ends."""
    top, bottom, left, right = pad
    return [top, left, bottom, right]
