"""The TFLite file of a network: float32, float16 weights, or INT8 as a `QuantizedGraph` says.

A `Graph` is written as a `QuantizedGraph` in which nothing is quantised, so there is one way
through this module. The input is `image`, uint8 (1, H, W, 3) RGB, the outputs are the graph's,
float32 (1, C) or (1, H, W, C), under the signature `serving_default`. To add an operator of the
graph: one function beside `_convolution`, one case in `_add`. How tensors are held is
`tflite_file.py`.

Knows nothing of networks, calibration and bundles.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as tfl

from edgenet.bundle import LayerWork, Output
from edgenet.convert import int8_rules, tflite_metadata
from edgenet.convert.description import Description
from edgenet.convert.golden_layers import tensors_of
from edgenet.convert.tflite_file import (
    FLOAT32,
    INT8,
    TYPE_NAMES,
    UINT8,
    File,
    per_channel,
    per_tensor,
    shape_of,
)
from edgenet.graph import (
    IMAGE,
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
    Select,
    same_padding,
)
from edgenet.quantize.windows import columns, windows

FILE_IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3
SIGNATURE = "serving_default"
EDGENET_METADATA = "EDGENET"
"""The entry of `Model.metadata` with `Description.properties()` as UTF-8 JSON."""

FUSED = {
    None: tfl.ActivationFunctionType.NONE,
    "relu": tfl.ActivationFunctionType.RELU,
    "relu6": tfl.ActivationFunctionType.RELU6,
    "unit": tfl.ActivationFunctionType.RELU,  # and a MINIMUM after it
}
"""How an operator's own options name its activation; it clips in int8 as in float."""

GROUPED_CONV_VERSION = 6
DILATED_FLOAT_DEPTHWISE_VERSION = 2
GROWING_MUL_VERSION = 3
"""Of an int8 MUL whose product of input scales is no smaller than the scale of its output."""

LOGISTIC_AFFINE = Affine(scale=1 / 256, zero_point=0)
"""The one output that TFLite's int8 LOGISTIC has."""


def write_float32(graph: Graph, path: Path, *, description: Description) -> None:
    """Write `graph` to `path` in float32; the bytes depend on the arguments alone."""
    path.write_bytes(_bytes(_nothing_quantized(graph), np.dtype(np.float32), description))


def write_float16(graph: Graph, path: Path, *, description: Description) -> None:
    """Write `graph` to `path` with float16 weights that compute, like the biases, in float32.

    Raises `ConversionFailed` for weights beyond float16.
    """
    path.write_bytes(_bytes(_nothing_quantized(graph), np.dtype(np.float16), description))


def write_int8(quantized: QuantizedGraph, path: Path, *, description: Description) -> None:
    """Write `quantized` to `path`: int8 where it says so, float32 elsewhere.

    A convolution that gives out its sums is written in float, with the values that its weights
    have in 8 bits. Raises `ConversionFailed` for a form that breaks one of `int8_rules` and for any
    other int8 layer whose output is no 8-bit tensor.
    """
    int8_rules.check(quantized)
    for op in quantized.graph.weighted():
        if op.name in quantized.layers and op.name not in quantized.sums:
            int8_rules.require_8_bits(op.name, op.name, quantized)
    path.write_bytes(_bytes(quantized, np.dtype(np.float32), description))


def layer_tensors(
    path: Path, layers: Sequence[LayerWork], outputs: Sequence[Output]
) -> dict[str, str]:
    """Return the tensor that each layer makes, its bytes where it has any."""
    graph = tfl.ModelT.InitFromPackedBuf(path.read_bytes(), 0).subgraphs[0]
    made = (graph.tensors[number].name for op in graph.operators for number in op.outputs)
    there = frozenset(name.decode() for name in made)
    held = tuple(TYPE_NAMES.values())
    return tensors_of(
        layers, outputs, there, lambda layer: tuple(f"{layer}/{kind}" for kind in held)
    )


def _nothing_quantized(graph: Graph) -> QuantizedGraph:
    return QuantizedGraph(graph=graph, tensors={}, layers={})


def _bytes(
    quantized: QuantizedGraph, weight_dtype: np.dtype[Any], description: Description
) -> bytes:
    """Return the whole file: model, metadata and labels."""
    graph = quantized.graph
    file = File(quantized, weight_dtype)
    for op in graph.operators:
        _add(file, op)
        if op.name in quantized.tensors:
            file.keep_8_bits_only(op.name)
    outputs = {name: file.tensor(tensor, FLOAT32) for tensor, name in graph.outputs.items()}
    for name, number in outputs.items():
        file.tensors[number].name = name
    (image,) = (n for n, tensor in enumerate(file.tensors) if tensor.name == IMAGE)
    _, height, width = graph.shapes[IMAGE]
    record = tflite_metadata.metadata(
        description,
        height=height,
        width=width,
        image_affine=_image_affine(quantized),
        outputs=tuple(outputs),
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
                outputs=np.array(list(outputs.values()), np.int32),
                operators=file.operators,
            )
        ],
        signatureDefs=[
            tfl.SignatureDefT(
                signatureKey=SIGNATURE,
                inputs=[tfl.TensorMapT(name=IMAGE, tensorIndex=image)],
                outputs=[
                    tfl.TensorMapT(name=name, tensorIndex=number)
                    for name, number in outputs.items()
                ],
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


def _add(file: File, op: Operator) -> None:
    """Add `op` of the graph and register its output."""
    match op:
        case Normalise():
            _normalise(file, op)
        case Convolution():
            _convolution(file, op)
        case FullyConnected():
            _fully_connected(file, op)
        case Pool():
            _pool(file, op)
        case GlobalAveragePool():
            _global_average_pool(file, op)
        case Flatten():
            _flatten(file, op)
        case Activate():
            _activate(file, op)
        case Add():
            _sum(file, op)
        case Multiply():
            _product(file, op)
        case Concatenate():
            _concatenate(file, op)
        case Select():
            _select(file, op)


def _image_affine(quantized: QuantizedGraph) -> Affine | None:
    """Return how `image` itself is quantised: as the output of the normalisation that reads it."""
    (normalise,) = (op for op in quantized.graph.operators if isinstance(op, Normalise))
    return quantized.tensors.get(normalise.name)


def _normalise(file: File, op: Normalise) -> None:
    """Add `image`; its bytes are the normalised tensor, or are cast and normalised in float."""
    affine = file.quantized.tensors.get(op.name)
    shape = shape_of(file.shapes[IMAGE])
    image = file.add_tensor(IMAGE, UINT8, shape, per_tensor(affine, UINT8))
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


def _convolution(file: File, op: Convolution) -> None:
    channels = file.shapes[op.input][0]
    window = tuple(op.dilation * (side - 1) + 1 for side in op.weight.shape[2:])
    arithmetic = file.arithmetic(op)
    (source,) = file.sources(op, arithmetic)
    padding = _padding(file, op, (window[0], window[1]))
    if padding == tfl.Padding.VALID and any(op.pad):
        source = _pad(file, op, source)
    options: dict[str, Any] = {
        "padding": padding,
        "strideH": op.stride[0],
        "strideW": op.stride[1],
        "dilationHFactor": op.dilation,
        "dilationWFactor": op.dilation,
    }
    if op.groups == channels and channels > 1:
        _with_activation(
            file,
            op,
            tfl.BuiltinOperator.DEPTHWISE_CONV_2D,
            [source, *file.add_weights(op, (1, 2, 3, 0), channel_axis=3)],
            tfl.DepthwiseConv2DOptionsT(depthMultiplier=op.weight.shape[0] // channels, **options),
            version=DILATED_FLOAT_DEPTHWISE_VERSION
            if op.dilation > 1 and arithmetic == FLOAT32
            else None,
        )
    else:
        _with_activation(
            file,
            op,
            tfl.BuiltinOperator.CONV_2D,
            [source, *file.add_weights(op, (0, 2, 3, 1), channel_axis=0)],
            tfl.Conv2DOptionsT(**options),
            version=GROUPED_CONV_VERSION if op.groups > 1 else None,
        )


def _with_activation(
    file: File,
    op: Convolution | FullyConnected | Add,
    code: int,
    inputs: list[int],
    options: Any,
    *,
    version: int | None = None,
) -> None:
    """Add an operator with its activation, and a MINIMUM where TFLite has no name for that."""
    arithmetic = file.arithmetic(op)
    options.fusedActivationFunction = FUSED[op.activation]
    affine = file.quantized.tensors.get(op.name) if arithmetic == INT8 else None
    if op.activation != "unit" or (affine is not None and affine.clips_as("unit")):
        output = file.add_output(op.name, arithmetic)
        file.add_operator(code, inputs, output, options, version=version)
        return
    unclipped = file.add_tensor(
        f"{op.name}/relu", arithmetic, shape_of(file.shapes[op.name]), per_tensor(affine, INT8)
    )
    file.add_operator(code, inputs, unclipped, options, version=version)
    _at_most_one(file, op.name, unclipped, arithmetic)


def _at_most_one(file: File, name: str, source: int, arithmetic: int) -> None:
    """Add `name` of the graph as the lesser of `source` and 1."""
    affine = file.quantized.tensors[name] if arithmetic == INT8 else None
    value = np.ones(1, np.float32)
    if affine is not None:
        value = np.array([round(1 / affine.scale) + affine.zero_point - 128], np.int8)
    one = file.add_constant(f"{name}/one", value, per_tensor(affine, INT8))
    file.add_operator(
        tfl.BuiltinOperator.MINIMUM,
        [source, one],
        file.add_output(name, arithmetic),
        tfl.MaximumMinimumOptionsT(),
    )


def _padding(file: File, op: Convolution | Pool, window: tuple[int, int]) -> int:
    """Return SAME where that pads as `op` does, VALID where nothing or an operator has to."""
    _, height, width = file.shapes[op.input]
    same = (
        *same_padding(height, window[0], op.stride[0]),
        *same_padding(width, window[1], op.stride[1]),
    )
    return int(tfl.Padding.SAME if op.pad == same else tfl.Padding.VALID)


def _pad(file: File, op: Convolution | Pool, source: int) -> int:
    """Add pixels around the input of `op`; return the padded tensor.

    They are zeros (int8: zero points), or the lowest value where a zero could win a maximum.
    """
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
    inputs = [source, file.add_constant(f"{op.name}/pad", pixels)]
    if isinstance(op, Convolution) or _never_negative(file, op.input, unpadded.type):
        file.add_operator(tfl.BuiltinOperator.PAD, inputs, padded, tfl.PadOptionsT())
        return padded
    dtype = np.int8 if unpadded.type == INT8 else np.float32
    least = np.iinfo(np.int8).min if unpadded.type == INT8 else np.finfo(np.float32).min
    value = file.add_constant(f"{op.name}/lowest", np.array([least], dtype), unpadded.quantization)
    file.add_operator(tfl.BuiltinOperator.PADV2, [*inputs, value], padded, tfl.PadV2OptionsT())
    return padded


def _never_negative(file: File, name: str, arithmetic: int) -> bool:
    """Tell whether `name` of the graph has no value below zero, as far as its maker shows.

    Such a tensor is padded by PAD, which XNNPACK takes; a PADV2 would split the network in two.
    """
    if arithmetic == INT8:
        return file.quantized.tensors[name].zero_point == 0
    (maker,) = (op for op in file.quantized.graph.operators if op.name == name)
    clip = maker.function if isinstance(maker, Activate) else getattr(maker, "activation", None)
    return clip in ("relu", "relu6", "unit")


def _pool(file: File, op: Pool) -> None:
    arithmetic = file.arithmetic(op)
    (source,) = file.sources(op, arithmetic)
    padding = _padding(file, op, op.kernel)
    if padding == tfl.Padding.VALID and any(op.pad):
        source = _pad(file, op, source)
    code = {
        "max": tfl.BuiltinOperator.MAX_POOL_2D,
        "average": tfl.BuiltinOperator.AVERAGE_POOL_2D,
    }[op.kind]
    file.add_operator(
        code,
        [source],
        file.add_output(op.name, arithmetic),
        tfl.Pool2DOptionsT(
            padding=padding,
            strideH=op.stride[0],
            strideW=op.stride[1],
            filterHeight=op.kernel[0],
            filterWidth=op.kernel[1],
        ),
    )


def _global_average_pool(file: File, op: GlobalAveragePool) -> None:
    arithmetic = file.arithmetic(op)
    axes = file.add_constant(f"{op.name}/axes", np.array([1, 2], np.int32))
    inputs = [*file.sources(op, arithmetic), axes]
    options = tfl.ReducerOptionsT(keepDims=False)
    # Not AVERAGE_POOL_2D: in int8 that cannot change the scale. Not keepDims: the built-in int8
    # kernel for it rounds the zero point by itself, up to half a step on all channels alike.
    if not op.keep_map:
        file.add_operator(
            tfl.BuiltinOperator.MEAN, inputs, file.add_output(op.name, arithmetic), options
        )
        return
    affine = file.quantized.tensors[op.name] if arithmetic == INT8 else None
    channels = file.shapes[op.name][0]
    row = file.add_tensor(f"{op.name}/row", arithmetic, (1, channels), per_tensor(affine, INT8))
    file.add_operator(tfl.BuiltinOperator.MEAN, inputs, row, options)
    _reshape(file, op.name, row, arithmetic)


def _reshape(file: File, name: str, source: int, arithmetic: int) -> None:
    """Add `name` of the graph as `source` in another shape."""
    shape = np.array(shape_of(file.shapes[name]), np.int32)
    file.add_operator(
        tfl.BuiltinOperator.RESHAPE,
        [source, file.add_constant(f"{name}/shape", shape)],
        file.add_output(name, arithmetic),
        tfl.ReshapeOptionsT(newShape=shape),
    )


def _flatten(file: File, op: Flatten) -> None:
    arithmetic = file.arithmetic(op)
    (source,) = file.sources(op, arithmetic)
    channels, *sides = file.shapes[op.input]
    if np.prod(sides) > 1:  # the graph has the channels slowest, TFLite fastest
        unturned = file.tensors[source]
        turned = file.add_tensor(
            f"{op.name}/turned", unturned.type, (1, channels, *sides), unturned.quantization
        )
        order = file.add_constant(f"{op.name}/order", np.array([0, 3, 1, 2], np.int32))
        file.add_operator(
            tfl.BuiltinOperator.TRANSPOSE, [source, order], turned, tfl.TransposeOptionsT()
        )
        source = turned
    _reshape(file, op.name, source, arithmetic)


def _activate(file: File, op: Activate) -> None:
    arithmetic = _activation_arithmetic(file, op)
    (source,) = file.sources(op, arithmetic)
    match op.function:
        case "hard_swish":
            code, options = tfl.BuiltinOperator.HARD_SWISH, tfl.HardSwishOptionsT()
        case "sigmoid":
            code, options = tfl.BuiltinOperator.LOGISTIC, None
        case _ if arithmetic == INT8:  # the affine of the output clips
            code, options = tfl.BuiltinOperator.QUANTIZE, tfl.QuantizeOptionsT()
        case "relu6":
            code, options = tfl.BuiltinOperator.RELU6, None
        case "relu":
            code, options = tfl.BuiltinOperator.RELU, None
        case "unit":
            positive = file.add_tensor(f"{op.name}/relu", FLOAT32, shape_of(file.shapes[op.name]))
            file.add_operator(tfl.BuiltinOperator.RELU, [source], positive)
            _at_most_one(file, op.name, positive, FLOAT32)
            return
    file.add_operator(code, [source], file.add_output(op.name, arithmetic), options)


def _activation_arithmetic(file: File, op: Activate) -> int:
    """Return the type that a function is computed in: float where int8 cannot end as meant."""
    if file.arithmetic(op) == FLOAT32:
        return int(FLOAT32)
    affine = file.quantized.tensors[op.name]
    match op.function:
        case "hard_swish":
            exact = True
        case "sigmoid":
            exact = affine == LOGISTIC_AFFINE
        case clip:
            exact = affine.clips_as(clip)
    return int(INT8 if exact else FLOAT32)


def _sum(file: File, op: Add) -> None:
    sources = file.sources(op, file.arithmetic(op))
    _with_activation(file, op, tfl.BuiltinOperator.ADD, sources, tfl.AddOptionsT())


def _product(file: File, op: Multiply) -> None:
    arithmetic = file.arithmetic(op)
    version = None
    if arithmetic == INT8:
        first, second, made = (
            np.float32(file.quantized.tensors[name].scale) for name in (*op.inputs, op.name)
        )
        version = GROWING_MUL_VERSION if first * second / made >= 1 else None
    file.add_operator(
        tfl.BuiltinOperator.MUL,
        file.sources(op, arithmetic),
        file.add_output(op.name, arithmetic),
        tfl.MulOptionsT(),
        version=version,
    )


def _concatenate(file: File, op: Concatenate) -> None:
    arithmetic = file.arithmetic(op)
    file.add_operator(
        tfl.BuiltinOperator.CONCATENATION,
        file.sources(op, arithmetic),
        file.add_output(op.name, arithmetic),
        tfl.ConcatenationOptionsT(axis=len(file.shapes[op.name])),  # the last: channels
    )


def _select(file: File, op: Select) -> None:
    arithmetic = file.arithmetic(op)
    axis = len(file.shapes[op.name])  # the last: channels
    channels = file.add_constant(f"{op.name}/channels", np.array(op.channels, np.int32))
    file.add_operator(
        tfl.BuiltinOperator.GATHER,
        [*file.sources(op, arithmetic), channels],
        file.add_output(op.name, arithmetic),
        tfl.GatherOptionsT(axis=axis),
    )


def _fully_connected(file: File, op: FullyConnected) -> None:
    if op.name in file.quantized.sums:
        _windows(file, op, file.quantized.sums[op.name])
        return
    _with_activation(
        file,
        op,
        tfl.BuiltinOperator.FULLY_CONNECTED,
        [
            *file.sources(op, file.arithmetic(op)),
            *file.add_weights(op, (0, 1), channel_axis=0),
        ],
        tfl.FullyConnectedOptionsT(),
    )


def _windows(file: File, op: FullyConnected, affine: Affine) -> None:
    """Add an int8 layer with a float output of more than 8 bits (`edgenet.quantize.windows`)."""
    layer = file.quantized.layers[op.name]
    reads = file.quantized.tensors[op.input]
    bias_scale = np.float32(reads.scale) * layer.scale
    found = windows(affine)
    first, distance = (
        np.rint(shift / bias_scale.astype(np.float64)).astype(np.int64)
        for shift in (found.shifts[0], found.shifts[1] - found.shifts[0])
    )
    more = columns(-distance, reads)
    count = len(more.inputs)
    source = file.tensor(op.input, INT8)
    form = file.tensors[source].quantization
    parts = [
        part
        for number, values in enumerate(more.inputs)
        for part in (source, file.add_constant(f"{op.name}/window{number}", values[None], form))
    ]
    width = op.weight.shape[1] + more.inputs.shape[1]
    row = file.add_tensor(f"{op.name}/row", INT8, (1, count * width), form)
    file.add_operator(
        tfl.BuiltinOperator.CONCATENATION, parts, row, tfl.ConcatenationOptionsT(axis=1)
    )
    rows = file.add_tensor(f"{op.name}/rows", INT8, (count, width), form)
    shape = np.array((count, width), np.int32)
    file.add_operator(
        tfl.BuiltinOperator.RESHAPE,
        [row, file.add_constant(f"{op.name}/rows/shape", shape)],
        rows,
        tfl.ReshapeOptionsT(newShape=shape),
    )
    outputs = (count, op.weight.shape[0])
    name = f"{op.name}/windows"
    products = file.add_tensor(f"{name}/int8", INT8, outputs, per_tensor(found.affine, INT8))
    file.add_operator(
        tfl.BuiltinOperator.FULLY_CONNECTED,
        [
            rows,
            file.add_constant(
                f"{op.name}/weight",
                np.concatenate([layer.values, more.weights], axis=1),
                per_channel(layer.scale, 0),
            ),
            file.add_constant(
                f"{op.name}/bias", (layer.bias - first).astype(np.int32), per_channel(bias_scale, 0)
            ),
        ],
        products,
        tfl.FullyConnectedOptionsT(),
    )
    real = file.add_tensor(name, FLOAT32, outputs)
    file.add_dequantize(products, real)
    axis = file.add_constant(f"{op.name}/axis", np.array([0], np.int32))
    file.add_operator(
        tfl.BuiltinOperator.SUM,
        [real, axis],
        file.add_output(op.name, FLOAT32),
        tfl.ReducerOptionsT(keepDims=True),
    )


def _scalar_if_equal(values: Float32Array) -> Float32Array:
    """Return (C,) as it is, or as (1,) if one value stands for all channels."""
    return values[:1] if (values == values[0]).all() else values
