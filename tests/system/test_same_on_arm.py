"""tools/bench/same_everywhere.py: INT8 files on x86 and on an emulated Cortex-A76, from JPEG on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgenet.bundle import shipped_bundle

TOOL = Path(__file__).parents[2] / "tools/bench/same_everywhere.py"
RUNTIMES = ("onnxruntime", "litert")


@pytest.fixture(scope="module")
def compare(tmp_path_factory):
    """Return a function (bundle, pictures) that gives what the tool finds by artefact."""

    def run(bundle, pictures):
        path = tmp_path_factory.mktemp("same") / "found.json"
        options = ["--profile", "pi5", "--images", str(pictures), "--json", path]
        done = subprocess.run(
            [sys.executable, TOOL, bundle, "--runtime", *RUNTIMES, *options],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        found = json.loads(path.read_text())["comparisons"]
        return {each["artifact"]: each for each in found}

    return run


@pytest.fixture(scope="module")
def integers(compare, small_bundle):
    return compare(small_bundle.root, 20)


@pytest.fixture(scope="module")
def two_layers_in_float(compare):
    return compare(shipped_bundle(), 5)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_integers_are_the_same_bits(integers, runtime):
    found = integers[f"{runtime} int8"]
    assert found["integers_throughout"]
    assert found["pictures"] == found["same_pixels"] == found["same_top1"] == 20
    assert found["largest_difference"] == 0
    assert found["first_layer"] is None


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_so_is_what_the_default_form_leaves_in_float(two_layers_in_float, runtime):
    """The stem's sums are exact; the depthwise layer adds its nine products in one order."""
    found = two_layers_in_float[f"{runtime} int8"]
    assert not found["integers_throughout"]
    assert found["pictures"] == found["same_pixels"] == 5
    assert found["largest_difference"] == 0
