"""The correction on real weights: what it must buy, and that it repeats."""

import dataclasses

import numpy as np
import pytest
from conftest import folded, network_inputs

from edgenet.data import fashion_mnist, photographs
from edgenet.graph import Convolution
from edgenet.measure.agreement import agreement
from edgenet.quantize import execute, simulate
from edgenet.quantize.correct import Corrections, correct
from edgenet.quantize.encode import encode
from edgenet.quantize.equalise import equalise
from edgenet.quantize.ranges import find_ranges
from edgenet.quantize.recipe import load_recipe
from edgenet.quantize.statistics import collect

MINMAX = load_recipe("minmax")
BOTH = Corrections()


def plain(graph, seen):
    return encode(graph, find_ranges(MINMAX, graph, seen, {}, []))


def corrected(graph, images, corrections=BOTH):
    """Return the full-integer form, equalised and corrected."""
    equalised = equalise(graph, collect(graph, images))
    ranges = find_ranges(MINMAX, equalised.graph, equalised.statistics, equalised.headroom, images)
    form = encode(equalised.graph, ranges)
    return correct(form, equalised.statistics, images, corrections=corrections)


def test_correction_holds_the_imagenet_weights(imagenet):
    graph = folded(imagenet)
    calibration = network_inputs(photographs.calibration_set(), imagenet, 40)
    images = network_inputs(photographs.labelled(), imagenet, 32)
    expected = execute.answers(graph, images)

    def judged(form):
        return agreement(simulate.answers(form, images), expected)

    before = judged(plain(graph, collect(graph, calibration)))
    bias = judged(corrected(graph, calibration, Corrections(learned_rounding=False)))
    after = judged(corrected(graph, calibration))
    assert before.sqnr_db < 13  # the textbook collapse is really there
    assert bias.sqnr_db > 20
    assert after.sqnr_db > max(24, bias.sqnr_db + 0.5)
    assert after.top1.percent >= 93


def test_fashion_mnist_keeps_its_labels(fashion):
    graph = folded(fashion)
    form = corrected(graph, network_inputs(fashion_mnist.calibration_set(), fashion, 64))
    test_images = network_inputs(fashion_mnist.test_set(), fashion, 300)
    found = agreement(simulate.answers(form, test_images), execute.answers(graph, test_images))
    assert found.top1.percent >= 98
    assert found.sqnr_db > 30


def test_it_repeats(fashion):
    graph = folded(fashion)
    images = network_inputs(fashion_mnist.calibration_set(), fashion, 16)
    seen = collect(graph, images)
    once, again = (correct(plain(graph, seen), seen, images) for _ in range(2))
    for name, layer in once.layers.items():
        np.testing.assert_array_equal(layer.values, again.layers[name].values)
        np.testing.assert_array_equal(layer.bias, again.layers[name].bias)


@pytest.mark.parametrize("reference", ["imagenet", "fashion"])
def test_equalised_is_the_same_function(reference, request):
    reference = request.getfixturevalue(reference)
    graph = folded(reference)
    source = photographs if reference.name.endswith("224") else fashion_mnist
    images = network_inputs(source.calibration_set(), reference, 8)
    equalised = equalise(graph, collect(graph, images))
    expected = execute.answers(graph, images)
    np.testing.assert_allclose(
        execute.answers(equalised.graph, images), expected, atol=2e-4 * np.abs(expected).max()
    )
    counted = collect(equalised.graph, images)
    for name, statistics in counted.items():
        for field in dataclasses.fields(statistics):
            found = getattr(equalised.statistics[name], field.name)
            np.testing.assert_allclose(getattr(statistics, field.name), found, rtol=2e-3, atol=2e-3)
    changed = {
        op.name
        for op, old in zip(equalised.graph.operators, graph.operators, strict=True)
        if isinstance(op, Convolution) and not np.array_equal(op.weight, old.weight)
    }
    # A pool passes on what the layer before it was scaled by.
    assert changed >= equalised.factors.keys() - {"pool"} > set()


def test_few_weights_get_a_scale_that_suits_them(imagenet):
    """It errs less on unseen alike inputs than the finest scale, and holds the largest weight."""
    graph = folded(imagenet)
    images = network_inputs(photographs.calibration_set(), imagenet, 8)
    form = plain(graph, collect(graph, images))
    fitted = correct(form, collect(graph, images), images)

    def error(form, name):
        op = next(op for op in graph.operators if op.name == name)
        layer = form.layers[name]
        scale = layer.scale.reshape(-1, *[1] * (op.weight.ndim - 1))
        return (op.weight - layer.values * scale).sum(axis=(1, 2, 3))

    stretched = fitted.layers["conv_dw_1"].scale / form.layers["conv_dw_1"].scale
    assert 1 <= stretched.min() < stretched.max() <= 1.25
    assert np.abs(fitted.layers["conv_dw_1"].values).max() <= 127
    left, before = (np.square(error(it, "conv_dw_1")).sum() for it in (fitted, form))
    assert left < before / 4
    large = "conv_pw_13"
    np.testing.assert_array_equal(fitted.layers[large].scale, form.layers[large].scale)


def test_what_leaves_is_not_equalised(fashion):
    """A tensor that leaves keeps its own scale, however many read it on."""
    graph = folded(fashion)
    images = network_inputs(fashion_mnist.calibration_set(), fashion, 8)
    inside = next(iter(equalise(graph, collect(graph, images)).factors))
    watched = dataclasses.replace(graph, outputs={inside: "inside", **graph.outputs})
    equalised = equalise(watched, collect(watched, images))
    assert inside not in equalised.factors
    expected = execute.answers(watched, images)
    np.testing.assert_allclose(
        execute.answers(equalised.graph, images), expected, atol=2e-4 * np.abs(expected).max()
    )
