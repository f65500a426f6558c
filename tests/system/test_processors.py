"""The same INT8 files on processors without VNNI, emulated, against this machine.

`make test` installs the emulator; without it these tests fail, they do not skip.
"""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import convert_quietly

from edgenet import runtimes
from edgenet.bundle import Precision
from edgenet.convert.calibration import Calibration
from edgenet.convert.limits import Int8Options
from edgenet.convert.pipeline import WRITERS
from edgenet.data import photographs
from edgenet.measure.profile import NULL
from edgenet.preprocess import prepare
from edgenet.quantize.recipe import load_recipe

COMPUTING = [name for name in runtimes.names() if name != NULL]
FORMS = {"default": False, "full-integer": True}
"""Whether nothing is in float. In the default form the logits and a few layers are."""
EXACT = ("onnxruntime", "litert")
PROCESSORS = ("Haswell", "Nehalem")
"""AVX2 with FMA, and SSE4.2 alone; neither has VNNI."""
STEPS = 2
"""By how many steps of an 8-bit logit answers may differ where something is computed in float."""
EVERYWHERE = """
import json, sys
from pathlib import Path
import numpy as np
from edgenet import runtimes
images, answers, paths = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
logits, devices = {}, {}
for key, path in paths.items():
    session = runtimes.load(key.partition(" ")[2], Path(path), threads=1)
    logits[key] = np.concatenate([session.run(i)["logits"] for i in np.load(images)])
    devices[key] = session.device
np.savez(answers, **logits)
print(json.dumps(devices))
"""


@pytest.fixture(scope="module")
def bundles(imagenet, tmp_path_factory):
    """Return INT8 artefacts of the real network by form: on small ones saturation hardly shows."""
    folder = tmp_path_factory.mktemp("processors")
    return {
        form: convert_quietly(
            imagenet,
            folder / form,
            targets=[
                target
                for target in WRITERS
                if target.precision is Precision.INT8 and not target.variant
            ],
            calibration=Calibration(dataset=photographs.calibration_set(), samples=8, seed=0),
            int8=Int8Options(recipe=load_recipe("minmax"), full_integer=full_integer),
        )
        for form, full_integer in FORMS.items()
    }


@pytest.fixture(scope="module")
def answers(bundles, tmp_path_factory):
    """Return a function from processor (None: this machine) to logits (2, classes) and devices.

    Both by form and runtime: "default litert".
    """
    folder = tmp_path_factory.mktemp("answers")
    drawn = photographs.calibration_set().draw(12, seed=1).samples[:2]
    images = [prepare(sample.read(), bundles["default"].preprocessing) for sample in drawn]
    np.save(folder / "images.npy", images)
    paths = {
        f"{form} {artifact.runtime}": str(bundle.path(artifact))
        for form, bundle in bundles.items()
        for artifact in bundle.artifacts
    }
    known = {}

    def ask(processor):
        if processor not in known:
            known[processor] = _ask(processor, folder, paths)
        return known[processor]

    return ask


def _ask(processor, folder, paths):
    emulator = ["qemu-x86_64", "-cpu", processor] if processor else []
    if processor:
        assert shutil.which("qemu-x86_64"), "qemu-user is not installed; `make test` does it"
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
def step(bundles):
    """Return what one step of the 8-bit logits is worth: the same scale in both forms."""
    scales = set()
    for bundle in bundles.values():
        text = (bundle.root / "quantization.json").read_text(encoding="utf-8")
        tensors = json.loads(text)["forms"]["int8"]["tensors"]
        scales.add(list(tensors.values())[-1]["scale"])
    (scale,) = scales
    return scale


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("runtime", EXACT)
def test_full_integer_logits_are_the_same_bits(runtime, processor, answers):
    here, _ = answers(None)
    there, _ = answers(processor)
    key = f"full-integer {runtime}"
    np.testing.assert_array_equal(there[key], here[key])


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize(
    "key", ["full-integer openvino", *(f"default {name}" for name in COMPUTING)]
)
def test_a_float_layer_moves_logits_by_two_steps_at_most(key, processor, answers, step):
    here, _ = answers(None)
    there, _ = answers(processor)
    moved = float(np.abs(there[key] - here[key]).max() / step)
    assert moved < STEPS + 0.01, f"{key} on {processor}: {moved:.2f} output steps, allowed: {STEPS}"
    np.testing.assert_array_equal(there[key].argmax(1), here[key].argmax(1))


@pytest.mark.parametrize("form", FORMS)
def test_devices_say_what_the_processor_made_of_int8(form, answers):
    _, haswell = answers("Haswell")
    _, nehalem = answers("Nehalem")
    exact = "int8 in exact kernels, as this processor's plain ones saturate"
    assert exact in haswell[f"{form} onnxruntime"]
    assert exact not in nehalem[f"{form} onnxruntime"]  # its plain kernels for SSE4 do not saturate
    for devices in (haswell, nehalem):
        in_float = "int8 in f32, as this processor's 8-bit kernels saturate"
        assert in_float in devices[f"{form} openvino"]


def test_forms_and_runtimes_are_those_that_there_are(answers):
    _, devices = answers(None)
    assert devices.keys() == {f"{form} {name}" for form in FORMS for name in COMPUTING}
