"""The same INT8 files on processors without VNNI, emulated, against this machine.

The `system` target of the Makefile installs the emulator; without it these tests fail, they do
not skip.
"""

import json
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from conftest import convert_quietly
from onnx import numpy_helper

from edgenet import runtimes
from edgenet.bundle import Precision
from edgenet.convert.pipeline import WRITERS, Calibration
from edgenet.data import photographs
from edgenet.preprocess import prepare

EXACT = ("onnxruntime", "litert")
PROCESSORS = ("Haswell", "Nehalem")
"""AVX2 with FMA, and SSE4.2 alone; neither has VNNI."""
EVERYWHERE = """
import json, sys
from pathlib import Path
import numpy as np
from edgenet import runtimes
images, answers, artifacts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
logits, devices = {}, {}
for runtime, path in artifacts.items():
    session = runtimes.load(runtime, Path(path), threads=1)
    logits[runtime] = np.concatenate([session.run(i)["logits"] for i in np.load(images)])
    devices[runtime] = session.device
np.savez(answers, **logits)
print(json.dumps(devices))
"""


@pytest.fixture(scope="module")
def bundle(imagenet, tmp_path_factory):
    """Return INT8 artefacts of the real network: on small ones saturation hardly shows."""
    return convert_quietly(
        imagenet,
        tmp_path_factory.mktemp("processors") / "bundle",
        targets=[target for target in WRITERS if target.precision is Precision.INT8],
        calibration=Calibration(dataset=photographs.calibration_set(), samples=8, seed=0),
    )


@pytest.fixture(scope="module")
def answers(bundle, tmp_path_factory):
    """Return a function from processor (None: this machine) to logits (2, classes) and devices."""
    folder = tmp_path_factory.mktemp("answers")
    drawn = photographs.calibration_set().draw(10, seed=1).samples[:2]
    images = [prepare(sample.read(), bundle.preprocessing) for sample in drawn]
    np.save(folder / "images.npy", images)
    paths = {artifact.runtime: str(bundle.path(artifact)) for artifact in bundle.artifacts}
    known = {}

    def ask(processor):
        if processor not in known:
            known[processor] = _ask(processor, folder, paths)
        return known[processor]

    return ask


def _ask(processor, folder, paths):
    emulator = ["qemu-x86_64", "-cpu", processor] if processor else []
    if processor:
        assert shutil.which("qemu-x86_64"), "qemu-user is not installed; `make system` does it"
    found = folder / f"{processor}.npz"
    arguments = [str(folder / "images.npy"), str(found), json.dumps(paths)]
    done = subprocess.run(
        [*emulator, sys.executable, "-c", EVERYWHERE, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(np.load(found)), json.loads(done.stdout)


@pytest.fixture(scope="module")
def step(bundle):
    """Return what one step of the 8-bit logits is worth."""
    (artifact,) = bundle.select(("onnxruntime",), (Precision.INT8,))
    graph = onnx.load(bundle.path(artifact)).graph
    (last,) = (node for node in graph.node if "logits" in node.output)
    assert last.op_type == "DequantizeLinear"
    (scale,) = (value for value in graph.initializer if value.name == last.input[1])
    return float(numpy_helper.to_array(scale))


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("runtime", EXACT)
def test_int8_logits_are_the_same_bits(runtime, processor, answers):
    here, _ = answers(None)
    there, _ = answers(processor)
    np.testing.assert_array_equal(there[runtime], here[runtime])


@pytest.mark.parametrize("processor", PROCESSORS)
def test_openvino_does_not_saturate(processor, answers, step):
    here, _ = answers(None)
    there, devices = answers(processor)
    assert "int8 in f32, as this processor's 8-bit kernels saturate" in devices["openvino"]
    assert np.abs(there["openvino"] - here["openvino"]).max() < 2.01 * step
    np.testing.assert_array_equal(there["openvino"].argmax(1), here["openvino"].argmax(1))


def test_runtimes_are_those_that_there_are(answers):
    _, devices = answers(None)
    assert devices.keys() == set(runtimes.names())
