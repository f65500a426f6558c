"""TensorRT's published rules for explicitly quantised ONNX networks, checked without TensorRT.

`check` names what TensorRT's documents or its ONNX parser refuse, `advise` what they advise
against. It reads the ONNX graph alone: no shape inference, no subgraphs (If, Loop), no knowledge of
which kernels a GPU has. A network without Q/DQ breaks no rule. Passing is not a build: nothing
here has run on a TensorRT device.

Sources, cited by the abbreviation in each sentence of `RULES` and `ADVICE`:
  guide 8   NVIDIA TensorRT Developer Guide 8.x, chapter "Working with INT8"
  guide 11  NVIDIA TensorRT documentation 11.x, "Working with Quantized Types"
  API       nvinfer1 reference: IQuantizeLayer, IDequantizeLayer, IConvolutionLayer; operator pages
            Quantize and Dequantize
  parser    onnx-tensorrt: importer of QuantizeLinear / DequantizeLinear, releases 8.5 and 10.1
  operators onnx-tensorrt, docs/operators.md and docs/Changelog.md
Q is QuantizeLinear, DQ is DequantizeLinear, a pair is one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from edgenet.errors import ConversionFailed

RULES: Mapping[str, str] = {
    "zero-point-missing": "Q and DQ name their zero point: without one ONNX means uint8 and the "
    "8.x parser stops (parser 8.5: three inputs required).",
    "zero-point-constant": "A zero point is a constant of the file (API: build-time constant).",
    "zero-point-nonzero": "Every zero point is 0: quantisation is symmetric "
    "(guide 8 and 11; operators; parser: 'zero point must be all zeros').",
    "zero-point-size": "A zero point has as many entries as its scale (parser).",
    "scale-constant": "A scale is a constant of the file (API: build-time constant).",
    "scale-type": "A scale is float32 (guide 8, 'Per-Tensor and Per-Channel Quantization'; "
    "the 8.x parser reads its bytes as float32 whatever they are).",
    "scale-positive": "A scale is finite and above zero (API; parser: 'Scale coefficients must all "
    "be positive').",
    "uint8-tensor": "uint8 is for the network's input and output only, cast to or from float "
    "(operators, note on UINT8, from 8.5 on; parser 10.1: takes int8 instead and warns).",
    "not-int8": "What Q makes and DQ reads is int8 (guide 8; ONNX Runtime #14229: 'only activation "
    "types allowed as input to this layer').",
    "per-channel-activation": "An activation has one scale for the whole tensor (guide 8, "
    "'Per-Tensor and Per-Channel Quantization').",
    "weight-axis": "Scales per channel lie on the output channels, the axis written out: 0 for "
    "Conv and Gemm with transB, 1 for ConvTranspose, Gemm and MatMul (guide 8, 'ONNX Support'; "
    "parser: without the attribute it takes 0, ONNX 1).",
    "weight-scale-count": "Scales per channel are a vector as long as the output channels (parser: "
    "'number of scales is not equal to the number of output channels').",
    "bias-quantized": "A bias is float, neither Q nor DQ before it (ONNX Runtime #14229, #17738; "
    "onnx-tensorrt #850).",
    "missing-quantize": "A DQ reads a Q, or constant weights (guide 8, 'TensorRT Processing of "
    "Q/DQ Networks': a pair at each input of a quantisable layer).",
    "missing-dequantize": "Only DQ reads what Q makes, and one does (guide 8, 'ONNX Support': "
    "operators on INT8 tensors are not imported).",
    "scale-mismatch": "A Q and its DQ have one scale (guide 8, 'Q/DQ Limitations': rewritten only "
    "where scales are equal); before weights Q may have 1 (guide 8, 'Quantized Weights').",
    "input-not-quantized": "A layer with quantised weights has a quantised input (guide 8, "
    "'TensorRT Processing of Q/DQ Networks'; TensorRT #1864, #2131: 'Could not fuse 2nd input').",
    "quantized-output": "The network's outputs are float (operators, note on quantised types).",
    "integer-operator": "No QLinearConv, ConvInteger or their like (guide 8, 'ONNX Support').",
    "opset": "Q/DQ need opset 10, scales per channel opset 13 (guide 8, 'ONNX Support').",
}
"""What TensorRT refuses: name of the rule -> the rule, and where it is published."""

ADVICE: Mapping[str, str] = {
    "prequantized-weights": "Weights are float with a pair: int8 initializers with a DQ alone need "
    "TensorRT 10 or later (guide 8 and 11, 'Quantized Weights'; TensorRT #2163, ONNX Runtime "
    "#11535: 'invalid weights type of Int8').",
    "weight-range": "Weights stay in -127 ... 127 (guide 8, 'Explicit Versus Implicit "
    "Quantization': so when implicit, -128 ... 127 when explicit).",
    "per-tensor-weights": "Weights have a scale per channel (guide 8, placement recommendations).",
    "float-weights": "A layer with a quantised input has quantised weights (guide 8, placement "
    "recommendations: quantise all inputs of weighted operations).",
    "shared-pair": "A pair has one consumer (ONNX Runtime #9720, option DedicatedQDQPair; TensorRT "
    "#2597 shows it cloning shared pairs itself).",
    "wasted-pair": "No pair before operators that all compute in float (guide 8, placement "
    "recommendations: do not quantise outputs by default).",
    "residual-in-float": "Both inputs of an Add are quantised or neither (guide 8, placement "
    "recommendations: element-wise addition after a weighted layer).",
    "group-size": "Channels per group, in and out, are a multiple of 4 (API, setNbGroups; "
    "depthwise works, TensorRT #3385).",
    "depthwise-kernel": "Nothing but Relu between an int8 depthwise convolution and its Q "
    "(TensorRT #3385, 8.5: 'Could not find any implementation'; Model-Optimizer #50: gone in 10).",
    "hard-swish": "x * HardSigmoid(x) in place of HardSwish, which 8.5 lacks (operators 8.5, 8.6).",
}
"""What costs speed or an older TensorRT: name of the advice -> the advice, and its source."""

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Layers with weights as their second input, where those are constant."""
_HAS_BIAS = ("Conv", "ConvTranspose", "Gemm")
_INTEGER_OPERATORS = (
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
    "DynamicQuantizeLinear",
)
_COMMUTES = (
    "Concat",
    "Flatten",
    "Identity",
    "MaxPool",
    "Reshape",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
"""Operators past which TensorRT moves a Q or DQ (guide 8, Q/DQ propagation)."""
_ACTIVATIONS = ("Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu", "Sigmoid", "Tanh")
_Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One node that breaks one rule, or goes against one piece of advice."""

    rule: str
    """A key of `RULES` or of `ADVICE`."""
    node: str
    """The node's name, or its first output where it has none; the graph's name for `opset`."""
    message: str
    """What was found there."""


def check(model: onnx.ModelProto | Path) -> tuple[Violation, ...]:
    """Return what TensorRT would refuse in `model`, in the order of the nodes; () when nothing."""
    return tuple(found for found in _inspect(model) if found.rule in RULES)


def advise(model: onnx.ModelProto | Path) -> tuple[Violation, ...]:
    """Return what TensorRT would build, but slower, or only in newer versions; () when nothing."""
    return tuple(found for found in _inspect(model) if found.rule in ADVICE)


def require(model: onnx.ModelProto | Path) -> None:
    """Raise `ConversionFailed` naming the first broken rule, its node, and how many more."""
    broken = check(model)
    if not broken:
        return
    first = broken[0]
    more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
    raise ConversionFailed(
        f"TensorRT would refuse this network: {first.rule} at {first.node}: {first.message}{more}. "
        f"The rule: {RULES[first.rule]}"
    )


def _inspect(model: onnx.ModelProto | Path) -> tuple[Violation, ...]:
    network = _Network(onnx.load(model) if isinstance(model, Path) else model)
    found: dict[tuple[str, str], Violation] = {}
    for violation in _all(network):
        found.setdefault((violation.rule, violation.node), violation)
    order = {_name(node): at for at, node in enumerate(network.graph.node)}
    return tuple(sorted(found.values(), key=lambda one: order.get(one.node, -1)))


def _all(network: _Network) -> Iterator[Violation]:
    yield from _opset(network)
    yield from _bytes_in_and_out(network)
    for node in network.graph.node:
        if network.is_linear(node):
            yield from _zero_point(network, node)
            yield from _scale(network, node)
            if network.role(node) == "bias":
                yield _found("bias-quantized", node, "stands before a bias")
                continue
            yield from _type(network, node)
            yield from _granularity(network, node)
            yield from _quantize(network, node) if _is_q(node) else _dequantize(network, node)
        elif node.op_type in _WEIGHTED:
            yield from _layer(network, node)
        elif node.op_type == "Add":
            yield from _residual(network, node)
        elif node.op_type == "HardSwish":
            yield _found("hard-swish", node, "is a HardSwish")
        elif _is_integer_operator(node):
            yield _found("integer-operator", node, f"is a {node.op_type}")


class _Network:
    """A graph with its constants, and who makes and who reads each tensor."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
        self.outputs = {output.name for output in self.graph.output}
        self.constants: dict[str, _Array] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in self.graph.initializer
        }
        self.maker: dict[str, onnx.NodeProto] = {}
        self.readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        for node in self.graph.node:
            self.maker.update(dict.fromkeys(node.output, node))
            for place, tensor in enumerate(node.input):
                self.readers.setdefault(tensor, []).append((node, place))
            value = _attribute(node, "value")
            if node.op_type == "Constant" and value is not None:
                self.constants[node.output[0]] = numpy_helper.to_array(value)

    def is_linear(self, node: onnx.NodeProto | None) -> bool:
        """Tell whether `node` is ONNX's own QuantizeLinear or DequantizeLinear."""
        return (
            node is not None
            and node.op_type in ("QuantizeLinear", "DequantizeLinear")
            and node.domain in ("", "ai.onnx")
        )

    def constant(self, node: onnx.NodeProto, place: int) -> _Array | None:
        """Return an input's value, or None where it is absent or not a constant."""
        return self.constants.get(node.input[place]) if len(node.input) > place else None

    def quantizer(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """Return the Q that the DQ `node` reads, or None."""
        maker = self.maker.get(node.input[0])
        return maker if self.is_linear(maker) and _is_q(maker) else None

    def dequantizers(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Return each DQ that reads the Q `node`."""
        readers = self.readers.get(node.output[0], [])
        return [reader for reader, _ in readers if self.is_linear(reader) and not _is_q(reader)]

    def stored(self, node: onnx.NodeProto) -> _Array | None:
        """Return the constant that a Q or DQ, or the Q before a DQ, starts from, or None."""
        source = None if _is_q(node) else self.quantizer(node)
        return self.constants.get((source or node).input[0])

    def layer(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """Return the layer whose weights a Q or DQ holds, or None where it holds none."""
        if self.stored(node) is None:
            return None
        ends = self.dequantizers(node) if _is_q(node) else [node]
        uses = [use for end in ends for use in self.readers.get(end.output[0], [])]
        return next((user for user, at in uses if user.op_type in _WEIGHTED and at == 1), None)

    def role(self, node: onnx.NodeProto) -> str:
        """Return what a Q or DQ stands before: "weight", "bias" or "activation"."""
        ends = self.dequantizers(node) if _is_q(node) else [node]
        uses = [use for end in ends for use in self.readers.get(end.output[0], [])]
        if any(user.op_type in _HAS_BIAS and place == 2 for user, place in uses):
            return "bias"
        return "activation" if self.layer(node) is None else "weight"

    def is_quantized(self, tensor: str) -> bool:
        """Tell whether a float tensor is a DQ's, perhaps moved or pooled on the way.

        A Q without its DQ counts: that is another rule's business.
        """
        maker = self.maker.get(tensor)
        if maker is None:
            return False
        if maker.op_type in _COMMUTES:
            sources = maker.input if maker.op_type == "Concat" else maker.input[:1]
            return all(self.is_quantized(source) for source in sources)
        return self.is_linear(maker)

    def has_quantized_weights(self, layer: onnx.NodeProto) -> bool:
        """Tell whether the weights of a layer come from a DQ of constants."""
        maker = self.maker.get(layer.input[1])
        return self.is_linear(maker) and maker is not None and self.stored(maker) is not None

    def ends_in_quantize(self, node: onnx.NodeProto) -> bool:
        """Tell whether all that reads `node` is Q, perhaps after activations or reshapes."""
        readers = [reader for out in node.output for reader, _ in self.readers.get(out, [])]
        return bool(readers) and all(
            (self.is_linear(reader) and _is_q(reader))
            or (reader.op_type in _ACTIVATIONS + _COMMUTES and self.ends_in_quantize(reader))
            for reader in readers
        )

    def is_integer(self, node: onnx.NodeProto) -> bool:
        """Tell whether `node` gains from a quantised input: it, or what follows, may be int8."""
        if node.op_type in _WEIGHTED:
            return self.has_quantized_weights(node)
        if node.op_type in _COMMUTES:
            return any(
                self.is_integer(reader) or (self.is_linear(reader) and _is_q(reader))
                for out in node.output
                for reader, _ in self.readers.get(out, [])
            )
        return self.ends_in_quantize(node)


def _opset(network: _Network) -> Iterator[Violation]:
    linears = [node for node in network.graph.node if network.is_linear(node)]
    scales = [network.constant(node, 1) for node in linears]
    per_channel = any(scale is not None and scale.size > 1 for scale in scales)
    needed = 13 if per_channel else 10 if linears else 0
    if network.opset < needed:
        message = f"opset {network.opset}, at least {needed} is needed"
        yield Violation(rule="opset", node=network.graph.name, message=message)


def _bytes_in_and_out(network: _Network) -> Iterator[Violation]:
    for graph_input in network.graph.input:
        if graph_input.type.tensor_type.elem_type != TensorProto.UINT8:
            continue
        for reader, _ in network.readers.get(graph_input.name, []):
            if _attribute(reader, "to") not in (TensorProto.FLOAT, TensorProto.FLOAT16):
                message = f"{reader.op_type} reads the bytes of {graph_input.name} before a Cast"
                yield _found("uint8-tensor", reader, message)
    for node in network.graph.node:
        is_output = node.output and node.output[0] in network.outputs
        if node.op_type == "Cast" and _attribute(node, "to") == TensorProto.UINT8 and not is_output:
            yield _found("uint8-tensor", node, "casts to uint8 inside the network")
    for output in network.graph.output:
        maker = network.maker.get(output.name)
        is_int8 = output.type.tensor_type.elem_type == TensorProto.INT8
        if maker is not None and (is_int8 or (network.is_linear(maker) and _is_q(maker))):
            yield _found("quantized-output", maker, f"makes the output {output.name} in 8 bits")


def _zero_point(network: _Network, node: onnx.NodeProto) -> Iterator[Violation]:
    if len(node.input) < 3 or not node.input[2]:
        yield _found("zero-point-missing", node, "has no zero point")
        return
    zero_point, scale = network.constant(node, 2), network.constant(node, 1)
    if zero_point is None:
        yield _found("zero-point-constant", node, f"computes its zero point {node.input[2]}")
        return
    if np.any(zero_point != 0):
        yield _found("zero-point-nonzero", node, f"has zero point {_extreme(zero_point)}")
    if scale is not None and zero_point.size != scale.size:
        message = f"has {zero_point.size} zero points for {scale.size} scales"
        yield _found("zero-point-size", node, message)


def _scale(network: _Network, node: onnx.NodeProto) -> Iterator[Violation]:
    scale = network.constant(node, 1)
    if scale is None:
        yield _found("scale-constant", node, f"computes its scale {node.input[1]}")
    elif scale.dtype != np.float32:
        yield _found("scale-type", node, f"has a scale of type {scale.dtype}")
    elif not scale.size or not np.all(np.isfinite(scale) & (scale > 0)):
        smallest = scale.min() if scale.size else "no entry"
        yield _found("scale-positive", node, f"has a scale of {smallest}")


def _type(network: _Network, node: onnx.NodeProto) -> Iterator[Violation]:
    """Look at the 8-bit side: the zero point states its type, constants have one of their own."""
    sides = [network.constant(node, 2)]
    if not _is_q(node):
        sides.append(network.constant(node, 0))
    for kind in {str(side.dtype) for side in sides if side is not None} - {"int8"}:
        rule = "uint8-tensor" if kind == "uint8" else "not-int8"
        yield _found(rule, node, f"{'makes' if _is_q(node) else 'reads'} {kind}")


def _granularity(network: _Network, node: onnx.NodeProto) -> Iterator[Violation]:
    scale, weights, layer = network.constant(node, 1), network.stored(node), network.layer(node)
    if scale is None:
        return
    if layer is None or weights is None:
        if scale.size > 1:
            yield _found("per-channel-activation", node, f"has {scale.size} scales")
        return
    if scale.size == 1:
        yield _found("per-tensor-weights", node, f"has one scale for the weights of {_name(layer)}")
        return
    axis, right = _attribute(node, "axis"), _output_axis(layer, weights.ndim)
    if axis is None or axis % weights.ndim != right:
        stated = "no axis" if axis is None else f"axis {axis}"
        yield _found("weight-axis", node, f"has {stated} for {layer.op_type} {_name(layer)}")
    channels = weights.shape[right]
    if scale.shape != (channels,):
        message = f"has scales of shape {scale.shape} for {channels} output channels"
        yield _found("weight-scale-count", node, message)


def _quantize(network: _Network, node: onnx.NodeProto) -> Iterator[Violation]:
    ends = network.dequantizers(node)
    readers = [reader for reader, _ in network.readers.get(node.output[0], [])]
    strangers = [reader for reader in readers if reader not in ends]
    if strangers:
        message = f"feeds {strangers[0].op_type} {_name(strangers[0])} without DequantizeLinear"
        yield _found("missing-dequantize", node, message)
    elif not ends and node.output[0] not in network.outputs:
        yield _found("missing-dequantize", node, "feeds nothing")
    uses = [reader for end in ends for reader, _ in network.readers.get(end.output[0], [])]
    if network.role(node) == "activation" and ends:
        if not any(network.is_integer(user) for user in uses):
            target = _name(uses[0]) if uses else "the network's output"
            yield _found("wasted-pair", node, f"feeds only float: {target}")
        if len(uses) > 1:
            yield _found("shared-pair", node, f"has {len(uses)} consumers")
    weights, scale = network.constant(node, 0), network.constant(node, 1)
    layer = network.layer(node)
    if layer is None or weights is None or scale is None:
        return
    axis = _output_axis(layer, weights.ndim)
    if scale.shape in ((), (1,), weights.shape[axis : axis + 1]):
        steps = np.moveaxis(weights, axis, -1)
        with np.errstate(all="ignore"):  # a scale of zero is another rule's business
            yield from _range(node, np.rint(steps / scale))


def _dequantize(network: _Network, node: onnx.NodeProto) -> Iterator[Violation]:
    quantizer, weights = network.quantizer(node), network.constant(node, 0)
    if quantizer is None and weights is None:
        yield _found("missing-quantize", node, f"reads {node.input[0]}, which no Q makes")
    if weights is not None and network.layer(node) is not None:
        yield _found("prequantized-weights", node, f"reads {weights.dtype} weights without a Q")
        yield from _range(node, weights)
    if quantizer is None:
        return
    before, after = network.constant(quantizer, 1), network.constant(node, 1)
    if before is None or after is None or np.array_equal(before, after, equal_nan=True):
        return
    if network.layer(node) is None or np.any(before != 1):
        message = f"has scale {_extreme(after)}, its Q {_extreme(before)}"
        yield _found("scale-mismatch", node, message)


def _range(node: onnx.NodeProto, values: _Array) -> Iterator[Violation]:
    if values.size and (values.min() < -127 or values.max() > 127):
        message = f"holds weights from {values.min()} to {values.max()}"
        yield _found("weight-range", node, message)


def _layer(network: _Network, node: onnx.NodeProto) -> Iterator[Violation]:
    is_input_quantized = network.is_quantized(node.input[0])
    if not network.has_quantized_weights(node):
        if is_input_quantized and network.constant(node, 1) is not None:
            yield _found("float-weights", node, "has a quantised input and float weights")
        return
    if not is_input_quantized:
        message = f"has quantised weights and the float input {node.input[0]}"
        yield _found("input-not-quantized", node, message)
    groups = _attribute(node, "group") or 1
    source = network.maker[node.input[1]]
    weights = network.stored(source)
    if node.op_type != "Conv" or groups == 1 or weights is None:
        return
    inputs, outputs = weights.shape[1], weights.shape[0] // groups
    if inputs == 1:
        yield from _depthwise(network, node)
    elif inputs % 4 or outputs % 4:
        yield _found("group-size", node, f"has {inputs} inputs and {outputs} outputs a group")


def _depthwise(network: _Network, node: onnx.NodeProto) -> Iterator[Violation]:
    for reader, _ in network.readers.get(node.output[0], []):
        if reader.op_type != "Relu" and not network.is_linear(reader):
            yield _found("depthwise-kernel", node, f"is followed by {reader.op_type}")


def _residual(network: _Network, node: onnx.NodeProto) -> Iterator[Violation]:
    activations = [tensor for tensor in node.input if tensor not in network.constants]
    in_float = [tensor for tensor in activations if not network.is_quantized(tensor)]
    if in_float and len(in_float) < len(activations):
        yield _found("residual-in-float", node, f"adds {in_float[0]} in float to a quantised one")


def _output_axis(layer: onnx.NodeProto, rank: int) -> int:
    """Return the axis of a layer's output channels in its weights."""
    if layer.op_type == "Conv" or (layer.op_type == "Gemm" and _attribute(layer, "transB")):
        return 0
    return rank - 1 if layer.op_type == "MatMul" else 1


def _is_q(node: onnx.NodeProto) -> bool:
    return bool(node.op_type == "QuantizeLinear")


def _is_integer_operator(node: onnx.NodeProto) -> bool:
    is_foreign = node.domain not in ("", "ai.onnx")
    return (
        node.op_type in _INTEGER_OPERATORS
        or node.op_type.startswith("QLinear")
        or (is_foreign and node.op_type in ("QuantizeLinear", "DequantizeLinear", "QGemm"))
    )


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    """Return a node's attribute, or None where it is not written."""
    found = next((item for item in node.attribute if item.name == name), None)
    return None if found is None else onnx.helper.get_attribute_value(found)


def _extreme(values: _Array) -> object:
    """Return the entry furthest from zero, for a message."""
    return values.flat[int(np.argmax(np.abs(values)))] if values.size else "nothing"


def _name(node: onnx.NodeProto) -> str:
    return str(node.name or node.output[0])


def _found(rule: str, node: onnx.NodeProto, message: str) -> Violation:
    return Violation(rule=rule, node=_name(node), message=message)
