"""tools/bench/same_everywhere.py: INT8 files on x86 and on an emulated Cortex-A76, from JPEG on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools/bench/same_everywhere.py"
PICTURES = 20


@pytest.fixture(scope="module")
def comparisons(small_bundle, tmp_path_factory):
    """Return what the tool finds by artefact; its exit code must say that all is well."""
    path = tmp_path_factory.mktemp("same") / "found.json"
    options = ["--profile", "pi5", "--images", str(PICTURES), "--json", path]
    done = subprocess.run(
        [sys.executable, TOOL, small_bundle.root, "--runtime", "onnxruntime", "litert", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return {each["artifact"]: each for each in json.loads(path.read_text())["comparisons"]}


@pytest.mark.parametrize("artifact", ["onnxruntime int8", "litert int8"])
def test_the_same_pixels_and_labels(comparisons, artifact):
    found = comparisons[artifact]
    assert found["pictures"] == found["same_pixels"] == found["same_top1"] == PICTURES
    if found["integers_throughout"]:
        assert found["largest_difference"] == 0
    assert (found["largest_difference"] == 0) == (found["first_layer"] is None)
