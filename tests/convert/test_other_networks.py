"""Other people's networks, from an ONNX file through the command line to every runtime."""

from __future__ import annotations

import itertools
import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgenet import runtimes
from edgenet.bundle import Precision
from edgenet.cli import run
from edgenet.data import photographs
from edgenet.manifest import load_bundle
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


def residual():
    layers = [
        bench.ConvNorm((3, 16), kernel=7, stride=2, activation=nn.ReLU),
        nn.MaxPool2d(3, 2, 1),
        bench.BasicBlock((16, 16), 1),
        bench.BasicBlock((16, 32), 2),
    ]
    return bench.Classifier(layers, [nn.Linear(32, CLASSES)])


def hard_swish_and_squeeze():
    swish = {"activation": nn.Hardswish}
    layers = [
        bench.ConvNorm((3, 16), kernel=3, stride=2, **swish),
        bench.InvertedResidual((16, 16), 32, kernel=5, stride=1, squeeze=True, **swish),
        bench.InvertedResidual((16, 24), 48, kernel=3, stride=2, squeeze=True, **swish),
    ]
    head = [nn.Linear(24, 32), nn.Hardswish(), nn.Linear(32, CLASSES)]
    return bench.Classifier(layers, head)


class Mixed(nn.Module):
    """ShuffleNetV2: all channels go into two branches, or half of them; then all are mixed."""

    def __init__(self, channels, *, split):
        super().__init__()
        self.split, each = split, channels // 2
        read = each if split else channels
        self.kept = None if split else bench.ConvNorm((channels, each), activation=nn.ReLU)
        self.worked = nn.Sequential(
            bench.ConvNorm((read, each), activation=nn.ReLU),
            bench.ConvNorm((each, each), kernel=3, groups=each),
            bench.ConvNorm((each, each), activation=nn.ReLU),
        )

    def forward(self, x):
        kept, taken = x.chunk(2, dim=1) if self.split else (self.kept(x), x)
        both = torch.cat([kept, self.worked(taken)], dim=1)
        n, channels, height, width = both.shape
        groups = both.view(n, 2, channels // 2, height, width)
        return groups.transpose(1, 2).reshape(n, channels, height, width)


def shuffled():
    layers = [
        bench.ConvNorm((3, 24), kernel=3, stride=2, activation=nn.ReLU),
        nn.MaxPool2d(3, 2, 1),
        Mixed(24, split=False),
        Mixed(24, split=True),
        Mixed(24, split=False),
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    ]
    return bench.Classifier(layers, [nn.Linear(24, CLASSES)])


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


@pytest.fixture(scope="module", params=[residual, hard_swish_and_squeeze, shuffled])
def converted(request, tmp_path_factory):
    """The bundle of a network with seeded weights, and its answers on eight pictures in torch."""
    model = seeded(request.param)
    folder = tmp_path_factory.mktemp("onnx")
    bench.export_module(model, folder / "theirs.onnx", resolution=SIZE)
    mean, std = (",".join(map(str, values)) for values in (bench.MEAN, bench.STD))
    line = f"convert {folder}/theirs.onnx --mean {mean} --std {std} --samples 64 -o {folder}/bundle"
    assert run(line.split()) == 0
    bundle = load_bundle(folder / "bundle")
    samples = photographs.labelled().draw(40, seed=0).samples
    images = [prepare(sample.read(), bundle.preprocessing) for sample in samples]
    x = torch.from_numpy(np.concatenate(images)).float()
    with torch.no_grad():
        expected = model(
            ((x - torch.tensor(bench.MEAN)) / torch.tensor(bench.STD)).permute(0, 3, 1, 2)
        )
    return bundle, images, expected.numpy()


def answers(bundle, artifact, images):
    session = runtimes.load(artifact.runtime, bundle.path(artifact))
    found = np.concatenate([session.run(image)["logits"] for image in images])
    session.close()
    return found


def sqnr_db(found, expected):
    return 10 * np.log10((expected**2).sum() / ((found - expected) ** 2).sum())


def test_every_runtime_computes_it(converted):
    """Float as torch does, INT8 near it; INT8 alike in every runtime."""
    bundle, images, expected = converted
    int8 = {}
    for artifact in bundle.artifacts:
        found = answers(bundle, artifact, images)
        if artifact.precision is Precision.INT8:
            assert sqnr_db(found, expected) > (24 if artifact.variant else 27), artifact.label
            if not artifact.variant:
                int8[artifact.runtime] = found
        else:
            exact = artifact.precision is Precision.FLOAT32
            largest = np.abs(expected).max()
            assert np.abs(found - expected).max() < (1e-4 if exact else 5e-3) * largest
    assert int8.keys() == {"onnxruntime", "openvino", "litert"}
    for first, second in itertools.combinations(int8.values(), 2):
        assert sqnr_db(first, second) > 28  # OpenVINO has no bytes in front of a hard-swish
        assert (first.argmax(1) != second.argmax(1)).sum() <= 2


def test_the_manifest_says_where_it_is_from(converted):
    bundle, _, _ = converted
    assert bundle.model.weights == "theirs.onnx"
    assert bundle.model.width_multiplier is None
    assert bundle.labels[-1] == f"class {CLASSES - 1}"
    form = json.loads((bundle.root / "quantization.json").read_text("utf-8"))["forms"]["int8"]
    assert len(form["layers"]) + len(form["float_layers"]) >= 7


class NormalisesItself(nn.Module):
    """Another network behind the normalisation of its input."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.mean, self.std = (
            nn.Buffer(torch.tensor(values)[:, None, None]) for values in (bench.MEAN, bench.STD)
        )

    def forward(self, pixels):
        return self.network((pixels - self.mean) / self.std)


def test_a_network_that_normalises_itself(tmp_path, capsys):
    """What its file does to the image is the bundle's normalisation, for whoever reads it back."""
    bench.export_module(
        NormalisesItself(seeded(residual)), tmp_path / "theirs.onnx", resolution=SIZE
    )
    line = ["--mean", "0", "--std", "1", "--samples", "64", "--runtime", "onnxruntime"]
    assert run(["convert", f"{tmp_path}/theirs.onnx", *line, "-o", f"{tmp_path}/bundle"]) == 0
    assert "normalised already" not in capsys.readouterr().err
    bundle = load_bundle(tmp_path / "bundle")
    assert (bundle.mean, bundle.std) == (bench.MEAN, bench.STD)
    assert run(["diagnose", f"{tmp_path}/bundle"]) == 0
