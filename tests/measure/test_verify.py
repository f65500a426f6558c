"""Verification of a real bundle: it holds where it was made, and nothing changed gets through."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from sealed import seal

from edgenet.bundle import Precision, Quantization, describe_artifact, describe_file
from edgenet.cli import run
from edgenet.convert.golden import write_golden
from edgenet.data import fashion_mnist
from edgenet.errors import BrokenBundle
from edgenet.golden import LOGITS, TABLE, read_golden
from edgenet.manifest import load_bundle, write_manifest
from edgenet.measure.verify import compare, verify

INTEGER = Quantization(
    name="int8",
    float_layers=(),
    method="min-max",
    sqnr_db=30.0,
    agreement_right=9,
    images=10,
    judged_on="held out",
)
WHOLE = [
    *("onnxruntime float32", "onnxruntime int8"),
    *("openvino float32", "openvino float16", "openvino int8"),
    *("litert float32", "litert float16", "litert int8"),
    "onnxruntime int8 tensorrt",
]


@pytest.fixture(scope="module")
def golden_root(small_bundle, tmp_path_factory):
    """A copy of the small bundle with golden vectors of its own, and a variant."""
    root = tmp_path_factory.mktemp("golden") / "bundle"
    shutil.copytree(small_bundle.root, root, ignore=shutil.ignore_patterns("golden"))
    (source,) = small_bundle.select(("onnxruntime",), (Precision.INT8,))
    shutil.copy(root / source.files[0], root / "tensorrt.onnx")
    file = describe_file(root, "tensorrt.onnx")
    variant = describe_artifact("onnxruntime", Precision.INT8, (file,), variant="tensorrt")
    plain = [artifact for artifact in small_bundle.artifacts if artifact.variant is None]
    chosen = fashion_mnist.calibration_set().samples[:200:50]
    golden = write_golden(
        root,
        [(sample.name, sample.read()) for sample in chosen],
        small_bundle.preprocessing,
        [*plain, variant],
        quantizations=[INTEGER, replace(INTEGER, name="int8-tensorrt")],
        outputs=small_bundle.outputs,
        output_steps={"int8": {"logits": 0.03}},
    )
    kept = [found for found in small_bundle.files if not found.path.startswith("golden/")]
    whole = replace(
        small_bundle,
        root=root,
        files=(*kept, file, *(describe_file(root, path) for path in golden.paths)),
        artifacts=(*plain, variant),
        golden=golden,
    )
    write_manifest(whole)
    return root


@pytest.fixture
def bundle(golden_root, tmp_path):
    """A bundle that may be changed."""
    return load_bundle(shutil.copytree(golden_root, tmp_path / "bundle"))


def test_it_holds_where_it_was_made(bundle, capsys):
    found = verify(bundle, bundle.artifacts)
    assert found.holds
    assert [verdict.artifact.label for verdict in found.verdicts] == WHOLE
    assert {verdict.max_difference for verdict in found.verdicts} == {0.0}
    assert run(["verify", str(bundle.root), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["holds"]
    assert document["pixels"] == {"n": 4, "same": 4, "other": []}
    assert [entry["tolerance"]["largest"] == 0 for entry in document["artifacts"]] == [
        label in ("onnxruntime int8", "onnxruntime int8 tensorrt", "litert int8") for label in WHOLE
    ]


def test_two_threads_answer_alike(bundle):
    assert verify(bundle, bundle.artifacts, threads=2).holds


def classifier_weights(bundle, artifact):
    """Return the classifier's weights as an artefact stores them, read out of the ONNX files."""
    integer = artifact.precision is Precision.INT8
    (source,) = bundle.select(("onnxruntime",), (Precision.INT8 if integer else Precision.FLOAT32,))
    tensors = map(onnx.numpy_helper.to_array, onnx.load(bundle.path(source)).graph.initializer)
    (weights,) = (tensor for tensor in tensors if tensor.ndim == 2)
    return weights.astype(np.float16) if artifact.precision is Precision.FLOAT16 else weights


@pytest.mark.parametrize("label", WHOLE)
def test_the_flipped_sign_of_one_large_weight(bundle, label, capsys):
    (artifact,) = (artifact for artifact in bundle.artifacts if artifact.label == label)
    weights = classifier_weights(bundle, artifact)
    path = bundle.root / artifact.files[-1]
    data = path.read_bytes()
    row, column = np.unravel_index(np.abs(weights.astype(np.float32)).argmax(), weights.shape)
    before, changed = weights[row], weights[row].copy()
    changed[column] = -changed[column]
    assert data.count(before.tobytes()) == 1
    path.write_bytes(data.replace(before.tobytes(), changed.tobytes()))
    sealed = seal(bundle)
    (verdict,) = verify(sealed, sealed.artifacts).failed
    assert verdict.artifact.label == label
    assert verdict.max_difference > verdict.tolerance.largest
    assert run(["verify", str(bundle.root)]) == 1
    shown = capsys.readouterr()
    assert f"{label} FAILS: a value of logits differs by" in shown.out
    assert "the bundle does not hold what each layer made on the host" in shown.out
    last = shown.err.splitlines()[-1]
    assert f"{label}: not as on the host; install what the host had here (edgenet " in last
    assert "or choose other artefacts with --runtime" in last


def test_another_file_that_answers_alike(bundle):
    (artifact,) = bundle.select(("onnxruntime",), (Precision.FLOAT32,))
    model = onnx.load(bundle.path(artifact))
    model.doc_string = "changed"
    onnx.save(model, bundle.path(artifact))
    (verdict,) = verify(seal(bundle), seal(bundle).artifacts).failed
    assert verdict.max_difference == 0
    assert "is not the file that the host ran" in verdict.failure


def test_an_artefact_that_does_not_load(bundle):
    (artifact,) = bundle.select(("litert",), (Precision.INT8,))
    bundle.path(artifact).write_bytes(bundle.path(artifact).read_bytes()[:5000])
    sealed = seal(bundle)
    (verdict,) = verify(sealed, sealed.select(("litert",))).failed
    assert verdict.device is None
    assert "cannot load it" in verdict.failure


def test_other_pixels_are_a_failure_of_their_own(bundle, capsys):
    """As on a machine whose decoder or resize makes other pixels of the same file."""
    path = bundle.root / TABLE
    table = json.loads(path.read_text("utf-8"))
    table["images"][2]["prepared_sha256"] = "0" * 64
    path.write_text(json.dumps(table))
    found = verify(seal(bundle), bundle.artifacts)
    assert (found.failed, found.other_pixels) == ((), ("golden/2.jpg",))
    assert run(["verify", str(bundle.root), "--runtime", "litert"]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "the preprocessing on this machine makes other pixels" in line


def test_what_compare_calls_a_failure(bundle):
    golden = read_golden(bundle)
    (artifact,) = bundle.select(("onnxruntime",), (Precision.FLOAT32,))
    expected = golden.expected[artifact.label]

    def failure(found):
        return compare(bundle, artifact, expected, found, device="CPU", version="1").failure

    within = expected.values + np.float32(0.9 * expected.tolerances[0].largest)
    assert failure(within) is None
    beyond = expected.values.copy()
    beyond[0, 0] += 1.1 * expected.tolerances[0].largest
    assert "allowed are" in failure(beyond)
    assert "not finite" in failure(np.full_like(beyond, np.nan))
    assert "shape (4, 3)" in failure(beyond[:, :3])
    tie = replace(expected, values=np.eye(4, 10, dtype=np.float32) * np.float32(1e-5))
    turned = compare(bundle, artifact, tie, np.zeros_like(tie.values), device="CPU", version="1")
    assert turned.failure == "another best class on 3 of 4 pictures"


def test_golden_vectors_of_version_1_0(bundle):
    """They had classifiers only, and one tolerance for an artefact."""
    path = bundle.root / TABLE
    table = json.loads(path.read_text("utf-8"))
    table["schema_version"] = "1.0"
    for row in table["artifacts"]:
        del row["tolerances"]
    path.write_text(json.dumps(table))
    found = verify(seal(bundle), bundle.artifacts)
    assert found.holds
    assert len(found.verdicts) == len(WHOLE)


WITHOUT = (
    "import sys; sys.modules.update(dict.fromkeys({packages!r}))\n"
    "from edgenet.cli import run; sys.exit(run(sys.argv[1:]))"
)


def without(packages, *line):
    return subprocess.run(
        [sys.executable, "-c", WITHOUT.format(packages=packages), "verify", *line],
        capture_output=True,
        text=True,
        check=False,
    )


def test_missing_runtimes(golden_root):
    done = without(["openvino"], golden_root)
    assert done.returncode == 0, done.stderr
    assert "openvino int8 not run: openvino is not installed" in done.stdout
    asked = without(["openvino"], golden_root, "--runtime", "openvino,litert")
    assert (asked.returncode, asked.stdout) == (1, "")
    every = without(["openvino", "onnxruntime", "ai_edge_litert", "tflite_runtime"], golden_root)
    assert every.returncode == 1
    assert "pip install 'edgenet[" in every.stderr.splitlines()[-1]


def test_no_golden_vectors(bundle, capsys):
    write_manifest(replace(bundle, golden=None))
    assert run(["verify", str(bundle.root)]) == 1
    assert "has no golden vectors to verify with; convert again" in capsys.readouterr().err


def test_an_artefact_without_vectors(bundle):
    path = bundle.root / TABLE
    path.write_text(path.read_text("utf-8").replace("litert int8", "litert int4"))
    sealed = seal(bundle)
    found = verify(sealed, sealed.artifacts)
    assert [artifact.label for artifact, _ in found.not_run] == ["litert int8"]
    with pytest.raises(BrokenBundle, match="no golden vectors of litert int8"):
        verify(sealed, sealed.artifacts, required=("litert",))


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / TABLE).write_text("[" * 100_000),
        lambda root: (root / TABLE).write_text("[]"),
        lambda root: (root / TABLE).write_text('{"schema_version": "2.0"}'),
        lambda root: (root / TABLE).write_text('{"schema_version": "1.0", "images": 3}'),
        lambda root: (root / LOGITS).write_bytes(b""),
        lambda root: np.save(root / LOGITS, np.zeros((9, 4, 10))),
        lambda root: np.save(root / LOGITS, np.zeros((7, 4, 10), np.float32)),
        lambda root: np.save(root / LOGITS, np.array([{}]), allow_pickle=True),
        lambda root: (root / "golden/0.jpg").write_bytes(b"no picture"),
    ],
)
def test_vectors_that_cannot_be_read(bundle, change):
    change(bundle.root)
    sealed = seal(bundle)
    with pytest.raises(BrokenBundle, match="golden"):
        verify(sealed, sealed.artifacts)
