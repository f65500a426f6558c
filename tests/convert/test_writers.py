"""Every operator in every format: files compute what the graph means, in float and in 8 bits."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import replace

import networks
import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from ai_edge_litert import schema_py_generated as tfl
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from conftest import folded, network_inputs
from networks import NETWORKS

from edgenet import runtimes
from edgenet.convert import onnx as onnx_writer
from edgenet.convert import openvino as openvino_writer
from edgenet.convert import tflite as tflite_writer
from edgenet.convert.description import Description
from edgenet.data import photographs
from edgenet.errors import ConversionFailed
from edgenet.graph import IMAGE, Activate, Affine, Multiply, Pool, QuantizedGraph, inputs_of
from edgenet.preprocess import Preprocessing
from edgenet.quantize import simulate
from edgenet.quantize.encode import encode
from edgenet.quantize.execute import execute
from edgenet.quantize.statistics import collect
from edgenet.runtimes.openvino import shared_core

WRITERS = {
    "onnxruntime": (onnx_writer, "onnx"),
    "openvino": (openvino_writer, "xml"),
    "litert": (tflite_writer, "tflite"),
    "litert-builtin": (tflite_writer, "tflite"),
}
DESCRIPTION = Description(
    name="sketch",
    version="0",
    licence="Apache-2.0",
    labels=tuple(f"class {n}" for n in range(10)),
    preprocessing=Preprocessing(resolution=24),
)
COUNT = 16
BUILTIN = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


def write(runtime, folder, form, precision=None):
    writer, ending = WRITERS[runtime]
    path = folder / f"file.{ending}"
    precision = precision or ("int8" if isinstance(form, QuantizedGraph) else "float32")
    getattr(writer, f"write_{precision}")(form, path, description=DESCRIPTION)
    return path


def run(runtime, path, images):
    if runtime == "litert-builtin":  # what tflite-runtime and processors without XNNPACK do
        interpreter = Interpreter(
            str(path),
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        signature = interpreter.get_signature_runner("serving_default")
        return np.concatenate([signature(image=image[None])["logits"] for image in images])
    session = runtimes.load(runtime, path)
    return np.concatenate([session.run(image[None])["logits"] for image in images])


def float_logits(graph, images):
    return execute(graph, torch.from_numpy(images), lambda *_: None).numpy()


def assert_same_steps(found, quantized, images, step):
    """Nearly all logits within two steps of the simulation, and none far off."""
    expected = simulate.answers(quantized, [image[None] for image in images])
    steps = np.abs(found - expected) / step
    assert np.quantile(steps, 0.98) < 2.01
    assert steps.max() < 5


def run_all(runtime, path, images):
    """Return every output of a file, in one layout and one after the other."""
    if runtime == "litert-builtin":
        interpreter = Interpreter(str(path), experimental_op_resolver_type=BUILTIN)
        signature = interpreter.get_signature_runner("serving_default")
        answers = [signature(image=image[None]) for image in images]
    else:
        session = runtimes.load(runtime, path)
        answers = [session.run(image[None]) for image in images]
    return {name: np.concatenate([found[name] for found in answers]) for name in answers[0]}


@pytest.mark.parametrize("runtime", WRITERS)
def test_whatever_leaves(tmp_path, runtime):
    """Maps and vectors, read on or not, in float and in 8 bits, leave in float32."""
    graph = networks.heads()
    images = networks.pictures(graph, COUNT)
    quantized = networks.min_max(graph, images)
    steps = {name: quantized.tensors[tensor].scale for tensor, name in graph.outputs.items()}
    for form, expected in (
        (graph, float_logits(graph, images)),
        (quantized, simulate.answers(quantized, [image[None] for image in images])),
    ):
        found = run_all(runtime, write(runtime, tmp_path, form), images)
        assert {name: values[:1].shape for name, values in found.items()} == graph.output_shapes
        start = 0
        for name in graph.outputs.values():
            values = found[name].reshape(COUNT, -1)
            difference = np.abs(values - expected[:, start : start + values.shape[1]])
            start += values.shape[1]
            step = 2e-6 if form is graph else steps[name]
            assert values.dtype == np.float32
            assert np.quantile(difference, 0.98) < 2.01 * step, name
            assert difference.max() < 5 * step, name


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    """A network, its pictures and its INT8 form."""
    graph = NETWORKS[request.param]()
    images = networks.pictures(graph, COUNT)
    return graph, images, networks.min_max(graph, images)


@pytest.mark.parametrize("runtime", WRITERS)
def test_float32_computes_the_graph(tmp_path, network, runtime):
    graph, images, _ = network
    expected = float_logits(graph, images)
    assert expected.std(axis=0).mean() > 0.01  # the pictures matter
    found = run(runtime, write(runtime, tmp_path, graph), images)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("runtime", ["openvino", "litert", "litert-builtin"])
def test_float16_computes_the_graph_with_rounded_weights(tmp_path, network, runtime):
    graph, images, _ = network
    expected = float_logits(graph, images)
    found = run(runtime, write(runtime, tmp_path, graph, "float16"), images)
    difference = np.abs(found - expected).max()
    assert 1e-6 < difference < 0.02


@pytest.mark.parametrize("runtime", WRITERS)
def test_int8_computes_the_graph_in_its_own_steps(tmp_path, network, runtime):
    _, images, quantized = network
    found = run(runtime, write(runtime, tmp_path, quantized), images)
    assert_same_steps(found, quantized, images, quantized.tensors["fc"].scale)


def mixed(quantized, seed):
    """Return `quantized` with random layers in float, and random tensors between those."""
    random = np.random.default_rng(seed)
    operators = quantized.graph.operators
    layers = {name: v for name, v in quantized.layers.items() if random.random() < 0.6}
    needed = {name for op in operators if op.name in layers for name in (op.name, op.input)}
    tensors = {
        name: v for name, v in quantized.tensors.items() if name in needed or random.random() < 0.5
    }
    return replace(quantized, layers=layers, tensors=tensors)


@pytest.mark.parametrize("runtime", WRITERS)
@pytest.mark.parametrize("seed", range(4))
def test_any_part_may_be_float(tmp_path, network, runtime, seed):
    _, images, quantized = network
    form = mixed(quantized, seed)
    kinds = {form.is_integer(op) for op in form.graph.operators}
    assert kinds == {True, False}
    found = run(runtime, write(runtime, tmp_path, form), images)
    assert_same_steps(found, form, images, quantized.tensors["fc"].scale)


def without_8_bits(quantized, *names):
    return replace(
        quantized, tensors={k: v for k, v in quantized.tensors.items() if k not in names}
    )


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_int8_classifier_may_make_floats(tmp_path, network, runtime):
    _, images, quantized = network
    form = without_8_bits(quantized, "fc")
    path = write(runtime, tmp_path, form)
    found = run(runtime, path, images)
    step = quantized.tensors["fc"].scale
    assert_same_steps(found, form, images, step)
    assert np.abs(found / step - np.rint(found / step)).max() > 0.1  # not rounded to bytes
    if runtime == "onnxruntime":
        assert "QGemm" in [node.op_type for node in optimised(path, tmp_path)]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "litert"])
def test_an_int8_layer_cannot_read_floats(tmp_path, network, runtime):
    _, _, quantized = network
    source = quantized.graph.operators[-1].input
    with pytest.raises(ConversionFailed, match=f"fc computes in int8 but {source} is not an 8-bit"):
        write(runtime, tmp_path, without_8_bits(quantized, source))


def constants_of(runtime, path):
    """Return what the file's 8-bit tensors are held in, and its layers' scales, weights, biases."""
    if runtime == "onnxruntime":
        graph = onnx.load(path).graph
        return {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    model = openvino.Core().read_model(path)
    return {
        name: op.data
        for op in model.get_ordered_ops()
        if op.get_type_name() == "Constant"
        for name in op.output(0).get_names()
    }


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_numbers_read_back_from_qdq(tmp_path, network, runtime):
    graph, _, quantized = network
    found = constants_of(runtime, write(runtime, tmp_path, quantized))
    left_out = openvino_writer.passing(graph) if runtime == "openvino" else frozenset()
    assert {k[: -len(".scale")] for k in found if k.endswith(".scale")} == {
        *(quantized.tensors.keys() - left_out),
        *(f"{layer}.{part}" for layer in quantized.layers for part in ("weight", "bias")),
    }
    for name, affine in quantized.tensors.items():
        if name in left_out:
            continue
        assert float(found[f"{name}.scale"].item()) == affine.scale
        assert found[f"{name}.zero_point"].item() == affine.zero_point
    for op in graph.weighted():
        layer = quantized.layers[op.name]
        bias_scale = np.float32(quantized.tensors[op.input].scale) * layer.scale
        for part, values, scale in (
            ("weight", layer.values, layer.scale),
            ("bias", layer.bias, bias_scale),
        ):
            np.testing.assert_array_equal(found[f"{op.name}.{part}.quantized"], values)
            np.testing.assert_array_equal(found[f"{op.name}.{part}.scale"], scale)


def tflite_tensors(path):
    interpreter = Interpreter(str(path), experimental_op_resolver_type=BUILTIN)
    interpreter.allocate_tensors()
    return interpreter, {d["name"]: d for d in interpreter.get_tensor_details()}


def test_numbers_read_back_from_tflite(tmp_path, network):
    graph, _, quantized = network
    interpreter, details = tflite_tensors(write("litert", tmp_path, quantized))
    found = {
        name.removesuffix("/int8"): (d["quantization"][0], d["quantization"][1] + 128)
        for name, d in details.items()
        if name.endswith("/int8")
    }
    assert found == {k: (v.scale, v.zero_point) for k, v in quantized.tensors.items()}
    for op in graph.weighted():
        layer = quantized.layers[op.name]
        weight = details[f"{op.name}/weight"]
        values = interpreter.get_tensor(weight["index"])
        axis = weight["quantization_parameters"]["quantized_dimension"]
        turned = np.moveaxis(values, axis, 0)  # output channels first, then (1,) kernel, inputs
        if values.ndim == 4:
            turned = turned.transpose(0, 3, 1, 2) if axis == 0 else turned
        np.testing.assert_array_equal(turned.reshape(layer.values.shape), layer.values)
        np.testing.assert_array_equal(weight["quantization_parameters"]["scales"], layer.scale)
        bias = interpreter.get_tensor(details[f"{op.name}/bias"]["index"])
        np.testing.assert_array_equal(bias, layer.bias)


def optimised(path, folder):
    """Return the nodes that ONNX Runtime really runs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return onnx.load(options.optimized_model_filepath).graph.node


def test_onnxruntime_leaves_float_layers_in_float(tmp_path, network):
    """Between 8-bit tensors it would quantise their weights by itself, per tensor."""
    graph, _, quantized = network
    for op in graph.weighted():
        layers = {k: v for k, v in quantized.layers.items() if k != op.name}
        path = write("onnxruntime", tmp_path, replace(quantized, layers=layers))
        kinds = Counter(node.op_type for node in optimised(path, tmp_path))
        assert kinds["QLinearConv"] + kinds["QGemm"] == len(layers)


ON_BYTES = {"Gather", "NhwcMaxPool", "Transpose", "Flatten", "QGemm"}
"""Beside QLinear...: kernels that take bytes; the one DequantizeLinear makes the logits."""
FLOAT_NODES = {
    "residual": {},
    # ONNX Runtime has no 8-bit kernel for hard-swish, and none of its own for the float one.
    "inverted_residual": {
        "DequantizeLinear": 3,
        "HardSigmoid": 3,
        "Mul": 3,
        "QuantizeLinear": 3,
    },
    "branches": {},
    # Clips that stand alone change the scale in float.
    "convolutions": {"DequantizeLinear": 3, "QuantizeLinear": 3},
    "shuffled": {},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_onnxruntime_computes_in_integers(tmp_path, name):
    graph = NETWORKS[name]()
    quantized = networks.min_max(graph, networks.pictures(graph, COUNT))
    kinds = Counter(
        node.op_type
        for node in optimised(write("onnxruntime", tmp_path, quantized), tmp_path)
        if "logits" not in node.output
        and not node.op_type.startswith("QLinear")
        and node.op_type not in ON_BYTES
    )
    assert kinds == FLOAT_NODES[name]


def test_openvino_bends_sums_and_not_bytes():
    """Between a layer and its own hard-swish, swish or sigmoid; anything else is in 8 bits."""
    assert openvino_writer.passing(networks.inverted_residual()) == {"stem", "expand", "depthwise"}
    gated = {"dilated_depthwise", "dilated_depthwise_sigmoid"}
    assert openvino_writer.passing(networks.convolutions()) == gated
    for name in ("residual", "branches", "shuffled"):
        assert openvino_writer.passing(NETWORKS[name]()) == frozenset()


def test_openvino_keeps_the_bytes_of_what_others_read_too():
    net = networks.Sketch(12)
    net.conv("given_out", 8, 3)
    net.activate("hard_swish")
    net.conv("added", 8, 1)
    net.activate("hard_swish")
    net.add(networks.Add(name="sum", inputs=("added", "added_hard_swish")))
    net.conv("gating", 8, 1)
    net.activate("sigmoid")
    net.add(Multiply(name="product", inputs=("gating_sigmoid", "sum")))
    graph = net.head()
    outputs = {**graph.outputs, "given_out": "map"}
    assert openvino_writer.passing(replace(graph, outputs=outputs)) == {"gating"}


@pytest.mark.parametrize("name", NETWORKS)
def test_openvino_computes_in_integers(tmp_path, name):
    graph = NETWORKS[name]()
    quantized = networks.min_max(graph, networks.pictures(graph, COUNT))
    compiled = shared_core().compile_model(
        write("openvino", tmp_path, quantized), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    layers = [op.get_rt_info() for op in compiled.get_runtime_model().get_ordered_ops()]
    computing = {"Convolution", "FullyConnected", "Pooling", "Concatenation", "Reduce"}
    in_float = [
        re.split("[./]", layer["originalLayersNames"].astype(str))[0]
        for layer in layers
        if layer["layerType"].astype(str) in computing
        and layer["runtimePrecision"].astype(str) not in ("u8", "i8")
    ]
    assert in_float == []


def test_openvino_does_not_turn_the_picture_for_a_first_layer_in_float(tmp_path):
    """Pixels stay where they lie until the first layer reads them, as in the full-integer form."""
    graph = NETWORKS["residual"]()
    quantized = networks.min_max(graph, networks.pictures(graph, COUNT))
    first = graph.operators[1].name
    in_float = replace(
        quantized,
        tensors={name: found for name, found in quantized.tensors.items() if name != first},
        layers={name: found for name, found in quantized.layers.items() if name != first},
    )
    compiled = shared_core().compile_model(
        write("openvino", tmp_path, in_float), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    kinds = [
        (op.get_rt_info()["layerType"].astype(str), op.get_friendly_name())
        for op in compiled.get_runtime_model().get_ordered_ops()
    ]
    before = kinds[: [kind for kind, _ in kinds].index("Convolution")]
    moved = [name for kind, name in before if kind in ("Transpose", "Reorder")]
    assert [name for name in moved if not name.endswith("_fake")] == []


def test_openvino_computes_a_stem_in_int8_that_gives_out_floats(imagenet, tmp_path):
    """Its steps and the image's are powers of two or nearly; none of that may look needless."""
    graph = folded(imagenet)
    images = network_inputs(photographs.calibration_set(), imagenet, 2)
    ranges = {
        name: (min(0.0, float(seen.low.min())), float(seen.high.max()))
        for name, seen in collect(graph, images).items()
    }
    layers = ("stem", "conv_dw_1")
    form = encode(graph, ranges, float_layers=layers, wide_layers=layers[:1], float_output=True)
    path = write("openvino", tmp_path, form)
    found = {each.name: each.precision for each in runtimes.operators("openvino", path)}
    computed = "float32" if "int8 in f32" in runtimes.load("openvino", path).device else "int8"
    assert found["stem"] == found["conv_pw_1"] == computed


def test_litert_takes_a_residual_network_whole(tmp_path):
    """No operator of it is left out of XNNPACK: one delegate, nothing between."""
    graph = networks.residual()
    quantized = networks.min_max(graph, networks.pictures(graph, COUNT))
    interpreter = Interpreter(str(write("litert", tmp_path, quantized)))
    interpreter.allocate_tensors()
    operators = [op["op_name"] for op in interpreter._get_ops_details()]
    assert operators.count("DELEGATE") == 1


def operator_versions(path):
    """Return the version of each kind of operator in a file."""
    model = tfl.ModelT.InitFromPackedBuf(path.read_bytes())
    names = {v: k for k, v in vars(tfl.BuiltinOperator).items() if k.isupper()}
    return {names[code.builtinCode]: code.version for code in model.operatorCodes}


def test_tflite_operator_versions(tmp_path):
    """As TensorFlow's op_version.cc has them; a higher one would shut out older runtimes."""
    versions = {}
    for name, network in NETWORKS.items():
        graph = network()
        quantized = networks.min_max(graph, networks.pictures(graph, COUNT))
        versions |= operator_versions(write("litert", tmp_path, quantized))
        if name == "convolutions":
            floats = operator_versions(write("litert", tmp_path, graph))
    assert versions == {
        "ADD": 2,
        "AVERAGE_POOL_2D": 2,
        "CONCATENATION": 2,
        "CONV_2D": 6,
        "DEPTHWISE_CONV_2D": 3,
        "DEQUANTIZE": 2,
        "FULLY_CONNECTED": 4,
        "GATHER": 2,
        "HARD_SWISH": 1,
        "LOGISTIC": 1,
        "MAX_POOL_2D": 2,
        "MEAN": 2,
        "MUL": 2,
        "PAD": 2,
        "PADV2": 2,
        "QUANTIZE": 1,
        "RESHAPE": 1,
        "TRANSPOSE": 2,
    }
    assert floats["DEPTHWISE_CONV_2D"] == 2
    assert floats["CONV_2D"] == 6


@pytest.mark.parametrize("runtime", WRITERS)
@pytest.mark.parametrize("clip", ["relu", "relu6", "unit"])
def test_an_affine_beyond_the_activation_does_not_undo_it(tmp_path, runtime, clip):
    """Symmetric forms, and tensors that share a concatenation's range, need the clip itself."""
    net = networks.Sketch(12)
    net.conv("clipped", 8, 3, activation=clip)
    net.activate(clip, net.conv("linear", 8, 3, source="normalised"))
    net.add(networks.Add(name="sum", inputs=("clipped", f"linear_{clip}"), activation=clip))
    graph = net.head()
    images = networks.pictures(graph, COUNT)
    form = networks.min_max(graph, images)
    wide = dict.fromkeys(("clipped", f"linear_{clip}", "sum"), Affine(scale=0.0625, zero_point=128))
    form = replace(form, tensors={**form.tensors, **wide})
    assert_same_steps(
        run(runtime, write(runtime, tmp_path, form), images),
        form,
        images,
        form.tensors["fc"].scale,
    )


@pytest.mark.parametrize("runtime", WRITERS)
@pytest.mark.parametrize("affine", [Affine(scale=1 / 256, zero_point=0), None])
def test_sigmoid_keeps_its_own_affine(tmp_path, runtime, affine):
    net = networks.Sketch(12)
    net.activate("sigmoid", net.conv("linear", 8, 3))
    graph = net.head()
    images = networks.pictures(graph, COUNT)
    form = networks.min_max(graph, images)
    if affine is not None:
        form = replace(form, tensors={**form.tensors, "linear_sigmoid": affine})
    path = write(runtime, tmp_path, form)
    assert_same_steps(run(runtime, path, images), form, images, form.tensors["fc"].scale)
    if runtime == "litert":
        assert operator_versions(path)["LOGISTIC"] == (1 if affine is None else 2)


@pytest.mark.parametrize("size", [5, 8, 9, 16])
def test_windows_of_any_shape(tmp_path, size):
    """Kernels, strides, uneven pads and dilation, in the format with paddings of its own."""
    tried = 0
    for number, (kernel, stride, pad, dilation) in enumerate(
        itertools.product((2, 3), (1, 2), (0, 1, (0, 1, 0, 1), (1, 0, 1, 0)), (1, 2))
    ):
        net = networks.Sketch(size)
        net.conv("conv", 4, kernel, stride=stride, pad=pad, dilation=dilation)
        net.conv("depthwise", 4, 2, groups=4, pad=pad, dilation=dilation)
        net.pool("max", "max", kernel, stride, pad)
        if min(net_shape(net)) < 1:  # the windows have outgrown the picture
            continue
        tried += 1
        graph = net.head()
        images = networks.pictures(graph, 2)
        folder = tmp_path / str(number)
        folder.mkdir()
        found = run("litert", write("litert", folder, graph), images)
        np.testing.assert_allclose(found, float_logits(graph, images), atol=1e-5, rtol=0)
        quantized = networks.min_max(graph, images)
        found = run("litert", write("litert", folder, quantized), images)
        assert_same_steps(found, quantized, images, quantized.tensors["fc"].scale)
    assert tried >= 20


def net_shape(net):
    return networks.infer_shapes(tuple(net.operators), net.image)[net.last]


def test_bytes_that_are_passed_on_keep_their_affine(tmp_path):
    graph = networks.branches()
    quantized = networks.min_max(graph, networks.pictures(graph, COUNT))
    for op in graph.operators:
        if isinstance(op, networks.KEEPS_BYTES):
            other = Affine(scale=0.5, zero_point=3)
            wrong = replace(quantized, tensors={**quantized.tensors, inputs_of(op)[0]: other})
            for runtime in ("onnxruntime", "openvino", "litert"):
                with pytest.raises(ConversionFailed, match="passes bytes on, but"):
                    write(runtime, tmp_path, wrong)


def test_every_operator_is_in_a_network():
    """A new operator of the graph has to join a network here."""
    from edgenet.graph import Operator

    operators = [op for network in NETWORKS.values() for op in network().operators]
    flat = {kind for member in Operator.__args__ for kind in getattr(member, "__args__", (member,))}
    assert {type(op) for op in operators} == flat
    assert {op.kind for op in operators if isinstance(op, Pool)} == {"max", "average"}
    functions = {op.function for op in operators if isinstance(op, Activate)}
    assert functions == {"relu", "relu6", "unit", "hard_swish", "sigmoid"}
    assert any(op.input == IMAGE for op in operators if not hasattr(op, "inputs"))
