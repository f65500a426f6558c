"""One suite for every runtime that there is a file for."""

import subprocess
import sys

import numpy as np
import pytest

from edgenet import runtimes
from edgenet.bundle import Precision
from edgenet.data import fashion_mnist
from edgenet.errors import RuntimeRefused, UsageError
from edgenet.preprocess import prepare
from edgenet.runtimes.torch import TorchSession

PACKAGES = {
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "litert": ("ai_edge_litert", "tflite_runtime"),
}
LAYERS = ["stem", *(f"conv_{part}_{n}" for n in range(1, 14) for part in ("dw", "pw"))]
"""The convolutions of the network, in order."""


@pytest.fixture(params=runtimes.names())
def runtime(request):
    return request.param


@pytest.fixture
def artifact(runtime, small_bundle):
    (found,) = small_bundle.select((runtime,), (Precision.FLOAT32,))
    return found


@pytest.fixture
def session(runtime, artifact, small_bundle):
    session = runtimes.load(runtime, small_bundle.path(artifact), threads=1)
    yield session
    session.close()


def test_agrees_with_torch(session, small_bundle, fashion):
    reference = TorchSession(
        fashion.module, resolution=64, mean=small_bundle.mean, std=small_bundle.std
    )
    for sample in fashion_mnist.test_set().draw(8, seed=0).samples:
        image = prepare(sample.read(), small_bundle.preprocessing)
        found, expected = session.run(image), reference.run(image)
        assert found.keys() == {"logits"}
        assert found["logits"].shape == (1, 10)
        assert found["logits"].dtype == np.float32
        assert np.abs(found["logits"] - expected["logits"]).max() < 1e-3


def test_results_are_the_callers(session):
    first = session.run(np.zeros((1, 64, 64, 3), np.uint8))["logits"]
    kept = first.copy()
    session.run(np.full((1, 64, 64, 3), 200, np.uint8))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((1, 64, 63, 3), np.uint8),
        np.zeros((1, 3, 64, 64), np.uint8),
        np.zeros((1, 64, 64, 3), np.float32),
    ],
    ids=lambda image: f"{image.dtype}{image.shape}",
)
def test_another_image_is_refused(session, image):
    with pytest.raises(ValueError, match="expected uint8"):
        session.run(image)


def test_says_where_it_runs(session):
    assert session.device.startswith("CPU (")
    name, version = session.version.split()
    assert name
    assert version[0].isdigit()


def test_float32_means_float32(small_bundle):
    for precision in Precision:
        (artifact,) = small_bundle.select(("openvino",), (precision,))
        session = runtimes.load("openvino", small_bundle.path(artifact), threads=1)
        assert session.device.startswith("CPU (floats in f32")


@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.INT8])
def test_says_in_which_precision_operators_run(runtime, precision, small_bundle):
    (artifact,) = small_bundle.select((runtime,), (precision,))
    path = small_bundle.path(artifact)
    session = runtimes.load(runtime, path)
    convolutions = [
        operator
        for operator in runtimes.operators(runtime, path)
        if "conv" in operator.kind.lower() and "convert" not in operator.kind.lower()
    ]
    assert [operator.name.replace("/", ".").split(".")[0] for operator in convolutions] == LAYERS
    kept_in_float = LAYERS
    if precision is Precision.INT8 and "int8 in f32" not in session.device:
        (form,) = (q for q in small_bundle.quantizations if q.name == artifact.quantization)
        kept_in_float = [layer for layer in LAYERS if layer in form.float_layers]
    expected = ["float32" if layer in kept_in_float else "int8" for layer in LAYERS]
    assert [operator.precision for operator in convolutions] == expected


def test_closes_twice(session):
    session.close()
    session.close()


def test_a_damaged_file_is_refused(runtime, artifact, small_bundle, tmp_path):
    for path in artifact.files:
        data = (small_bundle.root / path).read_bytes()
        (tmp_path / path).write_bytes(data[: len(data) // 3])
    with pytest.raises(RuntimeRefused, match=str(tmp_path)):
        runtimes.load(runtime, tmp_path / artifact.files[0])


def test_a_missing_package_names_the_extra(runtime, artifact, small_bundle):
    code = (
        f"import sys\nfor name in {PACKAGES[runtime]!r}: sys.modules[name] = None\n"
        "from pathlib import Path\nfrom edgenet import runtimes\n"
        "from edgenet.errors import MissingExtra\n"
        f"try: runtimes.load({runtime!r}, Path({str(small_bundle.path(artifact))!r}))\n"
        "except MissingExtra as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"pip install 'edgenet[{runtime}]'" in done.stdout


def test_unknown_runtime(tmp_path):
    with pytest.raises(UsageError, match=", ".join(runtimes.names())):
        runtimes.load("tensorflow", tmp_path)
