"""The same TFLite files under tflite-runtime and numpy 1, in an environment of their own.

`make test` makes that environment; without it these tests fail, they do not skip.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from sealed import seal_with_vectors

from edgenet.bundle import Precision
from edgenet.data.dataset import open_dataset
from edgenet.golden import read_golden
from edgenet.manifest import load_bundle
from edgenet.measure.accuracy import top_indices
from edgenet.measure.evaluate import evaluate
from edgenet.preprocess import prepare

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


def test_floats_give_the_same_labels_as_in_litert(document, small_bundle):
    bundle = load_bundle(small_bundle.root)
    dataset = open_dataset("fashion-mnist", labelled=True).draw(LIMIT, seed=0)
    floats = (Precision.FLOAT32, Precision.FLOAT16)
    here = evaluate(bundle, dataset, bundle.select(("litert",), floats))
    assert len(here.results) == 2
    for result in here.results:
        assert result.version.startswith("ai-edge-litert")
        assert [top[0] for top in result.tops] == labels_of(document, result.artifact)


def test_int8_gives_the_same_labels_as_litert_with_the_same_kernels(document, small_bundle):
    """tflite-runtime has no XNNPACK for INT8; XNNPACK rounds halves otherwise and tips ties."""
    bundle = load_bundle(small_bundle.root)
    (artifact,) = bundle.select(("litert",), (Precision.INT8,))
    interpreter = Interpreter(
        model_path=str(bundle.path(artifact)),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    labels = []
    for sample in open_dataset("fashion-mnist", labelled=True).draw(LIMIT, seed=0).samples:
        interpreter.set_tensor(source["index"], prepare(sample.read(), bundle.preprocessing))
        interpreter.invoke()
        labels.append(top_indices(interpreter.get_tensor(target["index"])[0], 1)[0])
    assert labels == labels_of(document, artifact)


def labels_of(document, artifact):
    (record,) = (
        record for record in document["records"] if record["artifact"]["sha256"] == artifact.sha256
    )
    return [prediction["top5"][0] for prediction in record["predictions"]]


def verification(root):
    done = subprocess.run(
        [PYTHON, "-m", "edgenet", "verify", root, "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    document = json.loads(done.stdout)
    (int8,) = (each for each in document["artifacts"] if each["artifact"]["precision"] == "int8")
    return done, document, int8


def test_it_answers_as_the_host_did_but_for_its_rounding(small_bundle):
    """The form is of integers throughout: from ai-edge-litert the same bits are asked."""
    done, document, int8 = verification(small_bundle.root)
    assert done.returncode == 0, done.stderr
    assert document["holds"]
    assert 0 < int8["max_difference"] <= int8["tolerance"]["largest"] < 0.5
    assert "round halves otherwise" in int8["tolerance"]["reason"]


def test_other_weights_are_found_in_spite_of_its_rounding(small_bundle, tmp_path):
    bundle = load_bundle(shutil.copytree(small_bundle.root, tmp_path / "bundle"))
    (artifact,) = bundle.select(("litert",), (Precision.INT8,))
    changed = read_golden(bundle).expected[artifact.label].layers[20]
    weights = changed.weights
    data = bytearray(bundle.path(artifact).read_bytes())
    data[weights.offset : weights.offset + weights.size_bytes] = bytes(weights.size_bytes)
    bundle.path(artifact).write_bytes(data)
    seal_with_vectors(bundle)
    done, _, int8 = verification(bundle.root)
    assert done.returncode == 1
    assert int8["failure"].startswith("a value of logits differs by")
    assert int8["first_layer"]["layer"] == changed.layer
    assert int8["first_layer"]["same_weights"] is False
    assert int8["first_layer"]["means_reason"].startswith("tflite-runtime rounds otherwise")


def test_it_is_profiled_without_layers(small_bundle, tmp_path):
    """The whole command under numpy 1 and without OpenVINO, ONNX Runtime, torch, onnx."""
    record = tmp_path / "record.json"
    line = ["profile", small_bundle.root, "--precision", "int8", "--quick", "--duration", "0.3"]
    done = subprocess.run(
        [PYTHON, "-m", "edgenet", *line, "-o", record],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    assert "no layers (tflite-runtime has no profiler" in done.stdout
    (found,) = json.loads(record.read_text())["records"]
    assert found["runtime_version"].startswith("tflite-runtime")
    assert found["latency"]["inference_ms"]["p50"] > 0
    assert found["layers"] is None
