"""The whole conversion: the same bytes twice, every contract kept, nothing wrong let out."""

import dataclasses
import functools
import itertools
import json
import zipfile

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from conftest import Silent, convert_quietly

from edgenet import runtimes
from edgenet.bundle import Precision
from edgenet.convert import checks, tensorrt_rules
from edgenet.convert import onnx as onnx_writer
from edgenet.convert import openvino as openvino_writer
from edgenet.convert import tflite as tflite_writer
from edgenet.convert.calibration import Calibration, CalibrationImages
from edgenet.convert.description import Description
from edgenet.convert.golden_layers import stored_weights
from edgenet.convert.limits import Int8Options
from edgenet.convert.pipeline import convert, select_targets
from edgenet.convert.source import of_reference
from edgenet.data import fashion_mnist, photographs
from edgenet.data.dataset import open_dataset
from edgenet.errors import BadData, ConversionFailed, UsageError
from edgenet.graph import Affine
from edgenet.measure.agreement import closeness
from edgenet.models.weights import Choices, load_reference
from edgenet.preprocess import prepare
from edgenet.quantize import execute, simulate
from edgenet.quantize.form import calibrate, make_form
from edgenet.quantize.recipe import load_recipe
from edgenet.quantize.windows import windows
from edgenet.runtimes.torch import TorchSession

KERNELS = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # a delegate hides tensors


def random_reference(**choices):
    return load_reference("random", Choices(width_multiplier=0.25, resolution=32, **choices))


def contents(bundle):
    return {
        path.relative_to(bundle.root): path.read_bytes()
        for path in bundle.root.rglob("*")
        if path.is_file()
    }


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


def read_qdq(runtime, path):
    """Return {tensor: (scale, zero point of uint8)} and {layer: (scales, integers)} of a file."""
    if runtime == "onnxruntime":
        found = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    else:
        found = {
            name: op.data
            for op in openvino.Core().read_model(str(path)).get_ordered_ops()
            if op.get_type_name() == "Constant"
            for name in op.output(0).get_names()
        }
    parts = {name.removesuffix(".quantized") for name in found if name.endswith(".quantized")}
    tensors = {
        name.removesuffix(".scale"): (
            float(scale.item()),
            int(found[name.replace(".scale", ".zero_point")].item()),
        )
        for name, scale in found.items()
        if name.endswith(".scale") and name.removesuffix(".scale") not in parts
    }
    layers = {
        part: (found[f"{part}.scale"].ravel(), found[f"{part}.quantized"].astype(int).ravel())
        for part in parts
    }
    return tensors, layers


def read_tflite(path, sums):
    """Return the same; int8 holds a zero point less 128.

    The classifier's weights have more columns than it has inputs, and its bias another value, as
    `edgenet.quantize.windows` says; what they stand for is returned.
    """
    interpreter = Interpreter(str(path), experimental_op_resolver_type=KERNELS)
    interpreter.allocate_tensors()
    tensors, layers = {}, {}
    for detail in interpreter.get_tensor_details():
        name, parameters = detail["name"], detail["quantization_parameters"]
        if name.endswith("/int8") and "/window" not in name:
            scale, zero_point = detail["quantization"]
            tensors[name.removesuffix("/int8")] = (float(scale), zero_point + 128)
        elif name.endswith("/weight") and detail["dtype"] == np.int8:
            values = interpreter.get_tensor(detail["index"])
            axis = parameters["quantized_dimension"]
            if values.ndim == 4:  # NHWC; a depthwise layer has its channels last
                values = values.transpose((3, 0, 1, 2) if axis == 3 else (0, 3, 1, 2))
            key = name.replace("/", ".")
            layers[key] = (parameters["scales"], values.astype(int).ravel())
        elif name.endswith("/bias") and detail["dtype"] == np.int32:
            layers[name.replace("/", ".")] = (None, interpreter.get_tensor(detail["index"]))
    affine = Affine(scale=sums["scale"], zero_point=sums["zero_point"])
    scales, inputs = layers["fc.weight"][0], layers["conv_pw_13.bias"][1].size
    columns = layers["fc.weight"][1].reshape(len(scales), -1)
    layers["fc.weight"] = (scales, columns[:, :inputs].ravel())
    first = windows(affine).shifts[0]
    steps = np.float32(tensors["pool"][0]) * scales
    layers["fc.bias"] = (None, layers["fc.bias"][1] + np.rint(first / steps.astype(np.float64)))
    return tensors, layers


@pytest.fixture(scope="module", params=["default", "full-integer"])
def int8_bundle(request, fashion, small_bundle, tmp_path_factory):
    if request.param == "default":
        return small_bundle
    return convert_quietly(
        fashion,
        tmp_path_factory.mktemp("full") / "integer",
        targets=select_targets((), (Precision.INT8,)),
        int8=Int8Options(recipe=load_recipe("minmax"), full_integer=True),
    )


def int8_artifacts(bundle):
    """Return the encodings of the one quantised model, by runtime."""
    return {a.runtime: a for a in bundle.artifacts if a.quantization == "int8"}


def test_one_int8_model_in_three_formats(int8_bundle):
    """Every scale, zero point, weight and bias read back out of the files; and the document's."""
    document = json.loads((int8_bundle.root / "quantization.json").read_text("utf-8"))
    form = document["forms"]["int8"]
    written = {
        name: (entry["scale"], entry["zero_point"])
        for name, entry in form["tensors"].items()
        if entry["held_in"] == "8 bits"
    }
    float_layers = int8_bundle.quantizations[0].float_layers
    assert tuple(form["float_layers"]) == float_layers
    assert len(form["layers"]) == 28 - len(float_layers)
    readings = {
        runtime: read_tflite(int8_bundle.path(artifact), form["tensors"]["fc"])
        if runtime == "litert"
        else read_qdq(runtime, int8_bundle.path(artifact))
        for runtime, artifact in int8_artifacts(int8_bundle).items()
    }
    assert readings.keys() == {"onnxruntime", "openvino", "litert"}
    _, expected = readings["onnxruntime"]
    for tensors, layers in readings.values():
        assert tensors == written
        assert layers.keys() == expected.keys()
        for name, (scale, values) in layers.items():
            np.testing.assert_array_equal(values, expected[name][1])
            layer, _, part = name.rpartition(".")
            if part == "weight":
                np.testing.assert_array_equal(scale, form["layers"][layer]["weight"]["scale"])
    assert {name.rpartition(".")[0] for name in expected} == form["layers"].keys()


def test_the_document_has_what_tflite_holds_instead_of_sums(int8_bundle):
    document = json.loads((int8_bundle.root / "quantization.json").read_text("utf-8"))
    told = document["forms"]["int8"]["tensors"]["fc"]
    artifact = int8_artifacts(int8_bundle)["litert"]
    interpreter = Interpreter(model_path=str(int8_bundle.path(artifact)))
    interpreter.allocate_tensors()
    held = {tensor["name"]: tensor["quantization"] for tensor in interpreter.get_tensor_details()}
    assert told["held_in"] == "float32"
    assert len(told["windows"]["shifts"]) == 4
    scale, zero_point = held["fc/windows/int8"]
    assert (scale, zero_point + 128) == (told["windows"]["scale"], told["windows"]["zero_point"])
    assert "less 128" in document["conventions"]["zero_point"]
    moved = document["forms"]["int8"]["layers"]["conv_pw_5"]["moved_by"]
    assert moved["equalisation"]["weights_times_most"] > 1
    assert 0 < moved["learned_rounding"]["rounded_otherwise"] < moved["learned_rounding"]["weights"]
    assert moved["bias_correction"]["shift_rms"] > 0


def test_a_limit_holds_the_model_that_is_written(fashion, make_bundle, progress):
    """TensorRT's alone is held to it; beside the common one a miss is told."""
    options = {"int8": Int8Options(recipe=load_recipe("minmax"), min_sqnr_db=38.5)}
    alone = make_bundle(fashion, "alone", targets=select_targets(("tensorrt",), ()), **options)
    assert [q.name for q in alone.quantizations] == ["int8-tensorrt"]
    assert alone.quantizations[0].sqnr_db >= 38.5
    targets = select_targets(("tensorrt", "litert"), (Precision.INT8,))
    both = make_bundle(fashion, "both", targets=targets, progress=progress, **options)
    common, second = both.quantizations
    assert common.sqnr_db >= 38.5 > second.sqnr_db
    (warning,) = (text for text in progress.warnings if "TensorRT" in text)
    assert "misses --min-sqnr 38.5 by" in warning


def test_runtimes_agree(int8_bundle):
    """On at most 2 of 133 test images do any two differ in the best class."""
    samples = fashion_mnist.test_set().draw(133, seed=2).samples
    images = [prepare(sample.read(), int8_bundle.preprocessing) for sample in samples]
    best = {}
    for runtime, artifact in int8_artifacts(int8_bundle).items():
        session = runtimes.load(runtime, int8_bundle.path(artifact))
        best[runtime] = np.array([session.run(image)["logits"].argmax() for image in images])
        session.close()
    assert len(best) == 3
    for first, second in itertools.combinations(best.values(), 2):
        assert (first != second).sum() <= 2
    assert len(set(best["litert"])) == 10


def test_tensorrt_gets_a_model_of_its_own(int8_bundle):
    (variant,) = (a for a in int8_bundle.artifacts if a.variant == "tensorrt")
    plain = int8_artifacts(int8_bundle)["onnxruntime"]
    assert "tensorrt" in variant.files[0]
    assert tensorrt_rules.check(int8_bundle.path(variant)) == ()
    assert "zero-point-nonzero" in {v.rule for v in tensorrt_rules.check(int8_bundle.path(plain))}
    forms = json.loads((int8_bundle.root / "quantization.json").read_text("utf-8"))["forms"]
    common, symmetric = forms["int8"], forms["int8-tensorrt"]
    assert (common["symmetric"], symmetric["symmetric"]) == (False, True)
    assert {entry["zero_point"] for entry in symmetric["tensors"].values()} == {128}
    assert common["tensors"]["conv_pw_5"]["scale"] < symmetric["tensors"]["conv_pw_5"]["scale"]
    names = [q.name for q in int8_bundle.quantizations]
    assert names == ["int8", "int8-tensorrt"] == list(forms)
    assert int8_bundle.quantizations[1].sqnr_db > 25


MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """A network whose mean and deviation differ by channel, in integers throughout."""
    reference = dataclasses.replace(random_reference(), mean=MEAN, std=STD)
    return convert_quietly(
        reference,
        tmp_path_factory.mktemp("uneven") / "bundle",
        targets=select_targets(("onnxruntime", "litert"), (Precision.INT8,)),
        calibration=Calibration(dataset=photographs.calibration_set(), samples=16, seed=0),
        int8=Int8Options(recipe=load_recipe("minmax"), full_integer=True),
    )


def test_a_normaliser_for_each_channel_is_in_integers(uneven, tmp_path):
    """No float operator but those that make the logits from the classifier's integers."""
    files = int8_artifacts(uneven)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    path = str(uneven.path(files["onnxruntime"]))
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
    others = [
        node.op_type
        for node in nodes
        if not node.op_type.startswith("QLinear") and "logits" not in node.output
    ]
    assert sum(node.op_type == "QLinearConv" for node in nodes) == 28
    assert set(others) <= {"Transpose", "Flatten", "Reshape"}
    interpreter = Interpreter(
        str(uneven.path(files["litert"])), experimental_op_resolver_type=KERNELS
    )
    interpreter.allocate_tensors()
    floats = {
        detail["name"]
        for detail in interpreter.get_tensor_details()
        if detail["dtype"] == np.float32
    }
    assert all(name in ("", "logits") or name.startswith("fc/") for name in floats)


def test_the_padded_border_is_padded_with_zero_and_not_with_a_byte(uneven):
    """The first padded layer's bytes in ONNX Runtime, border included, are the simulation's."""
    reference = dataclasses.replace(random_reference(), mean=MEAN, std=STD)
    source = of_reference(reference)
    samples = photographs.calibration_set().draw(16, seed=0).samples
    images = [prepare(sample.read(), source.preprocessing) for sample in samples]
    calibrated = calibrate(source.graph, images, load_recipe("minmax"), seed=0, progress=Silent())
    form = make_form(calibrated, (), progress=Silent()).quantized
    model = onnx.load_from_string(
        onnx_writer.encode(
            form,
            Description(
                name="uneven",
                version="0",
                licence="none",
                labels=source.labels,
                preprocessing=source.preprocessing,
            ),
        )
    )
    (node,) = (
        n for n in model.graph.node if "stem.scale" in n.input and n.op_type == "QuantizeLinear"
    )
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.UINT8, None)
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = {}
    for image in images[:4]:
        (bytes_,) = session.run([node.output[0]], {"image": image})
        simulate.execute(form, torch.from_numpy(image), expected.__setitem__)
        wanted = simulate.to_bytes(expected["stem"], form.tensors["stem"]).numpy()
        assert bytes_.shape == wanted.shape
        assert len(np.unique(wanted)) > 20
        difference = np.abs(bytes_.astype(int) - wanted.astype(int))
        # A sum next to a half may tip; a border padded wrongly is off by many steps.
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.002
        assert not difference[..., -1, :].any() and not difference[..., -1].any()


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
    with pytest.raises(UsageError, match="unknown runtime 'tensorflow'"):
        select_targets(("tensorflow",), ())
    for runtime, precision in (
        ("onnxruntime", Precision.FLOAT16),
        ("tensorrt", Precision.FLOAT32),
    ):
        wanted = f"nothing is written for {runtime} {precision.value}"
        with pytest.raises(UsageError, match=wanted):
            select_targets((runtime,), (precision,))


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


def test_a_network_read_wrongly_is_not_let_out(fashion, tmp_path):
    """INT8 alone is off by so much anyway that its files could not tell."""
    source = of_reference(fashion)
    wrong = dataclasses.replace(source, graph=with_flipped_layer(source.graph))
    with pytest.raises(ConversionFailed, match="edgenet's own reading of it differs"):
        convert(
            wrong,
            tmp_path / "bundle",
            targets=select_targets(("litert",), (Precision.INT8,)),
            calibration=Calibration(dataset=fashion_mnist.calibration_set(), samples=16, seed=0),
            int8=Int8Options(recipe=load_recipe("minmax")),
            progress=Silent(),
        )
    assert list(tmp_path.iterdir()) == []


def test_a_runtime_that_computes_something_else_is_noticed(small_bundle, fashion):
    """The file's numbers mean one thing, and what comes out is another."""
    source = of_reference(fashion)
    samples = fashion_mnist.calibration_set().draw(16, seed=0).samples
    inputs = tuple(prepare(sample.read(), source.preprocessing) for sample in samples)
    images = CalibrationImages(samples=samples, inputs=inputs, sha256=("",) * len(inputs))
    recipe = load_recipe("minmax")
    calibrated = calibrate(source.graph, inputs, recipe, seed=0, progress=Silent())
    form = make_form(calibrated, (), progress=Silent())
    artifacts = [a for a in small_bundle.artifacts if a.quantization == "int8"]
    check = functools.partial(checks.check_artifacts, small_bundle.root, progress=Silent())
    check(artifacts, source, images, {"int8": form})
    flipped = dataclasses.replace(source, graph=with_flipped_layer(source.graph))
    other = dataclasses.replace(
        flipped, answers=lambda images: execute.answers(flipped.graph, [x[None] for x in images])
    )
    wrong = calibrate(other.graph, inputs, recipe, seed=0, progress=Silent())
    with pytest.raises(ConversionFailed, match="does not compute what the file says"):
        check(artifacts, other, images, {"int8": make_form(wrong, (), progress=Silent())})


def with_flipped_layer(graph):
    """Return the network with the sign of one layer's weights turned."""
    operators = tuple(
        dataclasses.replace(op, weight=-op.weight) if op.name == "conv_pw_5" else op
        for op in graph.operators
    )
    return dataclasses.replace(graph, operators=operators)


def test_a_bad_calibration_image_is_left_out_and_named(make_bundle, tmp_path, progress):
    (tmp_path / "a.jpg").write_text("no picture")
    dataset = fashion_mnist.calibration_set().draw(8, seed=0)
    bad = open_dataset(str(tmp_path), labelled=False).samples
    mixed = dataclasses.replace(dataset, samples=(*bad, *dataset.samples))
    bundle = make_bundle(
        random_reference(),
        targets=select_targets(("onnxruntime",), (Precision.INT8,)),
        calibration=Calibration(dataset=mixed, samples=9, seed=0),
        progress=progress,
    )
    assert bundle.calibration.count == 8
    warning = progress.warnings[0]
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


def test_a_layer_that_gives_out_its_sums_is_one_layer_in_three_formats(fashion, tmp_path):
    """OpenVINO's file holds its bytes and computes in them; the others' floats are those bytes."""
    source = of_reference(fashion)
    samples = fashion_mnist.test_set().draw(32, seed=0).samples
    images = [prepare(sample.read(), source.preprocessing) for sample in samples]
    calibrated = calibrate(source.graph, images, load_recipe("minmax"), seed=0, progress=Silent())
    form = make_form(calibrated, ("stem", "conv_dw_1"), progress=Silent()).quantized
    assert form.sums.keys() == {"stem", "fc"} and "stem" not in form.tensors
    description = Description(
        name="wide",
        version="0",
        licence="none",
        labels=source.labels,
        preprocessing=source.preprocessing,
    )
    files = {
        "onnxruntime": (onnx_writer, tmp_path / "wide.onnx"),
        "openvino": (openvino_writer, tmp_path / "wide.xml"),
        "litert": (tflite_writer, tmp_path / "wide.tflite"),
    }
    expected = simulate.answers(form, images)
    for runtime, (writer, path) in files.items():
        writer.write_int8(form, path, description=description)
        session = runtimes.load(runtime, path)
        found = np.concatenate([session.run(image)["logits"] for image in images])
        session.close()
        assert closeness(found, expected).sqnr_db > 40
    weights = form.layers["stem"]
    real = weights.values * weights.scale.reshape(-1, 1, 1, 1)
    for known, held in zip(stored_weights(form)["stem"], (weights.values, real), strict=True):
        np.testing.assert_array_equal(known, held)  # so that verify finds either in a file
    _, layers = read_qdq("openvino", files["openvino"][1])
    np.testing.assert_array_equal(layers["stem.weight"][1], weights.values.ravel())
    initializers = onnx.load(files["onnxruntime"][1]).graph.initializer
    (written,) = (onnx.numpy_helper.to_array(t) for t in initializers if t.name == "stem.weight")
    np.testing.assert_array_equal(written, real)
    interpreter = Interpreter(str(files["litert"][1]), experimental_op_resolver_type=KERNELS)
    interpreter.allocate_tensors()
    (index,) = (t["index"] for t in interpreter.get_tensor_details() if t["name"] == "stem/weight")
    np.testing.assert_array_equal(interpreter.get_tensor(index).transpose(0, 3, 1, 2), real)
