"""What the manifest says that layers have to do agrees with what `summary` counts."""

import json

from ai_edge_litert import schema_py_generated as tfl

from edgenet.bundle import Precision, shipped_bundle
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


def test_an_int8_form_with_fewer_channels_says_what_is_left_to_do():
    """The manifest's word against the file, of the bundle that comes with edgenet."""
    bundle = load_bundle(shipped_bundle())
    (artifact,) = bundle.select(("litert",), (Precision.INT8,))
    model = tfl.ModelT.InitFromPackedBuf(bundle.path(artifact).read_bytes(), 0)
    (stem,) = (t for t in model.subgraphs[0].tensors if t.name == b"stem/weight")
    channels = int(stem.shape[0])
    assert channels < 32
    whole = {layer.name: layer for layer in bundle.layers}
    left = {layer.name: layer for layer in bundle.work(artifact)}
    changed = [name for name in whole if whole[name] != left[name]]
    assert changed == ["stem", "conv_dw_1", "conv_pw_1"]
    for name in changed:
        assert left[name].mult_adds * 32 == whole[name].mult_adds * channels
        assert left[name].weights * 32 == whole[name].weights * channels
    assert left["conv_pw_1"].written == whole["conv_pw_1"].written
