"""The TFLite file of a network: float32, float16 weights, or INT8 as a `QuantizedGraph` says.

Written with the schema that ai-edge-litert ships; no TensorFlow. A `Graph` is written as a
`QuantizedGraph` in which nothing is quantised, so there is one way through this module. The input
is `image`, uint8 (1, H, W, 3) RGB, the output `logits`, float32 (1, classes), under the signature
`serving_default`; (C, H, W) of the graph is (1, H, W, C) here, (C,) is (1, C). Operators carry the
lowest version that does what is asked of them, so that runtimes back to tflite-runtime 2.14 load
the files. To add an operator of the graph: one function beside `_convolution`, one case in `_add`.

Knows nothing of networks, calibration and bundles.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as tfl

from edgenet.convert import tflite_metadata
from edgenet.convert.description import Description
from edgenet.errors import ConversionFailed
from edgenet.graph import (
    ACTIVATION_RANGES,
    IMAGE,
    LOGITS,
    Affine,
    Convolution,
    Float32Array,
    FullyConnected,
    GlobalAveragePool,
    Graph,
    Normalise,
    Operator,
    QuantizedGraph,
    Weighted,
)

FILE_IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3
SIGNATURE = "serving_default"
EDGENET_METADATA = "EDGENET"
"""The entry of `Model.metadata` with `Description.properties()` as UTF-8 JSON."""

UINT8, INT8, INT32 = tfl.TensorType.UINT8, tfl.TensorType.INT8, tfl.TensorType.INT32
FLOAT16, FLOAT32 = tfl.TensorType.FLOAT16, tfl.TensorType.FLOAT32

TYPES = {"int8": INT8, "int32": INT32, "float16": FLOAT16, "float32": FLOAT32}
"""Tensor type of a constant by the name of its numpy type."""
TYPE_NAMES = {INT8: "int8", FLOAT32: "float32"}

FUSED = {
    None: tfl.ActivationFunctionType.NONE,
    "relu": tfl.ActivationFunctionType.RELU,
    "relu6": tfl.ActivationFunctionType.RELU6,
}

VERSIONS = {
    tfl.BuiltinOperator.CONV_2D: {INT8: 3},
    tfl.BuiltinOperator.DEPTHWISE_CONV_2D: {INT8: 3},
    tfl.BuiltinOperator.FULLY_CONNECTED: {INT8: 4},
    tfl.BuiltinOperator.MEAN: {INT8: 2},
    tfl.BuiltinOperator.PAD: {INT8: 2},
    tfl.BuiltinOperator.DEQUANTIZE: {INT8: 2, FLOAT16: 3},
}
"""Lowest operator version by the type of the first input, where it is not 1.

From TensorFlow's `lite/tools/versioning/op_version.cc`.
"""

BUFFER_ALIGNMENT = 16
"""Bytes; the schema asks for it and kernels may rely on it."""


def write_float32(graph: Graph, path: Path, *, description: Description) -> None:
    """Write `graph` to `path` in float32; the bytes depend on the arguments alone.

    Raises `ConversionFailed` for a network that TFLite cannot hold.
    """
    path.write_bytes(_bytes(_nothing_quantized(graph), np.dtype(np.float32), description))


def write_float16(graph: Graph, path: Path, *, description: Description) -> None:
    """Write `graph` to `path` with float16 weights that compute, like the biases, in float32.

    Raises `ConversionFailed` for a network that TFLite cannot hold and for weights beyond float16.
    """
    path.write_bytes(_bytes(_nothing_quantized(graph), np.dtype(np.float16), description))


def write_int8(quantized: QuantizedGraph, path: Path, *, description: Description) -> None:
    """Write `quantized` to `path`: int8 where it says so, float32 elsewhere.

    Raises `ConversionFailed` for a network that TFLite cannot hold, for an int8 layer between
    tensors that are not 8-bit and for one whose output goes beyond its activation.
    """
    for op in quantized.graph.weighted():
        if op.name in quantized.layers:
            _check_int8(op, quantized)
    path.write_bytes(_bytes(quantized, np.dtype(np.float32), description))


def _nothing_quantized(graph: Graph) -> QuantizedGraph:
    return QuantizedGraph(graph=graph, tensors={}, layers={})


def _check_int8(op: Weighted, quantized: QuantizedGraph) -> None:
    """Raise `ConversionFailed` for an int8 layer that TFLite would not compute as meant."""
    for tensor in (op.input, op.name):
        if tensor not in quantized.tensors:
            raise ConversionFailed(
                f"{op.name} computes in int8 but {tensor} is not an 8-bit tensor: TFLite needs "
                "8 bits on both sides; quantise the tensor or leave the layer in float"
            )
    if isinstance(op, FullyConnected):
        return
    low, high = ACTIVATION_RANGES[op.activation]
    affine = quantized.tensors[op.name]
    # In bytes: the activation's own bounds must be the first and the last byte, or outside.
    below = low is not None and round(low / affine.scale) + affine.zero_point > 0
    above = high is not None and round(high / affine.scale) + affine.zero_point < 255
    if below or above:
        first, last = (affine.scale * (byte - affine.zero_point) for byte in (0, 255))
        raise ConversionFailed(
            f"{op.name} ends in {op.activation} but its 8-bit output goes from {first:g} to "
            f"{last:g}; calibrate the range after the activation"
        )


@dataclass(frozen=True)
class _Buffer:
    """Constant data of a file, packed in place of the schema's own `BufferT`."""

    data: bytes

    def Pack(self, builder: flatbuffers.Builder) -> int:
        """Write the buffer, aligned as the schema asks (the generated code does not)."""
        if not self.data:
            tfl.BufferStart(builder)
            return int(tfl.BufferEnd(builder))
        builder.Prep(BUFFER_ALIGNMENT, len(self.data))
        vector = builder.CreateByteVector(self.data)
        tfl.BufferStart(builder)
        tfl.BufferAddData(builder, vector)
        return int(tfl.BufferEnd(builder))


class _File:
    """A TFLite model in the making: operators are added in the order of execution."""

    def __init__(self, quantized: QuantizedGraph, weight_dtype: np.dtype[Any]) -> None:
        self.quantized = quantized
        self.shapes = quantized.graph.shapes
        self.weight_dtype = weight_dtype
        """How weights that compute in float are stored: float32 or float16."""
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: dict[tuple[int, int], int] = {}
        """Number of each (operator, version) in the file's table of operators."""
        self.buffers = [_Buffer(b"")]
        """Number 0 stands for tensors without data."""
        self.forms: dict[str, dict[int, int]] = {}
        """The tensors that hold a tensor of the graph, by their type; the original first."""

    def add_buffer(self, data: bytes) -> int:
        """Add constant data and return its number."""
        self.buffers.append(_Buffer(data))
        return len(self.buffers) - 1

    def add_tensor(
        self, name: str, tensor_type: int, shape: tuple[int, ...], quantization: Any = None
    ) -> int:
        """Add a tensor without data and return its number."""
        self.tensors.append(
            tfl.TensorT(
                name=name,
                type=tensor_type,
                shape=np.array(shape, np.int32),
                quantization=quantization,
                hasRank=True,
            )
        )
        return len(self.tensors) - 1

    def add_constant(self, name: str, values: npt.NDArray[Any], quantization: Any = None) -> int:
        """Add a tensor with data and return its number."""
        number = self.add_tensor(name, TYPES[values.dtype.name], values.shape, quantization)
        self.tensors[number].buffer = self.add_buffer(values.tobytes())
        return number

    def add_operator(self, code: int, inputs: list[int], output: int, options: Any) -> None:
        """Add an operator of the lowest version that takes its inputs."""
        version = VERSIONS.get(code, {}).get(self.tensors[inputs[0]].type, 1)
        number = self.codes.setdefault((code, version), len(self.codes))
        self.operators.append(
            tfl.OperatorT(
                opcodeIndex=number,
                inputs=np.array(inputs, np.int32),
                outputs=np.array([output], np.int32),
                # The schema names the members of this union after the options' classes.
                builtinOptionsType=getattr(
                    tfl.BuiltinOptions, type(options).__name__.removesuffix("T")
                ),
                builtinOptions=options,
            )
        )

    def add_output(self, name: str, tensor_type: int) -> int:
        """Add the tensor that holds `name` of the graph as float32 or int8; return its number."""
        affine = None if tensor_type == FLOAT32 else self.quantized.tensors[name]
        number = self.add_tensor(
            f"{name}/{TYPE_NAMES[tensor_type]}",
            tensor_type,
            _shape(self.shapes[name]),
            _per_tensor(affine, tensor_type),
        )
        self.forms.setdefault(name, {})[tensor_type] = number
        return number

    def tensor(self, name: str, tensor_type: int) -> int:
        """Return the number of `name` of the graph as float32 or int8, converted once."""
        forms = self.forms[name]
        if tensor_type not in forms:
            source = next(iter(forms.values()))
            target = self.add_output(name, tensor_type)
            if tensor_type == INT8:
                self.add_operator(
                    tfl.BuiltinOperator.QUANTIZE, [source], target, tfl.QuantizeOptionsT()
                )
            else:
                self.add_dequantize(source, target)
        return forms[tensor_type]

    def add_dequantize(self, source: int, target: int) -> None:
        """Add the operator from an 8-bit or float16 tensor to a float32 one."""
        self.add_operator(
            tfl.BuiltinOperator.DEQUANTIZE, [source], target, tfl.DequantizeOptionsT()
        )

    def keep_8_bits_only(self, name: str) -> None:
        """Let every consumer of `name` see its 8-bit value, also where it was made in float."""
        if FLOAT32 in self.forms[name]:
            self.forms[name] = {INT8: self.tensor(name, INT8)}

    def add_weights(self, op: Weighted, axes: tuple[int, ...], channel_axis: int) -> list[int]:
        """Add weight and bias of `op` in the type that it computes in; return their numbers.

        `axes` brings the graph's layout into TFLite's, which has the output channels on
        `channel_axis`.
        """
        layer = self.quantized.layers.get(op.name)
        if layer is not None:
            bias_scale = np.float32(self.quantized.tensors[op.input].scale) * layer.scale
            return [
                self.add_constant(
                    f"{op.name}/weight",
                    layer.values.transpose(axes),
                    _per_channel(layer.scale, channel_axis),
                ),
                self.add_constant(f"{op.name}/bias", layer.bias, _per_channel(bias_scale, 0)),
            ]
        weight = self.add_float_weight(op.name, op.weight.transpose(axes))
        return [weight, self.add_constant(f"{op.name}/bias", op.bias)]

    def add_float_weight(self, name: str, values: Float32Array) -> int:
        """Add a weight as it is to be stored; return the number of its float32 tensor."""
        if self.weight_dtype == np.float32:
            return self.add_constant(f"{name}/weight", values)
        largest, limit = float(np.abs(values).max()), float(np.finfo(np.float16).max)
        if largest > limit:
            raise ConversionFailed(
                f"{name} has a weight of {largest:g}, beyond float16's {limit:g}; "
                "convert without float16"
            )
        stored = self.add_constant(f"{name}/weight/float16", values.astype(np.float16))
        weight = self.add_tensor(f"{name}/weight", FLOAT32, values.shape)
        self.add_dequantize(stored, weight)
        return weight

    def arithmetic(self, op: Operator) -> int:
        """Return the tensor type that `op` computes in: INT8 or FLOAT32."""
        if isinstance(op, Weighted):
            integer = op.name in self.quantized.layers
        else:
            integer = {op.input, op.name} <= self.quantized.tensors.keys()
        return int(INT8 if integer else FLOAT32)


def _bytes(
    quantized: QuantizedGraph, weight_dtype: np.dtype[Any], description: Description
) -> bytes:
    """Return the whole file: model, metadata and labels."""
    graph = quantized.graph
    file = _File(quantized, weight_dtype)
    for op in graph.operators:
        _add(file, op)
        if op.name in quantized.tensors:
            file.keep_8_bits_only(op.name)
    logits = file.tensor(graph.output, FLOAT32)
    file.tensors[logits].name = LOGITS
    (image,) = (n for n, tensor in enumerate(file.tensors) if tensor.name == IMAGE)
    _, height, width = graph.shapes[IMAGE]
    record = tflite_metadata.metadata(
        description, height=height, width=width, image_affine=_image_affine(quantized)
    )
    properties = json.dumps(description.properties(), sort_keys=True, ensure_ascii=False)
    model = tfl.ModelT(
        version=SCHEMA_VERSION,
        description=f"edgenet {description.version}",
        operatorCodes=[
            tfl.OperatorCodeT(
                builtinCode=code,
                # Readers from before code 127 was reached look here.
                deprecatedBuiltinCode=min(
                    code, tfl.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES
                ),
                version=version,
            )
            for code, version in file.codes
        ],
        subgraphs=[
            tfl.SubGraphT(
                name="main",
                tensors=file.tensors,
                inputs=np.array([image], np.int32),
                outputs=np.array([logits], np.int32),
                operators=file.operators,
            )
        ],
        signatureDefs=[
            tfl.SignatureDefT(
                signatureKey=SIGNATURE,
                inputs=[tfl.TensorMapT(name=IMAGE, tensorIndex=image)],
                outputs=[tfl.TensorMapT(name=LOGITS, tensorIndex=logits)],
            )
        ],
        metadata=[
            tfl.MetadataT(name=tflite_metadata.NAME, buffer=file.add_buffer(record)),
            tfl.MetadataT(name=EDGENET_METADATA, buffer=file.add_buffer(properties.encode())),
        ],
        buffers=file.buffers,
    )
    builder = flatbuffers.Builder(sum(len(buffer.data) for buffer in file.buffers))
    builder.Finish(model.Pack(builder), file_identifier=FILE_IDENTIFIER)
    return tflite_metadata.append_labels(bytes(builder.Output()), description.labels)


def _add(file: _File, op: Operator) -> None:
    """Add `op` of the graph and register its output."""
    match op:
        case Normalise():
            _normalise(file, op)
        case Convolution():
            _convolution(file, op)
        case GlobalAveragePool():
            _global_average_pool(file, op)
        case FullyConnected():
            _fully_connected(file, op)


def _image_affine(quantized: QuantizedGraph) -> Affine | None:
    """Return how `image` itself is quantised: as the output of the normalisation that reads it."""
    (normalise,) = (op for op in quantized.graph.operators if isinstance(op, Normalise))
    return quantized.tensors.get(normalise.name)


def _normalise(file: _File, op: Normalise) -> None:
    """Add `image`; its bytes are the normalised tensor, or are cast and normalised in float."""
    affine = file.quantized.tensors.get(op.name)
    shape = _shape(file.shapes[IMAGE])
    image = file.add_tensor(IMAGE, UINT8, shape, _per_tensor(affine, UINT8))
    if affine is not None:
        file.forms[op.name] = {UINT8: image}
        return
    cast = file.add_tensor(f"{IMAGE}/float32", FLOAT32, shape)
    file.add_operator(
        tfl.BuiltinOperator.CAST,
        [image],
        cast,
        tfl.CastOptionsT(inDataType=UINT8, outDataType=FLOAT32),
    )
    # The mean first: bytes less a mean in half steps are exact in float32.
    centred = file.add_tensor(f"{op.name}/centred", FLOAT32, shape)
    file.add_operator(
        tfl.BuiltinOperator.ADD,
        [cast, file.add_constant(f"{op.name}/mean", _scalar_if_equal(-op.mean))],
        centred,
        tfl.AddOptionsT(),
    )
    file.add_operator(
        tfl.BuiltinOperator.MUL,
        [centred, file.add_constant(f"{op.name}/std", _scalar_if_equal(np.reciprocal(op.std)))],
        file.add_output(op.name, FLOAT32),
        tfl.MulOptionsT(),
    )


def _convolution(file: _File, op: Convolution) -> None:
    """Add a convolution; one that splits its channels into groups of several is refused."""
    channels, height, width = file.shapes[op.input]
    kernel_height, kernel_width = op.weight.shape[2:]
    arithmetic = file.arithmetic(op)
    source = file.tensor(op.input, arithmetic)
    same = (
        *_same_padding(height, kernel_height, op.stride[0]),
        *_same_padding(width, kernel_width, op.stride[1]),
    )
    padding = tfl.Padding.SAME if op.pad == same else tfl.Padding.VALID
    if padding == tfl.Padding.VALID and any(op.pad):
        source = _pad(file, op, source)
    options: dict[str, Any] = {
        "padding": padding,
        "strideH": op.stride[0],
        "strideW": op.stride[1],
        "fusedActivationFunction": FUSED[op.activation],
    }
    if op.groups == 1:
        file.add_operator(
            tfl.BuiltinOperator.CONV_2D,
            [source, *file.add_weights(op, (0, 2, 3, 1), channel_axis=0)],
            file.add_output(op.name, arithmetic),
            tfl.Conv2DOptionsT(**options),
        )
    elif op.groups == channels:
        file.add_operator(
            tfl.BuiltinOperator.DEPTHWISE_CONV_2D,
            [source, *file.add_weights(op, (1, 2, 3, 0), channel_axis=3)],
            file.add_output(op.name, arithmetic),
            tfl.DepthwiseConv2DOptionsT(depthMultiplier=op.weight.shape[0] // channels, **options),
        )
    else:
        raise ConversionFailed(
            f"{op.name} has {op.groups} groups of {channels} channels; the TFLite writer takes "
            "1 group or one for each channel"
        )


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the pixels that Padding.SAME adds before and after an axis."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _pad(file: _File, op: Convolution, source: int) -> int:
    """Add the zeros (int8: zero points) around the input of `op`; return the padded tensor."""
    top, bottom, left, right = op.pad
    channels, height, width = file.shapes[op.input]
    unpadded = file.tensors[source]
    padded = file.add_tensor(
        f"{op.name}/padded",
        unpadded.type,
        (1, top + height + bottom, left + width + right, channels),
        unpadded.quantization,
    )
    pixels = np.array([(0, 0), (top, bottom), (left, right), (0, 0)], np.int32)
    file.add_operator(
        tfl.BuiltinOperator.PAD,
        [source, file.add_constant(f"{op.name}/pad", pixels)],
        padded,
        tfl.PadOptionsT(),
    )
    return padded


def _global_average_pool(file: _File, op: GlobalAveragePool) -> None:
    arithmetic = file.arithmetic(op)
    source = file.tensor(op.input, arithmetic)
    axes = file.add_constant(f"{op.name}/axes", np.array([1, 2], np.int32))
    # Not AVERAGE_POOL_2D: in int8 that cannot change the scale.
    file.add_operator(
        tfl.BuiltinOperator.MEAN,
        [source, axes],
        file.add_output(op.name, arithmetic),
        tfl.ReducerOptionsT(keepDims=False),
    )


def _fully_connected(file: _File, op: FullyConnected) -> None:
    arithmetic = file.arithmetic(op)
    source = file.tensor(op.input, arithmetic)
    file.add_operator(
        tfl.BuiltinOperator.FULLY_CONNECTED,
        [source, *file.add_weights(op, (0, 1), channel_axis=0)],
        file.add_output(op.name, arithmetic),
        tfl.FullyConnectedOptionsT(),
    )


def _shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return TFLite's shape of a tensor of the graph: (1, H, W, C) or (1, C)."""
    return (1, *shape[1:], shape[0])


def _scalar_if_equal(values: Float32Array) -> Float32Array:
    """Return (C,) as it is, or as (1,) if one value stands for all channels."""
    return values[:1] if (values == values[0]).all() else values


def _per_tensor(affine: Affine | None, tensor_type: int) -> Any:
    """Return the quantisation of a whole tensor; None for one that is not quantised."""
    if affine is None:
        return None
    shift = 128 if tensor_type == INT8 else 0
    return tfl.QuantizationParametersT(
        scale=np.array([affine.scale], np.float32),
        zeroPoint=np.array([affine.zero_point - shift], np.int64),
    )


def _per_channel(scale: Float32Array, axis: int) -> Any:
    """Return the symmetric quantisation of a constant whose channels lie along `axis`."""
    return tfl.QuantizationParametersT(
        scale=scale, zeroPoint=np.zeros(scale.shape, np.int64), quantizedDimension=axis
    )
