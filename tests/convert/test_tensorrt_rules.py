"""The checker of TensorRT's rules: a right network passes, each single fault has its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from edgenet.convert import onnx as writer
from edgenet.convert.description import Description
from edgenet.convert.tensorrt_rules import ADVICE, RULES, advise, check, require
from edgenet.errors import ConversionFailed
from edgenet.graph import (
    Affine,
    Convolution,
    FullyConnected,
    GlobalAveragePool,
    Graph,
    Normalise,
    QuantizedGraph,
    QuantizedWeights,
    infer_shapes,
)
from edgenet.preprocess import Preprocessing

RANDOM = np.random.default_rng(7)
CHANNELS, CLASSES, SIDE = 8, 5, 8


class Drawing:
    """A network drawn node by node; a pair of Q and DQ is two nodes `<name>.q` and `<name>.dq`."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, values: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def node(self, kind: str, inputs: list[str], name: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def pair(self, source: str, name: str, scale: np.ndarray, **attributes: object) -> str:
        """Each of the two has constants of its own, so that a test can spoil one."""
        for kind, tail in (("QuantizeLinear", "q"), ("DequantizeLinear", "dq")):
            numbers = [
                self.constant(f"{name}.{tail}.scale", scale),
                self.constant(f"{name}.{tail}.zero", np.zeros(scale.shape, np.int8)),
            ]
            source = self.node(kind, [source, *numbers], f"{name}.{tail}", **attributes)
        return source

    def layer(self, kind: str, source: str, name: str, shape: tuple[int, ...], **more: int) -> str:
        """A layer with weights in a pair, axis 0, and a float bias."""
        weights = RANDOM.normal(size=shape).astype(np.float32)
        scale = np.abs(weights).reshape(len(weights), -1).max(axis=1) / np.float32(127)
        quantized = self.pair(self.constant(f"{name}.w", weights), f"{name}.w", scale, axis=0)
        bias = self.constant(f"{name}.b", np.ones(len(weights), np.float32))
        return self.node(kind, [source, quantized, bias], name, **more)


def symmetric() -> onnx.ModelProto:
    """Bytes, float normalisation, Conv, depthwise Conv, residual Add, mean, Gemm: all by the book.

    Every consumer has a pair of its own; Relu stands where asymmetric files leave it to the Q.
    """
    net, step = Drawing(), np.array(0.05, np.float32)
    net.node("Cast", ["image"], "float", to=TensorProto.FLOAT)
    net.node("Sub", ["float", net.constant("mean", np.array(128, np.float32))], "centred")
    net.node("Mul", ["centred", net.constant("gain", np.array(1 / 127.5, np.float32))], "scaled")
    net.node("Transpose", ["scaled"], "planes", perm=[0, 3, 1, 2])
    net.pair("planes", "in", np.array(1 / 127.5, np.float32))
    net.layer("Conv", "in.dq", "stem", (CHANNELS, 3, 3, 3), pads=[1, 1, 1, 1])
    net.node("Relu", ["stem"], "stem.relu")
    net.pair("stem.relu", "a", step)
    net.pair("stem.relu", "skip", step)
    net.layer("Conv", "a.dq", "dw", (CHANNELS, 1, 3, 3), pads=[1, 1, 1, 1], group=CHANNELS)
    net.node("Relu", ["dw"], "dw.relu")
    net.pair("dw.relu", "b", step)
    net.node("Add", ["skip.dq", "b.dq"], "sum")
    net.pair("sum", "c", step)
    net.node("GlobalAveragePool", ["c.dq"], "map")
    net.node("Flatten", ["map"], "flat", axis=1)
    net.pair("flat", "d", step)
    net.layer("Gemm", "d.dq", "logits", (CLASSES, CHANNELS), transB=1)
    return finish(net)


def finish(net: Drawing, opset: int = 17) -> onnx.ModelProto:
    graph = helper.make_graph(
        net.nodes,
        "drawing",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])],
        net.constants,
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(one for one in model.graph.node if one.name == name)


def put(model: onnx.ModelProto, name: str, values: object, dtype: type = np.float32) -> None:
    """Give an initializer other values."""
    tensor = next(one for one in model.graph.initializer if one.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.array(values, dtype), name))


def read(model: onnx.ModelProto, reader: str, place: int, tensor: str) -> None:
    """Let one input of a node be another tensor."""
    node(model, reader).input[place] = tensor


def insert(model: onnx.ModelProto, before: str, kind: str, inputs: list[str], name: str) -> None:
    at = next(i for i, one in enumerate(model.graph.node) if one.name == before)
    model.graph.node.insert(at, helper.make_node(kind, inputs, [name], name=name))


def drop(model: onnx.ModelProto, name: str) -> None:
    """Take a node out and let its readers read what it read."""
    gone = node(model, name)
    for other in model.graph.node:
        other.input[:] = [gone.input[0] if i == name else i for i in other.input]
    model.graph.node.remove(gone)


def quantize_the_bias(model: onnx.ModelProto) -> None:
    scale = next(one for one in model.graph.initializer if one.name == "stem.w.q.scale")
    values = numpy_helper.to_array(scale)
    for name, array in (
        ("b.int", np.ones(CHANNELS, np.int32)),
        ("b.scale", values),
        ("b.zero", np.zeros(CHANNELS, np.int32)),
    ):
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    insert(model, "stem", "DequantizeLinear", ["b.int", "b.scale", "b.zero"], "b.float")
    node(model, "b.float").attribute.append(helper.make_attribute("axis", 0))
    read(model, "stem", 2, "b.float")


def read_bytes_directly(model: onnx.ModelProto) -> None:
    drop(model, "planes")
    insert(model, "float", "Transpose", ["image"], "planes")
    read(model, "float", 0, "planes")


def set_axis(model: onnx.ModelProto, name: str, axis: int | None) -> None:
    del node(model, name).attribute[:]
    if axis is not None:
        node(model, name).attribute.append(helper.make_attribute("axis", axis))


def compute(model: onnx.ModelProto, name: str) -> None:
    """Make a constant the output of an Identity."""
    insert(model, "float", "Identity", [name], f"{name}.same")
    for one in model.graph.node:
        if one.op_type != "Identity":
            one.input[:] = [f"{name}.same" if i == name else i for i in one.input]


def make_output_int8(model: onnx.ModelProto) -> None:
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("d.q", TensorProto.INT8, [1, CHANNELS])
    )


def use_opset_12(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 12


def per_channel_activation(model: onnx.ModelProto) -> None:
    for tail in ("q", "dq"):
        put(model, f"a.{tail}.scale", [0.05] * CHANNELS)
        put(model, f"a.{tail}.zero", [0] * CHANNELS, np.int8)


def three_scales(model: onnx.ModelProto) -> None:
    for tail in ("q", "dq"):
        put(model, f"logits.w.{tail}.scale", [0.01] * 3)
        put(model, f"logits.w.{tail}.zero", [0] * 3, np.int8)


Mutation = Callable[[onnx.ModelProto], object]
FAULTS: list[tuple[str, str, Mutation]] = [
    ("zero-point-nonzero", "a.q", lambda m: put(m, "a.q.zero", 3, np.int8)),
    ("zero-point-nonzero", "dw.w.dq", lambda m: put(m, "dw.w.dq.zero", [0] * 7 + [3], np.int8)),
    ("zero-point-missing", "a.dq", lambda m: node(m, "a.dq").input.pop()),
    ("zero-point-constant", "a.q", lambda m: compute(m, "a.q.zero")),
    ("zero-point-size", "a.q", lambda m: put(m, "a.q.zero", [0, 0], np.int8)),
    ("scale-constant", "a.q", lambda m: compute(m, "a.q.scale")),
    (
        "scale-type",
        "a.q",
        lambda m: [put(m, f"a.{t}.scale", 0.05, np.float16) for t in ("q", "dq")],
    ),
    ("scale-mismatch", "a.dq", lambda m: put(m, "a.dq.scale", 0.06)),
    ("uint8-tensor", "a.q", lambda m: put(m, "a.q.zero", 0, np.uint8)),
    ("uint8-tensor", "planes", read_bytes_directly),
    ("not-int8", "a.dq", lambda m: put(m, "a.dq.zero", 0, np.int16)),
    ("per-channel-activation", "a.q", per_channel_activation),
    ("weight-axis", "dw.w.q", lambda m: set_axis(m, "dw.w.q", 1)),
    ("weight-axis", "logits.w.dq", lambda m: set_axis(m, "logits.w.dq", None)),
    ("weight-scale-count", "logits.w.q", three_scales),
    ("bias-quantized", "b.float", quantize_the_bias),
    ("missing-quantize", "a.dq", lambda m: drop(m, "a.q")),
    ("missing-dequantize", "a.q", lambda m: drop(m, "a.dq")),
    ("input-not-quantized", "dw", lambda m: [drop(m, "a.dq"), drop(m, "a.q")]),
    ("quantized-output", "d.q", make_output_int8),
    ("integer-operator", "sum", lambda m: setattr(node(m, "sum"), "op_type", "QLinearAdd")),
    ("opset", "drawing", use_opset_12),
]


def rules(model: onnx.ModelProto) -> set[str]:
    return {found.rule for found in check(model)}


def test_a_network_by_the_book_passes(tmp_path: Path) -> None:
    model = symmetric()
    onnx.checker.check_model(model, full_check=True)
    path = tmp_path / "symmetric.onnx"
    onnx.save(model, path)
    assert check(path) == () and advise(path) == ()
    require(path)


@pytest.mark.parametrize(("rule", "where", "spoil"), FAULTS)
def test_one_fault_breaks_its_rule_alone(rule: str, where: str, spoil: Mutation) -> None:
    model = symmetric()
    spoil(model)
    assert rules(model) == {rule}
    assert where in [found.node for found in check(model)]
    with pytest.raises(ConversionFailed, match=rf"{rule} at "):
        require(model)


@pytest.mark.parametrize("scale", [0.0, -0.05, np.nan, np.inf])
def test_a_scale_is_finite_and_above_zero(scale: float) -> None:
    model = symmetric()
    for tail in ("q", "dq"):
        put(model, f"a.{tail}.scale", scale)
    assert rules(model) == {"scale-positive"}


def test_every_rule_is_broken_by_a_test() -> None:
    assert {rule for rule, _, _ in FAULTS} | {"scale-positive"} == set(RULES)
    assert not set(RULES) & set(ADVICE)


def test_the_message_counts_the_rest() -> None:
    model = symmetric()
    put(model, "a.q.zero", 3, np.int8)
    put(model, "a.dq.zero", 3, np.int8)
    with pytest.raises(ConversionFailed, match=r"zero-point-nonzero at a\.q: .* 3 \(and 1 more\)"):
        require(model)


def advised(spoil: Mutation) -> set[str]:
    model = symmetric()
    spoil(model)
    assert check(model) == ()
    return {found.rule for found in advise(model)}


def store_weights_as_int8(model: onnx.ModelProto) -> None:
    drop(model, "stem.w.q")
    put(model, "stem.w", RANDOM.integers(-128, 127, (CHANNELS, 3, 3, 3)), np.int8)


def use_one_scale_for_weights(model: onnx.ModelProto) -> None:
    for tail in ("q", "dq"):
        put(model, f"stem.w.{tail}.scale", 0.1)
        put(model, f"stem.w.{tail}.zero", 0, np.int8)


def group_by_two(model: onnx.ModelProto) -> None:
    put(model, "dw.w", np.zeros((CHANNELS, 2, 3, 3)))
    next(one for one in node(model, "dw").attribute if one.name == "group").i = CHANNELS // 2


def test_advice_is_no_refusal() -> None:
    assert advised(store_weights_as_int8) == {"prequantized-weights", "weight-range"}
    assert advised(use_one_scale_for_weights) == {"per-tensor-weights"}
    assert advised(lambda m: [drop(m, "dw.w.dq"), drop(m, "dw.w.q")]) == {
        "float-weights",
        "wasted-pair",
    }
    assert advised(lambda m: [drop(m, "skip.dq"), drop(m, "skip.q")]) == {"residual-in-float"}
    assert advised(lambda m: read(m, "sum", 0, "a.dq")) == {"shared-pair", "wasted-pair"}
    assert advised(lambda m: setattr(node(m, "dw.relu"), "op_type", "Tanh")) == {"depthwise-kernel"}
    assert advised(lambda m: setattr(node(m, "stem.relu"), "op_type", "HardSwish")) == {
        "hard-swish"
    }
    assert advised(group_by_two) == {"group-size"}
    assert advised(lambda m: put(m, "stem.w", np.full((CHANNELS, 3, 3, 3), -9))) == {"weight-range"}


def network() -> Graph:
    """Normalise, Conv, GlobalAveragePool, FullyConnected."""
    normal = lambda *shape: RANDOM.normal(size=shape).astype(np.float32)  # noqa: E731
    constant = np.full(3, 127.5, np.float32)
    operators = (
        Normalise(name="normal", input="image", mean=constant, std=constant),
        Convolution(
            name="stem",
            input="normal",
            weight=normal(CHANNELS, 3, 3, 3),
            bias=normal(CHANNELS),
            stride=(1, 1),
            pad=(1, 1, 1, 1),
            groups=1,
            activation="relu6",
        ),
        GlobalAveragePool(name="mean", input="stem"),
        FullyConnected(
            name="fc", input="mean", weight=normal(CLASSES, CHANNELS), bias=normal(CLASSES)
        ),
    )
    shapes = infer_shapes(operators, (3, SIDE, SIDE))
    return Graph(name="small", operators=operators, shapes=shapes, outputs={"fc": "logits"})


def description() -> Description:
    return Description(
        name="small",
        version="0.1.0",
        licence="Apache-2.0",
        labels=tuple("abcde"),
        preprocessing=Preprocessing(resolution=SIDE),
    )


def in_8_bits(graph: Graph) -> QuantizedGraph:
    affine = Affine(scale=float(np.float32(6 / 255)), zero_point=0)
    return QuantizedGraph(
        graph=graph,
        tensors={
            "normal": Affine(scale=float(np.float32(1 / 127.5)), zero_point=128),
            "stem": affine,
            "mean": affine,
            "fc": Affine(scale=float(np.float32(0.1)), zero_point=100),
        },
        layers={
            layer.name: QuantizedWeights(
                values=np.clip(np.rint(layer.weight * 30), -127, 127).astype(np.int8),
                scale=np.full(len(layer.weight), 1 / 30, np.float32),
                bias=np.zeros(len(layer.weight), np.int32),
            )
            for layer in graph.weighted()
        },
    )


def test_the_form_for_other_runtimes_is_refused() -> None:
    """Zero points off zero, uint8 tensors and int32 biases: right for CPUs, wrong for TensorRT."""
    model = onnx.load_from_string(writer.encode(in_8_bits(network()), description()))
    broken = rules(model)
    assert {"zero-point-nonzero", "uint8-tensor", "bias-quantized"} <= broken
    assert broken <= {"zero-point-nonzero", "uint8-tensor", "bias-quantized", "missing-quantize"}


class Pictures(CalibrationDataReader):
    def __init__(self) -> None:
        shape = (1, SIDE, SIDE, 3)
        self.left = [RANDOM.integers(0, 256, shape).astype(np.uint8) for _ in range(4)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return {"image": self.left.pop()} if self.left else None


def quantized_by_onnxruntime(folder: Path, **options: bool) -> onnx.ModelProto:
    """The float file through `quantize_static`, with the options its authors give for TensorRT."""
    graph = network()
    writer.write_float32(graph, folder / "float.onnx", description=description())
    quantize_static(
        folder / "float.onnx",
        folder / "int8.onnx",
        Pictures(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "AddQDQPairToWeight": True,
            "DedicatedQDQPair": True,
            "QuantizeBias": False,
            **options,
        },
    )
    return onnx.load(folder / "int8.onnx")


def test_onnxruntimes_own_form_for_tensorrt_passes(tmp_path: Path) -> None:
    model = quantized_by_onnxruntime(tmp_path)
    assert sum(one.op_type == "DequantizeLinear" for one in model.graph.node) >= 5
    assert check(model) == ()


def test_onnxruntimes_form_with_other_options_does_not(tmp_path: Path) -> None:
    assert rules(quantized_by_onnxruntime(tmp_path, QuantizeBias=True)) == {"bias-quantized"}
    asymmetric = quantized_by_onnxruntime(tmp_path, ActivationSymmetric=False)
    assert rules(asymmetric) == {"zero-point-nonzero"}
