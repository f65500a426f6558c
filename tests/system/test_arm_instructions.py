"""tools/bench/arm_instructions.py on a small bundle: the same counts twice, the right kernels."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools/bench/arm_instructions.py"


@pytest.fixture(scope="module")
def count(small_bundle, tmp_path_factory):
    """Return a function (*options) that gives the counts by artefact and board."""

    def run(*options):
        path = tmp_path_factory.mktemp("counts") / "counts.json"
        done = subprocess.run(
            [sys.executable, TOOL, small_bundle.root, *options, "--json", path],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        counts = json.loads(path.read_text())["counts"]
        return {(each["artifact"], each["profile"]): each for each in counts}

    return run


@pytest.fixture(scope="module")
def litert(count):
    return count("--runtime", "litert", "--precision", "float32", "int8")


def test_the_same_counts_twice(litert, count):
    again = count("--runtime", "litert", "--precision", "int8")
    assert len(again) == 2
    assert again == {key: litert[key] for key in again}


def test_only_the_pi_5_has_dot_products(litert):
    assert litert["litert int8", "pi4"]["dot_products"] == 0
    assert litert["litert int8", "pi5"]["dot_products"] > 100_000
    assert litert["litert float32", "pi5"]["dot_products"] == 0


def test_int8_takes_fewer_than_half_on_the_pi_5(litert):
    int8, float32 = (litert[f"litert {each}", "pi5"] for each in ("int8", "float32"))
    assert int8["instructions"] < 0.5 * float32["instructions"]


def test_the_other_runtimes_run_under_it(count):
    counts = count(
        "--runtime", "onnxruntime", "openvino", "--precision", "int8", "--profile", "pi5"
    )
    assert counts.keys() == {("onnxruntime int8", "pi5"), ("openvino int8", "pi5")}
    assert counts["onnxruntime int8", "pi5"]["dot_products"] > 100_000
