"""The ill-conditioned twin: a badly scaled network is no harder than the same one well scaled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import Silent, folded, network_inputs

from edgenet.data import fashion_mnist
from edgenet.graph import Convolution, is_depthwise
from edgenet.quantize import execute
from edgenet.quantize.encode import encode
from edgenet.quantize.form import calibrate, jury, make_form
from edgenet.quantize.ranges import find_ranges
from edgenet.quantize.recipe import load_recipe
from edgenet.quantize.statistics import collect

LARGEST = 64.0
MINMAX = load_recipe("minmax")


def twin(graph, seed):
    """Return the same function with every ReLU layer's channels scaled, and undone after it."""
    random = np.random.default_rng(seed)
    operators, undo = [], None
    for op in graph.operators:
        if hasattr(op, "weight"):
            weight = op.weight
            if undo is not None:  # per channel of a depthwise layer, else per column
                axis = 0 if is_depthwise(op) else 1
                shape = [-1 if n == axis else 1 for n in range(weight.ndim)]
                weight = weight / undo.reshape(shape)
            op, undo = replace(op, weight=weight.astype(np.float32)), None
            if isinstance(op, Convolution):
                assert op.activation == "relu"
                undo = LARGEST ** random.uniform(-1, 1, len(weight))
                op = replace(
                    op,
                    weight=(op.weight * undo.reshape(-1, 1, 1, 1)).astype(np.float32),
                    bias=(op.bias * undo).astype(np.float32),
                )
        operators.append(op)
    return replace(graph, operators=tuple(operators))


@pytest.fixture(scope="module")
def shown(fashion):
    graph = folded(fashion)
    calibrating = network_inputs(fashion_mnist.calibration_set(), fashion, 96)
    judging = network_inputs(fashion_mnist.test_set(), fashion, 200)
    return graph, calibrating, jury("test images", graph, judging)


def sqnr_db(graph, calibrating, judges):
    calibrated = calibrate(graph, calibrating, MINMAX, seed=0, progress=Silent())
    form = make_form(calibrated, (), progress=Silent())
    return judges.agreement(form.quantized).sqnr_db


def test_the_twin_loses_no_more(shown):
    """Within half a dB over three twins: a rounding here or there differs, for 1 dB or so."""
    graph, calibrating, judges = shown
    original = sqnr_db(graph, calibrating, judges)
    lost = []
    for other in (twin(graph, seed) for seed in range(3)):
        difference = np.abs(execute.answers(other, judges.images) - judges.reference).max()
        assert difference < 1e-3 * np.abs(judges.reference).max()
        lost.append(original - sqnr_db(other, calibrating, judges))
    assert np.mean(lost) <= 0.5, lost
    assert max(lost) <= 1.5, lost


def test_plain_quantisation_collapses_on_it(shown):
    """Per-channel weights and whole ranges, as every converter does by default."""
    graph, calibrating, judges = shown
    plain = {}
    for name, network in (("original", graph), ("twin", twin(graph, 0))):
        ranges = find_ranges(MINMAX, network, collect(network, calibrating), {}, calibrating)
        plain[name] = judges.agreement(encode(network, ranges))
    assert plain["original"].sqnr_db > 25
    assert plain["twin"].sqnr_db < 5
    assert plain["twin"].top1.percent < 70
