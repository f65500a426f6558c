"""What the manifest says that layers have to do agrees with what `summary` counts."""

import json

from edgenet.cli import run
from edgenet.convert.work import work_of
from edgenet.graph import Convolution, FullyConnected
from edgenet.manifest import load_bundle
from tests.conftest import folded


def test_mult_adds_are_those_of_the_summary(imagenet, capsys):
    assert run(["summary", "--classes", "1001", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    layers = work_of(folded(imagenet))
    assert sum(layer.mult_adds for layer in layers) == summary["mult_adds"]
    counted = {row["name"]: row["mult_adds"] for row in summary["layers"]}
    assert {layer.name: layer.mult_adds for layer in layers if layer.weights} == counted


def test_layers_are_the_operators(fashion):
    graph = folded(fashion)
    layers = work_of(graph)
    assert [layer.name for layer in layers] == [op.name for op in graph.operators]
    weighted = {op.name for op in graph.operators if isinstance(op, Convolution | FullyConnected)}
    assert {layer.name for layer in layers if layer.weights} == weighted
    assert {layer.name: layer.kind for layer in layers if layer.name in ("stem", "conv_dw_1")} == {
        "stem": "convolution",
        "conv_dw_1": "depthwise convolution",
    }
    pointwise = next(layer for layer in layers if layer.name == "conv_pw_1")
    assert pointwise.kind == "pointwise convolution"
    assert pointwise.mult_adds == pointwise.written * 16
    assert pointwise.weights == 16 * 32


def test_what_a_layer_reads_is_what_the_one_before_wrote(small_bundle):
    """The network is a chain; the manifest keeps the work as it is counted."""
    layers = load_bundle(small_bundle.root).layers
    assert [layer.read for layer in layers[1:]] == [layer.written for layer in layers[:-1]]
    assert layers[0].read == 64 * 64 * 3
    assert layers[-1].written == 10
