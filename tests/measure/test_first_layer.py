"""The layer at which an artefact begins to differ from the host's is named, and rightly.

Weights are found in the files by their bytes in the ONNX artefacts, not by what the bundle says of
where they lie. `verify` goes by a `Bundle` that was loaded before its file was changed: as if every
hash had been written anew, which two tests do.
"""

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import onnx
import pytest
from sealed import seal, seal_with_vectors

from edgenet.bundle import Precision
from edgenet.cli import run
from edgenet.golden import LAYERS, TABLE, read_golden, read_layer_means
from edgenet.manifest import load_bundle
from edgenet.measure.verify import verify

LABELS = [
    *("onnxruntime float32", "onnxruntime int8"),
    *("openvino float32", "openvino float16", "openvino int8"),
    *("litert float32", "litert float16", "litert int8"),
    "onnxruntime int8 tensorrt",
]
LAYERS_OF_IT = ["stem", *(f"conv_{part}_{n}" for n in range(1, 14) for part in ("dw", "pw")), "fc"]
LAYOUTS = [(0, 1, 2, 3), (0, 2, 3, 1), (1, 2, 3, 0)]


@pytest.fixture
def bundle(small_bundle, tmp_path):
    """A bundle that may be changed."""
    return load_bundle(shutil.copytree(small_bundle.root, tmp_path / "bundle"))


@cache
def initializers(path):
    found = onnx.load(path).graph.initializer
    return {each.name: onnx.numpy_helper.to_array(each) for each in found}


def weights_of(bundle, artifact, layer):
    """Return a layer's weights as the artefact stores them but for their order, and their size."""
    integer = artifact.precision is Precision.INT8
    source = next(
        each
        for each in bundle.select(("onnxruntime", "tensorrt"))
        if (each.precision is Precision.INT8) == integer and each.variant == artifact.variant
    )
    there = initializers(bundle.path(source))
    if f"{layer}.weight.quantized" in there:
        values = there[f"{layer}.weight.quantized"]
        scale = there[f"{layer}.weight.scale"].reshape(-1, *[1] * (values.ndim - 1))
        return values, np.abs(values * scale)
    values = there.get(f"{layer}.weight", there.get(f"{layer}.weight.float"))
    assert values is not None, layer
    stored = values.astype(np.float16) if artifact.precision is Precision.FLOAT16 else values
    return stored, np.abs(values)


def flip(bundle, artifact, layer, *, place=0):
    """Turn the sign of a layer's largest weight, or of the one that is so many places below."""
    values, size = weights_of(bundle, artifact, layer)
    path = bundle.root / artifact.files[-1]
    data = path.read_bytes()
    where = np.unravel_index(np.argsort(-size, axis=None)[place], size.shape)
    changed = values.copy()
    changed[where] = -changed[where]
    for layout in LAYOUTS if values.ndim == 4 else [(0, 1)]:
        before, after = (each.transpose(layout).tobytes() for each in (values, changed))
        if data.count(before) == 1:
            path.write_bytes(data.replace(before, after))
            return
    # A layer written as a larger one has further columns between its rows.
    before, after = values[where[0]].tobytes(), changed[where[0]].tobytes()
    if data.count(before) == 1:
        path.write_bytes(data.replace(before, after))
        return
    raise AssertionError(f"{layer} is not found in {path}")


def artifact_of(bundle, label):
    (found,) = (artifact for artifact in bundle.artifacts if artifact.label == label)
    return found


def failing(bundle, label):
    """Return the verdict on one artefact, which must fail."""
    (verdict,) = verify(bundle, [artifact_of(bundle, label)]).failed
    return verdict


def forget_weights(bundle):
    """Leave out of the golden vectors where weights lie."""
    path = bundle.root / TABLE
    table = json.loads(path.read_text("utf-8"))
    for row in table["artifacts"]:
        for entry in row["layers"]:
            entry["weights"] = None
    path.write_text(json.dumps(table), "utf-8")


def some_layers(label):
    """Return all layers, or every fifth where the runtime takes long to load."""
    return LAYERS_OF_IT[::5] if label.startswith("openvino") else LAYERS_OF_IT


@contextmanager
def flipped(bundle, artifact, layer, *, place=0):
    """Flip a weight for the time of a block."""
    path = bundle.root / artifact.files[-1]
    original = path.read_bytes()
    flip(bundle, artifact, layer, place=place)
    yield
    path.write_bytes(original)


@pytest.mark.parametrize("label", LABELS)
def test_the_flipped_sign_of_a_layers_largest_weight(bundle, label):
    """Also where no picture shows it: the input of that weight may always be 0."""
    artifact = artifact_of(bundle, label)
    for layer in some_layers(label):
        with flipped(bundle, artifact, layer):
            found = failing(bundle, label).first_layer
        assert (found.layer, found.same_weights) == (layer, False)


@pytest.mark.parametrize("label", LABELS)
def test_what_a_layer_makes_names_it_alone(bundle, label):
    """As where the file is the host's and the kernel is not: the means must tell."""
    forget_weights(bundle)
    artifact = artifact_of(bundle, label)
    named = {}
    layers = some_layers(label)
    for layer in layers:
        for place in range(5):  # until one is no dead channel's
            with flipped(bundle, artifact, layer, place=place):
                failed = verify(bundle, [artifact]).failed
            if failed:
                named[layer] = failed[0].first_layer.layer
                assert failed[0].first_layer.same_weights is None
                break
    assert named == {layer: layer for layer in named}
    assert len(named) >= len(layers) / 2


def test_the_report_names_it(bundle, capsys):
    label = "litert int8"
    flip(bundle, artifact_of(bundle, label), "conv_pw_6")
    seal_with_vectors(bundle)
    assert run(["verify", str(bundle.root), "--json"]) == 1
    shown = capsys.readouterr()
    entries = {
        tuple(each["artifact"].values())[:2]: each for each in json.loads(shown.out)["artifacts"]
    }
    first = entries["litert", "int8"]["first_layer"]
    assert first["layer"] == "conv_pw_6"
    assert first["same_weights"] is False
    assert first["means"]["difference"] > first["means"]["allowed"]
    other = entries["openvino", "int8"]
    assert (other["first_layer"], other["first_layer_reason"]) == (
        None,
        "it answers as on the host",
    )
    last = shown.err.splitlines()[-1]
    assert "litert int8 from layer conv_pw_6 on: not as on the host; a file is not the" in last
    assert run(["verify", str(bundle.root), "--runtime", "litert"]) == 1
    assert (
        "litert int8: it begins at layer conv_pw_6: the mean of its channel"
        in capsys.readouterr().out
    )


def test_a_file_of_another_length_is_not_searched_for_weights(bundle):
    (artifact,) = bundle.select(("onnxruntime",), (Precision.FLOAT32,))
    model = onnx.load(bundle.path(artifact))
    model.doc_string = "changed"
    onnx.save(model, bundle.path(artifact))
    found = failing(seal(bundle), artifact.label)
    assert found.failure == "is not the file that the host ran, though it answers alike"
    assert found.first_layer == "every layer is as near to the host's as it must be"


def test_other_pixels_are_no_layers_fault(bundle):
    artifact = artifact_of(bundle, "litert int8")
    picture = bundle.root / "golden/0.jpg"
    cv2.imwrite(str(picture), 255 - cv2.imread(str(picture)))
    flip(bundle, artifact, "conv_pw_6")
    found = failing(seal(bundle), artifact.label)
    assert found.first_layer == "the pixels differ already"


def test_bundles_before_layers_were_in_them(bundle):
    path = bundle.root / TABLE
    table = json.loads(path.read_text("utf-8"))
    table["schema_version"] = "1.1"
    for row in table["artifacts"]:
        del row["layers"], row["file_bytes"]
    path.write_text(json.dumps(table))
    (bundle.root / LAYERS).unlink()
    old = replace(
        bundle,
        golden=replace(bundle.golden, layers=None),
        files=tuple(file for file in bundle.files if file.path != LAYERS),
    )
    assert verify(seal(old), old.artifacts).holds
    flip(old, artifact_of(old, "litert int8"), "fc")
    found = failing(seal(old), "litert int8")
    assert "the bundle does not hold what each layer made on the host" in found.first_layer


@pytest.mark.parametrize(
    "values",
    [np.zeros(3, np.float32), np.zeros((2, 2), np.float32), np.array([{}])],
    ids=["too few", "no row", "objects"],
)
def test_layer_values_that_cannot_be_read(bundle, values, capsys):
    np.save(bundle.root / LAYERS, values, allow_pickle=True)
    flip(bundle, artifact_of(bundle, "litert int8"), "fc")
    seal(bundle)
    assert run(["verify", str(bundle.root), "--runtime", "litert"]) == 1
    (line,) = (each for each in capsys.readouterr().err.splitlines() if "layers.npy" in each)
    assert "convert again" in line


def test_every_layer_of_every_artefact_is_in_the_bundle(bundle):
    golden = read_golden(bundle)
    means = read_layer_means(bundle, golden)
    assert list(means) == LABELS
    for label in LABELS:
        layers = golden.expected[label].layers
        assert [layer.layer for layer in layers] == ["normalised", *LAYERS_OF_IT[:-1], "pool", "fc"]
        assert [len(each) for each in means[label]] == [layer.channels for layer in layers]
        assert [layer.layer for layer in layers if layer.weights is None] == ["normalised", "pool"]
    assert (bundle.root / LAYERS).stat().st_size < 250_000
