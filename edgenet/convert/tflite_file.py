"""A TFLite file in the making: tensors in the types they are read in, operators with versions.

Written with the schema that ai-edge-litert ships; no TensorFlow. (C, H, W) of the graph is
(1, H, W, C) here, (C,) is (1, C). A tensor in 8 bits is called `<name>/int8`, a float one
`<name>/float32`; weights and biases are `<layer>/weight` and `<layer>/bias`. Operators carry the
lowest version that does what is asked of them, so that runtimes back to tflite-runtime 2.14 load
the files. Knows how the graph's tensors are held, not what its operators compute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as tfl

from edgenet.errors import ConversionFailed
from edgenet.graph import (
    Affine,
    Float32Array,
    Operator,
    QuantizedGraph,
    Weighted,
    inputs_of,
)
from edgenet.quantize import simulate

UINT8, INT8, INT32 = tfl.TensorType.UINT8, tfl.TensorType.INT8, tfl.TensorType.INT32
FLOAT16, FLOAT32 = tfl.TensorType.FLOAT16, tfl.TensorType.FLOAT32

TYPES = {"int8": INT8, "int32": INT32, "float16": FLOAT16, "float32": FLOAT32}
"""Tensor type of a constant by the name of its numpy type."""
TYPE_NAMES = {INT8: "int8", FLOAT32: "float32"}

VERSIONS = {
    tfl.BuiltinOperator.CONV_2D: {INT8: 3},
    tfl.BuiltinOperator.DEPTHWISE_CONV_2D: {INT8: 3},
    tfl.BuiltinOperator.FULLY_CONNECTED: {INT8: 4},
    tfl.BuiltinOperator.MEAN: {INT8: 2},
    tfl.BuiltinOperator.PAD: {INT8: 2},
    tfl.BuiltinOperator.PADV2: {INT8: 2},
    tfl.BuiltinOperator.ADD: {INT8: 2},
    tfl.BuiltinOperator.MUL: {INT8: 2},
    tfl.BuiltinOperator.MINIMUM: {INT8: 2},
    tfl.BuiltinOperator.LOGISTIC: {INT8: 2},
    tfl.BuiltinOperator.MAX_POOL_2D: {INT8: 2},
    tfl.BuiltinOperator.AVERAGE_POOL_2D: {INT8: 2},
    tfl.BuiltinOperator.CONCATENATION: {INT8: 2},
    tfl.BuiltinOperator.GATHER: {INT8: 2},
    tfl.BuiltinOperator.TRANSPOSE: {INT8: 2},
    tfl.BuiltinOperator.DEQUANTIZE: {INT8: 2, FLOAT16: 3},
}
"""Lowest operator version by the type of the first input, where it is not 1.

From TensorFlow's `lite/tools/versioning/op_version.cc`; versions that hang on more than the type
are named where the operator is added.
"""

BUFFER_ALIGNMENT = 16
"""Bytes; the schema asks for it and kernels may rely on it."""


@dataclass(frozen=True)
class _Buffer:
    """Constant data of a file, packed in place of the schema's own `BufferT`."""

    data: bytes

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802
        """Write the buffer, aligned as the schema asks (the generated code does not)."""
        if not self.data:
            tfl.BufferStart(builder)
            return int(tfl.BufferEnd(builder))
        builder.Prep(BUFFER_ALIGNMENT, len(self.data))
        vector = builder.CreateByteVector(self.data)
        tfl.BufferStart(builder)
        tfl.BufferAddData(builder, vector)
        return int(tfl.BufferEnd(builder))


class File:
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

    def add_operator(
        self,
        code: int,
        inputs: list[int],
        output: int,
        options: Any = None,
        *,
        version: int | None = None,
    ) -> None:
        """Add an operator; of the lowest version that takes its inputs unless `version` says."""
        if version is None:
            version = VERSIONS.get(code, {}).get(self.tensors[inputs[0]].type, 1)
        number = self.codes.setdefault((code, version), len(self.codes))
        self.operators.append(
            tfl.OperatorT(
                opcodeIndex=number,
                inputs=np.array(inputs, np.int32),
                outputs=np.array([output], np.int32),
                # The schema names the members of this union after the options' classes.
                builtinOptionsType=tfl.BuiltinOptions.NONE
                if options is None
                else getattr(tfl.BuiltinOptions, type(options).__name__.removesuffix("T")),
                builtinOptions=options,
            )
        )

    def add_output(self, name: str, tensor_type: int) -> int:
        """Add the tensor that holds `name` of the graph as float32 or int8; return its number."""
        affine = None if tensor_type == FLOAT32 else self.quantized.tensors[name]
        number = self.add_tensor(
            f"{name}/{TYPE_NAMES[tensor_type]}",
            tensor_type,
            shape_of(self.shapes[name]),
            per_tensor(affine, tensor_type),
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
        if layer is not None and self.arithmetic(op) == INT8:
            bias_scale = np.float32(self.quantized.tensors[op.input].scale) * layer.scale
            return [
                self.add_constant(
                    f"{op.name}/weight",
                    layer.values.transpose(axes),
                    per_channel(layer.scale, channel_axis),
                ),
                self.add_constant(f"{op.name}/bias", layer.bias, per_channel(bias_scale, 0)),
            ]
        op = simulate.real_weights(self.quantized, op)
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
        return int(INT8 if self.quantized.is_integer(op) else FLOAT32)

    def sources(self, op: Operator, tensor_type: int) -> list[int]:
        """Return the tensors that `op` reads, as float32 or int8."""
        return [self.tensor(name, tensor_type) for name in inputs_of(op)]


def shape_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return TFLite's shape of a tensor of the graph: (1, H, W, C) or (1, C)."""
    return (1, *shape[1:], shape[0])


def per_tensor(affine: Affine | None, tensor_type: int) -> Any:
    """Return the quantisation of a whole tensor; None for one that is not quantised."""
    if affine is None:
        return None
    shift = 128 if tensor_type == INT8 else 0
    return tfl.QuantizationParametersT(
        scale=np.array([affine.scale], np.float32),
        zeroPoint=np.array([affine.zero_point - shift], np.int64),
    )


def per_channel(scale: Float32Array, axis: int) -> Any:
    """Return the symmetric quantisation of a constant whose channels lie along `axis`."""
    return tfl.QuantizationParametersT(
        scale=scale, zeroPoint=np.zeros(scale.shape, np.int64), quantizedDimension=axis
    )
