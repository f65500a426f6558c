"""Networks that are no classifiers: maps, embeddings and several outputs, in every runtime."""

from __future__ import annotations

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgenet import runtimes
from edgenet.bundle import MANIFEST, Precision
from edgenet.cli import run
from edgenet.convert import tensorrt_rules
from edgenet.data import photographs
from edgenet.golden import read_golden
from edgenet.manifest import load_bundle
from edgenet.measure.agreement import closeness
from edgenet.measure.layers import BETWEEN, fold
from edgenet.measure.profile import null_artifact
from edgenet.measure.verify import compare
from edgenet.preprocess import prepare

SIZE = 48
CLASSES = 12


def load_bench_networks():
    """Import tools/bench/networks.py, which is no part of the package."""
    path = Path(__file__).parents[2] / "tools" / "bench" / "networks.py"
    spec = spec_from_file_location("bench_networks", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bench = load_bench_networks()


def stem():
    return nn.Sequential(
        bench.ConvNorm((3, 16), kernel=3, stride=2, activation=nn.ReLU),
        bench.BasicBlock((16, 16), 1),
        bench.BasicBlock((16, 24), 2),
    )


class Segmentation(nn.Module):
    """A score for each class at each place of a map."""

    def __init__(self):
        super().__init__()
        self.stem = stem()
        self.scores = nn.Conv2d(24, 5, 1)

    def forward(self, x):
        return self.scores(self.stem(x))


class Embedding(nn.Module):
    """128 numbers that say what a picture is like."""

    def __init__(self):
        super().__init__()
        self.stem = stem()
        self.project = nn.Linear(24, 128)

    def forward(self, x):
        return self.project(self.stem(x).mean((2, 3)))


class TwoHeads(nn.Module):
    """An embedding that leaves, and the classes that are read off it."""

    def __init__(self):
        super().__init__()
        self.stem = stem()
        self.project = nn.Linear(24, 32)
        self.classify = nn.Linear(32, CLASSES)

    def forward(self, x):
        embedding = self.project(self.stem(x).mean((2, 3)))
        return self.classify(embedding.relu()), embedding


class Everything(nn.Module):
    """A map that is read on, a map that is not, a vector with an activation, one of a sigmoid."""

    def __init__(self):
        super().__init__()
        self.stem = stem()
        self.heat = nn.Conv2d(24, 1, 3, padding=1)
        self.project = nn.Linear(24, 16)

    def forward(self, x):
        features = self.stem(x)
        pooled = features.mean((2, 3))
        return features, self.heat(features).sigmoid(), self.project(pooled).relu(), pooled


NETWORKS = {
    Segmentation: {"scores": "scores"},
    Embedding: {"embedding": "embedding"},
    TwoHeads: {"logits": "logits", "embedding": "embedding"},
    Everything: {
        "image": "image_2",
        "heat.map": "heat_map",
        "StatefulPartitionedCall:1": "StatefulPartitionedCall_1",
        "pooled": "pooled",
    },
}
"""Each with what its file calls its outputs, and what artefacts do."""


def seeded(build):
    """Return a network in eval mode with random weights and the statistics of pictures."""
    torch.manual_seed(0)
    model = build()
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.4, 1.6)
        nn.init.normal_(norm.bias, 0, 0.3)
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(bench.pictures(48, SIZE))
    return model.eval()


def normalisation():
    mean, std = (",".join(map(str, values)) for values in (bench.MEAN, bench.STD))
    return ["--mean", mean, "--std", std, "--samples", "64"]


@pytest.fixture(scope="module", params=NETWORKS)
def converted(request, tmp_path_factory):
    """The bundle of a network, pictures, and what torch makes of them by output."""
    outputs = NETWORKS[request.param]
    model = seeded(request.param)
    folder = tmp_path_factory.mktemp("outputs")
    bench.export_module(model, folder / "theirs.onnx", resolution=SIZE, outputs=outputs)
    line = ["convert", f"{folder}/theirs.onnx", *normalisation(), "-o", f"{folder}/bundle"]
    assert run(line) == 0
    bundle = load_bundle(folder / "bundle")
    samples = photographs.labelled().draw(24, seed=0).samples
    images = [prepare(sample.read(), bundle.preprocessing) for sample in samples]
    x = torch.from_numpy(np.concatenate(images)).float()
    with torch.no_grad():
        made = model(((x - torch.tensor(bench.MEAN)) / torch.tensor(bench.STD)).permute(0, 3, 1, 2))
    made = made if isinstance(made, tuple) else (made,)
    expected = {
        name: values.movedim(1, -1).numpy()
        for name, values in zip(outputs.values(), made, strict=True)
    }
    return bundle, images, expected


def answers(bundle, artifact, images):
    session = runtimes.load(artifact.runtime, bundle.path(artifact))
    found = [session.run(image) for image in images]
    session.close()
    return {name: np.concatenate([answer[name] for answer in found]) for name in found[0]}


def sqnr_db(found, expected):
    decibel = closeness(found, expected).sqnr_db
    return np.inf if decibel is None else decibel


def test_every_runtime_computes_it(converted):
    """Float as torch does, INT8 near it, and alike in every runtime; in one layout."""
    bundle, images, expected = converted
    int8 = {}
    for artifact in bundle.artifacts:
        found = answers(bundle, artifact, images)
        assert list(found) == list(expected)
        for name, values in expected.items():
            assert found[name].dtype == np.float32
            assert found[name].shape == values.shape
            if artifact.precision is Precision.INT8:
                limit = 20 if artifact.variant else 24
                assert sqnr_db(found[name], values) > limit, (artifact.label, name)
                if not artifact.variant:
                    int8[artifact.runtime, name] = found[name]
            else:
                exact = artifact.precision is Precision.FLOAT32
                largest = np.abs(values).max()
                assert np.abs(found[name] - values).max() < (1e-4 if exact else 5e-3) * largest
    for name in expected:
        theirs, ours, exact = (
            int8[runtime, name] for runtime in ("openvino", "onnxruntime", "litert")
        )
        assert sqnr_db(ours, exact) > 30, name
        assert sqnr_db(theirs, exact) > 25, name  # it adds in float what others round first


def test_the_manifest_says_what_leaves(converted):
    bundle, _, expected = converted
    assert not bundle.is_classifier
    assert (bundle.labels, bundle.model.num_classes) == ((), None)
    assert {o.name: o.shape[1:] for o in bundle.outputs} == {
        name: values.shape[1:] for name, values in expected.items()
    }
    manifest = json.loads((bundle.root / MANIFEST).read_text("utf-8"))
    assert manifest["labels"] is None
    assert not (bundle.root / "labels.txt").exists()
    assert [entry["layout"] for entry in manifest["outputs"]] == [
        "NHWC" if values.ndim == 4 else "NC" for values in expected.values()
    ]
    for quantization in manifest["quantizations"]:
        assert quantization["judged"]["agreement"] is None
        assert quantization["judged"]["cosine"] > 0.99
        assert quantization["judged"]["sqnr_db"] > 18


def test_the_manifest_says_which_layer_makes_an_output(converted):
    bundle, _, _ = converted
    layers = {layer.name: layer for layer in bundle.layers}
    for output in bundle.outputs:
        assert layers[output.layer].written == np.prod(output.shape)


def test_null_answers_nothing_in_the_same_shapes(converted):
    bundle, images, expected = converted
    found = runtimes.load("null", bundle.path(null_artifact(bundle))).run(images[0])
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].shape == (1, *values.shape[1:])
        assert found[name].dtype == np.float32
        assert not found[name].any()


def test_its_layers_are_timed(converted):
    """What is named after an output belongs to a layer; LiteRT fuses no layer into another."""
    bundle, images, expected = converted
    weighted = {layer.name for layer in bundle.layers if layer.weights}
    for artifact in bundle.artifacts:
        path, shown = bundle.path(artifact), np.concatenate(images)
        times = runtimes.time_operators(artifact.runtime, path, shown)
        layers = {each.layer: each for each in fold(times, bundle.layers, bundle.outputs).layers}
        apart = layers[BETWEEN].operators if BETWEEN in layers else ()
        assert not {time.operator.name for time in apart}.intersection(expected), artifact.label
        if artifact.runtime == "litert":
            assert weighted <= set(layers), artifact.label


@pytest.fixture(scope="module")
def two_heads(tmp_path_factory):
    """The folder of a bundle with one small file."""
    folder = tmp_path_factory.mktemp("two_heads")
    theirs, outputs = folder / "net.onnx", NETWORKS[TwoHeads]
    bench.export_module(seeded(TwoHeads), theirs, resolution=SIZE, outputs=outputs)
    one = ["--runtime", "litert", "--precision", "float32"]
    assert run(["convert", str(theirs), *normalisation(), *one, "-o", f"{folder}/bundle"]) == 0
    return str(folder / "bundle")


def test_its_profile_has_no_accuracy(two_heads, tmp_path, capsys):
    line = ["profile", two_heads, "--quick", "--duration", "0.1", "-o", f"{tmp_path}/a.json"]
    assert run([*line, "--runtime", "litert,null"]) == 0
    assert "no accuracy or agreement: it is no classifier" in capsys.readouterr().out
    document = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert document["complete"]
    assert len(document["records"]) == 2
    for record in document["records"]:
        null = record["artifact"]["runtime"] == "null"
        reason = "nothing is computed" if null else "it is no classifier"
        for what in ("accuracy", "agreement"):
            assert (record[what], record[f"{what}_reason"]) == (None, reason)
    assert run(["compare", f"{tmp_path}/a.json", f"{tmp_path}/a.json"]) == 0


def test_a_comparison_in_turns_has_no_accuracy(two_heads, tmp_path, capsys):
    line = ["profile", two_heads, "--against", two_heads, "--launches", "5"]
    assert run([*line, "-o", f"{tmp_path}/a.json", "--json"]) == 0
    (pair,) = json.loads(capsys.readouterr().out)["pairs"]
    assert (pair["accuracy"], pair["accuracy_reason"]) == (None, "it is no classifier")


def test_tensorrt_refuses_nothing(converted):
    bundle, _, _ = converted
    (artifact,) = bundle.select(("tensorrt",))
    assert tensorrt_rules.check(bundle.path(artifact)) == ()
    outputs = onnx.load(bundle.path(artifact)).graph.output
    assert {o.type.tensor_type.elem_type for o in outputs} == {onnx.TensorProto.FLOAT}


def test_what_takes_it(converted, capsys):
    bundle, _, expected = converted
    names = list(expected)
    assert run(["verify", str(bundle.root), "--json"]) == 0
    verified = json.loads(capsys.readouterr().out)
    assert verified["holds"]
    assert len(verified["artifacts"]) == len(bundle.artifacts)
    for entry in verified["artifacts"]:
        assert entry["output"] in names
        assert (entry["top1"], entry["top1_reason"]) == (None, "the network is no classifier")
    assert run(["verify", str(bundle.root)]) == 0
    assert "worst output" in capsys.readouterr().out
    assert run(["inspect", str(bundle.root)]) == 0
    shown = capsys.readouterr().out
    for name, values in expected.items():
        assert f"{name}, float32 (1, {', '.join(map(str, values.shape[1:]))})" in shown
    assert "none, it is no classifier" in shown
    assert run(["diagnose", str(bundle.root), "--json"]) == 0
    diagnosed = json.loads(capsys.readouterr().out)
    assert diagnosed["steps"][-1]["sqnr_db"] > 18
    assert {step["agreement"] for step in diagnosed["steps"]} == {None}
    assert run(["diagnose", str(bundle.root)]) == 0
    assert "cosine" in capsys.readouterr().out


def test_limits(converted, tmp_path, capsys):
    bundle, _, _ = converted
    theirs, few = str(bundle.root.parent / "theirs.onnx"), ["--runtime", "onnxruntime"]
    line = ["convert", theirs, *normalisation(), *few, "-o", f"{tmp_path}/bundle"]
    assert run([*line, "--min-sqnr", "25"]) == 0
    assert all(q.sqnr_db >= 25 for q in load_bundle(tmp_path / "bundle").quantizations)
    capsys.readouterr()
    assert run([*line, "--min-sqnr", "80", "--force"]) == 1
    assert "cannot hold --min-sqnr 80" in capsys.readouterr().err
    assert run([*line, "--full-integer", "--recipe", "percentile", "--force"]) == 0
    assert load_bundle(tmp_path / "bundle").quantizations[0].sqnr_db > 15


def test_a_classifier_among_others_can_be_taken(tmp_path, capsys):
    outputs, folder = NETWORKS[TwoHeads], tmp_path / "bundle"
    bench.export_module(seeded(TwoHeads), tmp_path / "net.onnx", resolution=SIZE, outputs=outputs)
    line = ["convert", f"{tmp_path}/net.onnx", *normalisation(), "--runtime", "onnxruntime"]
    assert run([*line, "--take", "logits", "-o", str(folder)]) == 0
    assert "no classifier" not in capsys.readouterr().err
    bundle = load_bundle(folder)
    assert bundle.is_classifier
    assert len(bundle.labels) == CLASSES
    assert run(["classify", str(folder), str(folder / bundle.golden.images[0])]) == 0
    assert run(["convert", "--take", "logits", "-o", f"{tmp_path}/other"]) == 2


def test_an_output_that_is_off_is_named(converted):
    """Each is held to its own tolerance, whatever the scale of the others."""
    bundle, _, expected = converted
    (artifact,) = bundle.select(("openvino",), (Precision.INT8,))
    host = read_golden(bundle).expected[artifact.label]
    ends = np.cumsum([0, *(values[0].size for values in expected.values())])
    for name, tolerance, end in zip(expected, host.tolerances, ends[1:], strict=True):
        found = host.values.copy()
        found[1, end - 1] += 1.1 * tolerance.largest
        verdict = compare(bundle, artifact, host, found, device="CPU", version="1")
        assert verdict.output == name
        assert f"a value of {name} differs by" in verdict.failure
        found[1, end - 1] = host.values[1, end - 1] + 0.9 * tolerance.largest
        assert compare(bundle, artifact, host, found, device="CPU", version="1").failure is None


def test_what_asks_for_a_classifier(converted, tmp_path, capsys):
    bundle, _, expected = converted
    theirs = bundle.root.parent / "theirs.onnx"
    (tmp_path / "labels.txt").write_text("one\ntwo\n")
    picture = bundle.root / bundle.golden.images[0]
    convert = ["convert", str(theirs), *normalisation(), "-o", f"{tmp_path}/bundle"]
    for line in (
        ["evaluate", str(bundle.root)],
        ["evaluate", str(bundle.root), "--data", "photographs"],
        ["classify", str(bundle.root), str(picture)],
        ["profile", str(bundle.root), "--data", "photographs"],
        ["profile", str(bundle.root), "--against", str(bundle.root), "--data", "photographs"],
        ["diagnose", str(bundle.root), "--data", "photographs"],
        [*convert, "--max-drop", "1", "--data", "photographs"],
        [*convert, "--labels", f"{tmp_path}/labels.txt"],
    ):
        assert run(line) == 1
        told = capsys.readouterr().err.strip().splitlines()[-1]
        assert f"is no classifier (its outputs are {', '.join(expected)})" in told
    assert not (tmp_path / "bundle").exists()
