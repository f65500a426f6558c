"""The same TFLite files under tflite-runtime and numpy 1, in an environment of their own.

`make test` makes that environment; without it these tests fail, they do not skip.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from edgenet.bundle import load_bundle
from edgenet.data.dataset import open_dataset
from edgenet.measure.evaluate import evaluate

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("EDGENET_TFLITE_PYTHON", ROOT / ".venv-tflite/bin/python"))
LIMIT = 200


@pytest.fixture(scope="module")
def document(small_bundle, tmp_path_factory):
    """Return what `edgenet evaluate` measures there on Fashion-MNIST."""
    assert PYTHON.exists(), f"{PYTHON} is missing; `make test` makes it"
    arguments = ["evaluate", str(small_bundle.root), "--data", "fashion-mnist"]
    done = subprocess.run(
        [
            PYTHON,
            "-m",
            "edgenet",
            *arguments,
            "--limit",
            str(LIMIT),
            "--json",
            "-o",
            str(tmp_path_factory.mktemp("record") / "record.json"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_is_tflite_runtime(document):
    versions = {record["runtime_version"].split()[0] for record in document["records"]}
    assert versions == {"tflite-runtime"}
    assert {row["artifact"]["runtime"] for row in document["not_run"]} == {
        "onnxruntime",
        "openvino",
    }


def test_same_labels_as_in_litert(document, small_bundle):
    bundle = load_bundle(small_bundle.root)
    dataset = open_dataset("fashion-mnist", labelled=True).draw(LIMIT, seed=0)
    here = evaluate(bundle, dataset, bundle.select(("litert",)))
    assert len(here.results) == len(document["records"]) == 3
    for ours, theirs in zip(here.results, document["records"], strict=True):
        assert ours.version.startswith("ai-edge-litert")
        assert ours.artifact.sha256 == theirs["artifact"]["sha256"]
        labels = [prediction["top5"][0] for prediction in theirs["predictions"]]
        assert [top[0] for top in ours.tops] == labels
