"""The forms: limits for the loss are held by layers in float, or it is said how much is missing."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from conftest import Silent, folded, network_inputs

from edgenet.convert.calibration import Calibration
from edgenet.convert.limits import Int8Options
from edgenet.convert.pipeline import select_targets
from edgenet.data import fashion_mnist
from edgenet.errors import BadData, ConversionFailed
from edgenet.quantize.form import Limit, calibrate, hold_limits, jury, make_form
from edgenet.quantize.recipe import load_recipe
from edgenet.quantize.sensitivity import free_layers

MINMAX = load_recipe("minmax")


@pytest.fixture(scope="module")
def calibrated(fashion):
    images = network_inputs(fashion_mnist.calibration_set(), fashion, 32)
    return calibrate(folded(fashion), images, MINMAX, seed=0, progress=Silent())


@pytest.fixture(scope="module")
def judges(fashion):
    images = network_inputs(fashion_mnist.test_set(), fashion, 60)
    return jury("test images", folded(fashion), images)


def hold(calibrated, *limits, full_integer=False):
    return hold_limits(calibrated, limits, full_integer=full_integer, progress=Silent())


def least(judges, decibels):
    return Limit(
        name="--min-sqnr",
        unit="dB",
        allowed=decibels,
        measure=lambda form: judges.agreement(form).sqnr_db,
    )


def float_operators(quantized):
    """Return the layers with weights that compute in float, by the numbers themselves."""
    return tuple(op.name for op in quantized.graph.weighted() if op.name not in quantized.layers)


def test_without_limits(fashion):
    """Without learned rounding there is a layer that is worth keeping in float."""
    images = network_inputs(fashion_mnist.calibration_set(), fashion, 32)
    recipe = replace(MINMAX, learned_rounding=False)
    calibrated = calibrate(folded(fashion), images, recipe, seed=0, progress=Silent())
    default, whole = hold(calibrated), hold(calibrated, full_integer=True)
    assert set(default.float_layers) == set(free_layers(calibrated.ranking)) != set()
    assert set(float_operators(default.quantized)) == set(default.float_layers)
    assert whole.float_layers == float_operators(whole.quantized) == ()
    graph = whole.quantized.graph
    # The logits are the classifier's sums; all before them is bytes.
    assert whole.quantized.sums.keys() <= {"fc"}
    assert whole.quantized.layers.keys() == {op.name for op in graph.weighted()}
    assert all(whole.quantized.is_integer(op) for op in graph.operators[1:-1])


def test_a_limit_takes_the_head_of_the_ranking(calibrated, judges):
    reached = judges.agreement(hold(calibrated).quantized).sqnr_db
    wanted = reached + 1
    form = hold(calibrated, least(judges, wanted))
    assert judges.agreement(form.quantized).sqnr_db >= wanted
    count = len(form.float_layers)
    ranking = [choice.layer for choice in calibrated.ranking]
    assert len(free_layers(calibrated.ranking)) < count < len(ranking) / 2
    assert set(form.float_layers) == set(ranking[:count])
    # What holds already is left as it is.
    assert hold(calibrated, least(judges, reached)).float_layers == hold(calibrated).float_layers


@pytest.mark.parametrize("full_integer", [False, True])
def test_how_much_is_missing_is_said(calibrated, judges, full_integer):
    with pytest.raises(ConversionFailed) as caught:
        hold(calibrated, least(judges, 200), full_integer=full_integer)
    found = re.search(
        r"cannot hold --min-sqnr 200: it reaches ([\d.]+) dB, ([\d.]+) dB short", str(caught.value)
    )
    reached, missing = map(float, found.groups())
    assert reached + missing == pytest.approx(200)
    best = hold(calibrated, full_integer=True)
    whole = judges.agreement(best.quantized).sqnr_db
    assert reached == pytest.approx(whole, abs=0.01) if full_integer else reached > whole + 6
    assert ("leave out --full-integer" in str(caught.value)) == full_integer


def test_accuracy_is_a_limit_too(fashion, calibrated):
    """Labels are the float network's own, on the test pictures that it is least sure of."""
    graph = folded(fashion)
    images = network_inputs(fashion_mnist.test_set(), fashion, 2000)
    ordered = np.sort(jury("", graph, images).reference, axis=1)
    unsure = [images[i] for i in np.argsort(ordered[:, -1] - ordered[:, -2])[:40]]
    reference = jury("", graph, unsure).reference
    labels = [frozenset({int(row.argmax())}) for row in reference]
    judges = jury("test images", graph, unsure, labels)
    whole = make_form(calibrated, (), progress=Silent())
    agreed = judges.agreement(whole.quantized).top1.percent
    assert judges.drop(whole.quantized) == pytest.approx(100 - agreed)
    assert agreed < 100
    limit = Limit(
        name="--max-drop",
        unit="points",
        allowed=0.0,
        measure=lambda form: -judges.drop(form),
    )
    with pytest.raises(ConversionFailed, match=r"--max-drop 0: it reaches [\d.]+ points"):
        hold(calibrated, limit, full_integer=True)
    form = hold(calibrated, limit)
    assert judges.drop(form.quantized) <= 0
    assert judges.agreement(form.quantized).top1.percent == 100


def test_the_symmetric_form_is_another_model(calibrated, judges):
    common = hold(calibrated)
    symmetric = make_form(calibrated, common.float_layers, symmetric=True, progress=Silent())
    assert symmetric.quantized.symmetric
    assert {affine.zero_point for affine in symmetric.quantized.tensors.values()} == {128}
    assert symmetric.float_layers == common.float_layers
    assert judges.agreement(symmetric.quantized).sqnr_db > 25


def test_the_converter_leaves_nothing_of_a_form_that_misses(make_bundle, fashion, tmp_path):
    options = {
        "targets": select_targets(("onnxruntime",), ()),
        "calibration": Calibration(dataset=fashion_mnist.calibration_set(), samples=16, seed=0),
    }
    wanted = Int8Options(recipe=MINMAX, min_sqnr_db=200, full_integer=True)
    with pytest.raises(ConversionFailed, match="dB short"):
        make_bundle(fashion, int8=wanted, **options)
    assert list(tmp_path.iterdir()) == []
    few = Calibration(dataset=fashion_mnist.calibration_set(), samples=7, seed=0)
    with pytest.raises(BadData, match="give 8 images or more"):
        make_bundle(fashion, int8=wanted, **{**options, "calibration": few})
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_names_what_stayed_in_float(make_bundle, fashion):
    bundle = make_bundle(
        fashion,
        targets=select_targets(("litert", "tensorrt"), ()),
        int8=Int8Options(
            recipe=MINMAX,
            max_drop_points=1,
            min_sqnr_db=44,
            labelled=fashion_mnist.test_set().draw(50, seed=3),
        ),
    )
    common, symmetric = bundle.quantizations
    assert (common.name, symmetric.name) == ("int8", "int8-tensorrt")
    assert common.float_layers == symmetric.float_layers
    assert len(common.float_layers) > 2
    assert common.sqnr_db >= 44 > symmetric.sqnr_db
    assert common.judged_on == "held-out calibration images"
    assert common.images == 32
