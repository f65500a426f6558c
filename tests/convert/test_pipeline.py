"""The whole conversion: the same bytes twice, every contract kept, nothing wrong let out."""

import dataclasses
import json
import zipfile

import numpy as np
import onnx
import openvino
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgenet import runtimes
from edgenet.bundle import Precision
from edgenet.convert.pipeline import Calibration, select_targets
from edgenet.data import fashion_mnist
from edgenet.data.dataset import open_dataset
from edgenet.errors import BadData, ConversionFailed, UsageError
from edgenet.models.weights import Choices, load_reference
from edgenet.runtimes.torch import TorchSession

KERNELS = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # a delegate hides tensors


def random_reference(**choices):
    return load_reference("random", Choices(width_multiplier=0.25, resolution=32, **choices))


def contents(bundle):
    return {path.name: path.read_bytes() for path in bundle.root.iterdir()}


def test_twice_the_same_bytes(make_bundle, fashion, small_bundle):
    assert contents(make_bundle(fashion, "another/name")) == contents(small_bundle)


def test_a_gamma_moves_every_float_artefact_alike(make_bundle):
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    reference = random_reference()
    with torch.no_grad():
        reference.module.conv_pw_3.bn.weight.mul_(1.05)
    changed = make_bundle(reference)
    expected = TorchSession(
        reference.module, resolution=32, mean=reference.mean, std=reference.std
    ).run(image)["logits"]
    unchanged = TorchSession(
        random_reference().module, resolution=32, mean=reference.mean, std=reference.std
    ).run(image)["logits"]
    moved = np.abs(expected - unchanged).max()
    assert moved > 1e-3
    for artifact in changed.artifacts:
        if artifact.precision is not Precision.INT8:
            session = runtimes.load(artifact.runtime, changed.path(artifact))
            difference = np.abs(session.run(image)["logits"] - expected).max()
            exact = artifact.precision is Precision.FLOAT32
            assert difference < (1e-5 if exact else moved / 2)


def test_input_and_output_contract(small_bundle):
    for artifact in small_bundle.artifacts:
        path = str(small_bundle.path(artifact))
        if artifact.runtime == "onnxruntime":
            graph = onnx.load(path).graph
            (source,), (target,) = graph.input, graph.output
            assert (source.name, target.name) == ("image", "logits")
            assert source.type.tensor_type.elem_type == onnx.TensorProto.UINT8
            assert target.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
            assert [d.dim_value for d in source.type.tensor_type.shape.dim] == [1, 64, 64, 3]
        elif artifact.runtime == "openvino":
            model = openvino.Core().read_model(path)
            assert (model.input(0).get_names(), model.output(0).get_names()) == (
                {"image"},
                {"logits"},
            )
            assert model.input(0).get_element_type() == openvino.Type.u8
            assert list(model.input(0).shape) == [1, 64, 64, 3]
            assert list(model.output(0).shape) == [1, 10]
        else:
            interpreter = Interpreter(path)
            (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
            assert (source["name"], source["dtype"]) == ("image", np.uint8)
            assert (target["name"], target["dtype"]) == ("logits", np.float32)
            assert source["shape"].tolist() == [1, 64, 64, 3]


def test_metadata_in_every_format(small_bundle):
    labels, spec = list(small_bundle.labels), small_bundle.preprocessing.spec()
    for artifact in small_bundle.artifacts:
        path = small_bundle.path(artifact)
        if artifact.runtime == "onnxruntime":
            properties = {p.key: p.value for p in onnx.load(path).metadata_props}
            assert json.loads(properties["edgenet.labels"]) == labels
            assert json.loads(properties["edgenet.preprocessing"]) == spec
        elif artifact.runtime == "openvino":
            model = openvino.Core().read_model(path)
            found = model.get_rt_info(["model_info", "labels"]).astype(str)
            assert found.split() == [label.replace(" ", "_") for label in labels]
            kind = model.get_rt_info(["model_info", "model_type"]).astype(str)
            assert kind == "Classification"
            assert not model.has_rt_info(["model_info", "mean_values"])
        else:
            with zipfile.ZipFile(path) as attached:
                assert attached.read("labels.txt").decode().splitlines() == labels


def test_one_int8_model_in_three_formats(small_bundle):
    """Scales and zero points read back out of the ONNX and the TFLite file are the same."""
    (onnx_file,) = small_bundle.select(("onnxruntime",), (Precision.INT8,))
    graph = onnx.load(small_bundle.path(onnx_file)).graph
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    affines = {
        (float(constants[n.input[1]]), int(constants[n.input[2]]) - 128)
        for n in graph.node
        if n.op_type == "QuantizeLinear"
    }
    weights = {
        constants[name].astype(np.int8).tobytes(): name
        for name in constants
        if name.endswith("weight.quantized")
    }
    (tflite_file,) = small_bundle.select(("litert",), (Precision.INT8,))
    interpreter = Interpreter(
        str(small_bundle.path(tflite_file)), experimental_op_resolver_type=KERNELS
    )
    interpreter.allocate_tensors()
    found, integers = set(), 0
    for detail in interpreter.get_tensor_details():
        scales = detail["quantization_parameters"]["scales"]
        if detail["dtype"] != np.int8:
            continue
        if len(scales) == 1 and detail["quantization_parameters"]["zero_points"][0] != 0:
            found.add((float(scales[0]), int(detail["quantization_parameters"]["zero_points"][0])))
        elif len(scales) > 1:
            values = interpreter.get_tensor(detail["index"])
            if values.ndim == 4 and values.shape[0] == 1:
                values = values.transpose(3, 0, 1, 2)
            elif values.ndim == 4:
                values = values.transpose(0, 3, 1, 2)
            assert values.tobytes() in weights
            integers += 1
    assert integers == 28
    assert found == {affine for affine in affines if affine[1] != 0}


def test_only_what_was_asked_for(make_bundle):
    targets = select_targets(("litert", "openvino"), (Precision.FLOAT16,))
    bundle = make_bundle(random_reference(), targets=targets)
    assert {(a.runtime, a.precision) for a in bundle.artifacts} == {
        ("openvino", Precision.FLOAT16),
        ("litert", Precision.FLOAT16),
    }
    assert bundle.calibration is None
    assert not bundle.model.trained


def test_targets_that_do_not_exist():
    with pytest.raises(UsageError, match="unknown runtime 'tensorrt'"):
        select_targets(("tensorrt",), ())
    with pytest.raises(UsageError, match="nothing is written for onnxruntime float16"):
        select_targets(("onnxruntime",), (Precision.FLOAT16,))


def test_the_seed_chooses_the_calibration_images(make_bundle):
    targets = select_targets(("onnxruntime",), (Precision.INT8,))
    dataset = fashion_mnist.calibration_set()
    identities = {
        make_bundle(
            random_reference(),
            f"bundle{seed}{number}",
            targets=targets,
            calibration=Calibration(dataset=dataset, samples=9, seed=seed),
        ).calibration.sha256
        for number, seed in enumerate((1, 1, 2))
    }
    assert len(identities) == 2


def test_calibration_without_pictures(make_bundle, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a.jpg").write_text("no picture")
    dataset = open_dataset(str(tmp_path / "set"), labelled=False)
    with pytest.raises(BadData, match="no calibration image can be read"):
        make_bundle(random_reference(), calibration=Calibration(dataset=dataset, samples=9, seed=0))


@pytest.mark.parametrize("value", [0.0, float("nan")], ids=["constant", "not finite"])
def test_a_dead_network_is_not_let_out(make_bundle, tmp_path, value):
    reference = random_reference()
    with torch.no_grad():
        reference.module.fc.weight.fill_(value)
        reference.module.fc.bias.fill_(value)
    with pytest.raises(ConversionFailed, match="constant or not finite"):
        make_bundle(reference, targets=select_targets(("onnxruntime",), (Precision.FLOAT32,)))
    assert list(tmp_path.iterdir()) == []


def test_a_bad_calibration_image_is_left_out_and_named(make_bundle, tmp_path, progress):
    (tmp_path / "a.jpg").write_text("no picture")
    dataset = fashion_mnist.calibration_set().draw(3, seed=0)
    bad = open_dataset(str(tmp_path), labelled=False).samples
    mixed = dataclasses.replace(dataset, samples=(*bad, *dataset.samples))
    bundle = make_bundle(
        random_reference(),
        targets=select_targets(("onnxruntime",), (Precision.INT8,)),
        calibration=Calibration(dataset=mixed, samples=9, seed=0),
        progress=progress,
    )
    assert bundle.calibration.count == 3
    (warning,) = progress.warnings
    assert warning.startswith("left out of the calibration: ")
    assert "a.jpg" in warning


def test_a_label_of_two_lines_is_refused(make_bundle):
    reference = random_reference()
    labels = ("two\u2028lines", *reference.labels[1:])
    with pytest.raises(BadData, match="line break"):
        make_bundle(
            dataclasses.replace(reference, labels=labels),
            targets=select_targets(("onnxruntime",), (Precision.FLOAT32,)),
        )
