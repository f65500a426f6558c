"""Sensitivity: what is predicted of a layer's 8 bits is what they really do, and which it finds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import Silent, folded, network_inputs

from edgenet.data import fashion_mnist, photographs
from edgenet.graph import (
    IMAGE,
    LOGITS,
    Convolution,
    FullyConnected,
    GlobalAveragePool,
    Graph,
    Normalise,
    QuantizedGraph,
    infer_shapes,
)
from edgenet.quantize import execute, sensitivity, simulate
from edgenet.quantize.encode import encode
from edgenet.quantize.form import calibrate
from edgenet.quantize.ranges import find_ranges
from edgenet.quantize.recipe import load_recipe
from edgenet.quantize.sensitivity import Choice, Noise, free_layers, rank
from edgenet.quantize.statistics import collect


@pytest.fixture(scope="module")
def measured(fashion):
    """The network, its plain full-integer form, 16 images, and the noise predicted of them."""
    graph = folded(fashion)
    images = network_inputs(fashion_mnist.calibration_set(), fashion, 16)
    ranges = find_ranges(load_recipe("minmax"), graph, collect(graph, images), {}, images)
    quantized = encode(graph, ranges)
    return graph, quantized, images, sensitivity.measure_noise(quantized, images, seed=0)


def decibels(found, expected):
    """Return the noise in logits as a share of the logits, in dB."""
    noise = (found.astype(np.float64) - expected) ** 2
    return 10 * np.log10(noise.sum() / (expected.astype(np.float64) ** 2).sum())


def with_rounded_weights(graph, quantized, name, images):
    """Return the float network with one layer's weights rounded and their mean error taken out."""
    place = [op.name for op in graph.operators].index(name)
    operators = list(graph.operators)
    rounded = simulate.real(quantized, operators[place])
    means = []
    for op in (rounded, operators[place]):
        head = (*operators[:place], replace(op, activation=None))
        means.append(
            collect(replace(graph, operators=head, outputs={name: name}), images)[name].mean
        )
    operators[place] = replace(
        rounded, bias=(rounded.bias - (means[0] - means[1])).astype(np.float32)
    )
    return replace(graph, operators=tuple(operators))


def test_predicted_noise_is_what_eight_bits_really_do(measured):
    """Each tensor and each layer's weights in 8 bits alone; 64 probes leave a dB or two."""
    graph, quantized, images, noise = measured
    expected = execute.answers(graph, images)
    off = {}
    for op in graph.operators[1:]:
        alone = QuantizedGraph(
            graph=graph, tensors={op.name: quantized.tensors[op.name]}, layers={}
        )
        real = decibels(simulate.answers(alone, images), expected)
        off[op.name] = 10 * np.log10(noise.by_tensor[op.name]) - real
        if op.name in quantized.layers:
            rounded = with_rounded_weights(graph, quantized, op.name, images)
            real = decibels(execute.answers(rounded, images), expected)
            off[f"{op.name} weights"] = 10 * np.log10(noise.by_weights[op.name]) - real
    assert len(off) == 29 + 28
    assert np.median(np.abs(list(off.values()))) < 2
    assert abs(np.mean(list(off.values()))) < 2
    assert max(map(abs, off.values())) < 7, off
    for name in ("stem", "conv_pw_12", "conv_pw_13"):
        assert abs(off[name]) < 3 and abs(off[f"{name} weights"]) < 3


def test_the_image_loses_nothing(measured):
    _, _, _, noise = measured
    assert noise.by_tensor["normalised"] == 0
    assert all(value > 0 for name, value in noise.by_tensor.items() if name != "normalised")


def test_the_ranking_repeats_and_adds_up(measured):
    graph, quantized, images, noise = measured
    ranking = rank(graph, noise)
    assert ranking == rank(graph, sensitivity.measure_noise(quantized, images, seed=0))
    assert {choice.layer for choice in ranking} == {op.name for op in graph.weighted()}
    assert sum(choice.gain for choice in ranking) == pytest.approx(1)
    layers = [choice.layer for choice in ranking]
    assert sum(choice.cost for choice in ranking) == pytest.approx(sensitivity.cost(graph, layers))
    decibel = [choice.predicted_sqnr_db for choice in ranking]
    assert decibel == sorted(decibel)
    # What the prediction counts as left with the first three in float, summed by hand.
    kept = set(layers[:3])
    left = sum(v for name, v in noise.by_weights.items() if name not in kept)
    read = {op.input for op in graph.weighted() if op.name not in kept}
    for op in graph.operators:
        in_float = op.name in kept or (op.name == "pool" and op.input in kept)
        if op.name in read or not in_float:
            left += noise.by_tensor[op.name]
    assert decibel[2] == pytest.approx(-10 * np.log10(left))


def test_the_thin_layers_at_the_start_are_found(imagenet):
    """By their noise and cost; nothing here knows their names."""
    graph = folded(imagenet)
    images = network_inputs(photographs.calibration_set(), imagenet, 6)
    calibrated = calibrate(graph, images, load_recipe("minmax"), seed=0, progress=Silent())
    free = free_layers(calibrated.ranking)
    assert set(free[:2]) == {"stem", "conv_dw_1"}
    assert sensitivity.cost(calibrated.equalised.graph, free) <= sensitivity.FREE_COST


def choice(layer, cost, gain):
    return Choice(layer=layer, cost=cost, gain=gain, predicted_sqnr_db=30)


def test_free_layers_end_where_they_cost_or_bring_nothing():
    half = sensitivity.FREE_COST / 2
    head = [choice("a", half, 0.4), choice("b", half, 0.3)]
    assert free_layers([*head, choice("c", half, 0.2)]) == ("a", "b")
    assert free_layers([*head[:1], choice("b", 0.0, 0.01), choice("c", 0.0, 0.3)]) == ("a",)
    assert free_layers([choice("a", 3 * half, 0.9)]) == ()


def test_cost_counts_work_bytes_and_conversions():
    random = np.random.default_rng(0)

    def layer(name, source, shape, pad, groups):
        return Convolution(
            name=name,
            input=source,
            weight=random.normal(size=shape).astype(np.float32),
            bias=np.zeros(shape[0], np.float32),
            stride=(1, 1),
            pad=(pad,) * 4,
            groups=groups,
            activation="relu",
        )

    operators = (
        Normalise(
            name="n", input=IMAGE, mean=np.full(3, 128, np.float32), std=np.ones(3, np.float32)
        ),
        layer("a", "n", (4, 3, 1, 1), 0, 1),
        layer("b", "a", (4, 1, 3, 3), 1, 4),
        GlobalAveragePool(name="pool", input="b"),
        FullyConnected(
            name="fc",
            input="pool",
            weight=np.ones((2, 4), np.float32),
            bias=np.zeros(2, np.float32),
        ),
    )
    shapes = infer_shapes(operators, (3, 4, 4))
    graph = Graph(name="g", operators=operators, shapes=shapes, outputs={"fc": LOGITS})
    work, weights = 12 * 16 + 36 * 16 + 8, 12 + 36 + 8
    convert = sensitivity.CONVERTED
    assert sensitivity.cost(graph, []) == 0
    assert sensitivity.cost(graph, ["a"]) == pytest.approx(
        (12 * 16 + convert * (48 + 64)) / work + 12 / weights
    )
    # Side by side they pass floats on: what lies between is not converted.
    assert sensitivity.cost(graph, ["a", "b"]) == pytest.approx(
        (12 * 16 + 36 * 16 + convert * 48) / work + 48 / weights
    )
    nothing = Noise(by_tensor=dict.fromkeys("nab", 0.0), by_weights={"a": 0.0})
    assert {found.gain for found in rank(graph, nothing)} == {0}
