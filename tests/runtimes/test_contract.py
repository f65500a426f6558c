"""One suite for every runtime that there is a file for; null keeps all but the answers."""

import subprocess
import sys
import time

import numpy as np
import pytest

from edgenet import runtimes
from edgenet.bundle import Precision
from edgenet.data import fashion_mnist
from edgenet.errors import RuntimeRefused, UsageError
from edgenet.measure.layers import fold
from edgenet.measure.profile import null_artifact
from edgenet.preprocess import prepare
from edgenet.runtimes.torch import TorchSession

NULL = "null"
PACKAGES = {
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "litert": ("ai_edge_litert", "tflite_runtime"),
}
COMPUTING = [name for name in runtimes.names() if name != NULL]
LAYERS = ["stem", *(f"conv_{part}_{n}" for n in range(1, 14) for part in ("dw", "pw"))]
"""The convolutions of the network, in order."""


@pytest.fixture(params=runtimes.names())
def runtime(request):
    return request.param


def artifact_of(runtime, bundle, precision=Precision.FLOAT32):
    if runtime == NULL:
        return null_artifact(bundle)
    (found,) = bundle.select((runtime,), (precision,))
    return found


@pytest.fixture
def artifact(runtime, small_bundle):
    return artifact_of(runtime, small_bundle)


@pytest.fixture
def session(runtime, artifact, small_bundle):
    session = runtimes.load(runtime, small_bundle.path(artifact), threads=1)
    yield session
    session.close()


@pytest.mark.parametrize("runtime", COMPUTING, indirect=True)
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


def test_null_answers_nothing_in_the_same_shape(small_bundle):
    session = runtimes.load(NULL, small_bundle.path(null_artifact(small_bundle)))
    found = session.run(np.full((1, 64, 64, 3), 200, np.uint8))
    assert found.keys() == {"logits"}
    np.testing.assert_array_equal(found["logits"], np.zeros((1, 10), np.float32))
    assert found["logits"].dtype == np.float32


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
    assert session.device.startswith(("CPU (", "none ("))
    name, version = session.version.split()
    assert name
    assert version[0].isdigit()


def test_float32_means_float32(small_bundle):
    for precision in Precision:
        (artifact,) = small_bundle.select(("openvino",), (precision,))
        session = runtimes.load("openvino", small_bundle.path(artifact), threads=1)
        assert session.device.startswith("CPU (floats in f32")


@pytest.mark.parametrize("runtime", COMPUTING)
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


IMAGES = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)


@pytest.mark.parametrize("runtime", COMPUTING)
@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.INT8])
def test_operators_take_time(runtime, precision, small_bundle):
    """Every layer with weights is there, and all together take about as long as a run."""
    path = small_bundle.path(artifact_of(runtime, small_bundle, precision))
    found = runtimes.time_operators(runtime, path, IMAGES)
    assert found.by == ("prefix" if runtime == "litert" else "profiler")
    times = fold(found, small_bundle.layers)
    timed = {layer.layer for layer in times.layers}
    assert {layer.name for layer in small_bundle.layers if layer.weights} <= timed
    known = [time.duration_ns for time in found.times if time.duration_ns is not None]
    assert min(known) > 0
    assert len(known) > len(found.times) / 2
    # Generous: a profiler costs microseconds an operator, and the machine may be busy meanwhile.
    quickest_ms = quickest_run_ms(runtimes.load(runtime, path))
    assert 0.3 * quickest_ms < times.total_ms < 20 * quickest_ms


def quickest_run_ms(session):
    taken = []
    for image in np.repeat(IMAGES, 5, axis=0):
        began = time.perf_counter_ns()
        session.run(image[None])
        taken.append(time.perf_counter_ns() - began)
    session.close()
    return min(taken) / 1e6


def test_null_has_no_operators(small_bundle):
    path = small_bundle.path(null_artifact(small_bundle))
    assert runtimes.operators(NULL, path) == ()
    assert runtimes.time_operators(NULL, path, IMAGES).times == ()


@pytest.mark.parametrize("runtime", COMPUTING)
def test_the_time_of_a_file_that_does_not_load(runtime, tmp_path):
    path = tmp_path / "damaged"
    path.write_bytes(b"TFL3 and no more")
    with pytest.raises(RuntimeRefused):
        runtimes.time_operators(runtime, path, IMAGES)


def test_closes_twice(session):
    session.close()
    session.close()


@pytest.mark.parametrize("runtime", COMPUTING)
def test_a_damaged_file_is_refused(runtime, artifact, small_bundle, tmp_path):
    for path in artifact.files:
        data = (small_bundle.root / path).read_bytes()
        (tmp_path / path).write_bytes(data[: len(data) // 3])
    with pytest.raises(RuntimeRefused, match=str(tmp_path)):
        runtimes.load(runtime, tmp_path / artifact.files[0])


@pytest.mark.parametrize("runtime", COMPUTING)
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


LEAVES_SIGNALS_ALONE = """
import os, signal, sys, time
from pathlib import Path
from edgenet import runtimes
first, second = (runtimes.load(sys.argv[1], Path(path), threads=1) for path in sys.argv[2:])
first.close()
del first
second.close()
del second
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("runtime", COMPUTING, indirect=True)
def test_ctrl_c_after_sessions_that_ended_in_the_order_in_which_they_began(runtime, small_bundle):
    paths = [small_bundle.path(found) for found in small_bundle.select((runtime,))[:2]]
    done = subprocess.run(
        [sys.executable, "-c", LEAVES_SIGNALS_ALONE, runtime, *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("interrupted\n", 0), done.stderr
