"""Spare channels: the function stays, noise falls, and nothing is copied that a copy would hurt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import Silent, folded, network_inputs

from edgenet.data import photographs
from edgenet.graph import (
    IMAGE,
    LOGITS,
    Convolution,
    FullyConnected,
    GlobalAveragePool,
    Graph,
    Normalise,
    infer_shapes,
)
from edgenet.quantize import simulate
from edgenet.quantize.diagnosis import diagnose_layers
from edgenet.quantize.encode import encode
from edgenet.quantize.execute import execute
from edgenet.quantize.form import calibrate, jury, make_form
from edgenet.quantize.recipe import load_recipe
from edgenet.quantize.spare import Copy, fill_spare_channels
from edgenet.quantize.statistics import collect

SIDE, CHANNELS = 12, 8
SPARE = [1, 4, 6]
LOUD, AT_ZERO = 2, 5
"""The channel that suffers most, and one that its activation cuts."""


def convolution(rng, name, source, shape, *, bias=0.0, spread=0.1, activation="relu6", pad=0):
    groups = shape[0] if shape[1] == 1 and name == "depthwise" else 1
    return Convolution(
        name=name,
        input=source,
        weight=rng.normal(0, spread, shape).astype(np.float32),
        bias=np.full(shape[0], bias, np.float32),
        stride=(1, 1),
        pad=(pad,) * 4,
        groups=groups,
        activation=activation,
    )


def network(
    *,
    pad=0,
    activation="relu6",
    outputs=None,
    loud=LOUD,
    channels=CHANNELS,
    spare=SPARE,
    passed=None,
):
    """A maker, a depthwise layer and a mixer that does not listen to `spare`.

    `passed` is the depthwise layer's activation.
    """
    rng = np.random.default_rng(3)
    maker = convolution(
        rng, "maker", "normalised", (channels, 3, 3, 3), bias=3, spread=0.01, activation=activation
    )
    maker.bias[AT_ZERO] = 0
    depthwise = convolution(
        rng, "depthwise", "maker", (channels, 1, 3, 3), spread=0.05, activation=passed, pad=pad
    )
    # What it reads hardly varies, so only rounding it makes noise that is heard.
    depthwise.weight[loud] = np.resize([1.0, -1.0], (1, 3, 3))
    mixer = convolution(rng, "mixer", "depthwise", (6, channels, 1, 1), activation=None)
    mixer.weight[:, loud] *= 20
    mixer.weight[:, spare] = 1e-6
    operators = (
        Normalise(
            name="normalised",
            input=IMAGE,
            mean=np.full(3, 128, np.float32),
            std=np.full(3, 64, np.float32),
        ),
        maker,
        depthwise,
        mixer,
        GlobalAveragePool(name="pool", input="mixer"),
        FullyConnected(
            name="fc",
            input="pool",
            weight=rng.normal(0, 1, (5, 6)).astype(np.float32),
            bias=np.zeros(5, np.float32),
            activation=None,
        ),
    )
    return Graph(
        name="sketch",
        operators=operators,
        shapes=infer_shapes(operators, (3, SIDE, SIDE)),
        outputs=outputs or {"fc": LOGITS},
    )


def pictures(count=16):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8) for _ in range(count)]


def encoded(graph, seen, **options):
    ranges = {
        name: (min(0.0, float(each.low.min())), float(each.high.max()) * 1.05)
        for name, each in seen.items()
    }
    return encode(graph, ranges, float_output=True, **options)


def filled(graph, **options):
    seen = collect(graph, pictures())
    return fill_spare_channels(graph, encoded(graph, seen, **options), seen), seen


def maps(graph, images):
    """Return what leaves the mixer, all of it."""
    found = {}
    execute(graph, torch.from_numpy(np.concatenate(images)), found.__setitem__)
    return found["mixer"].numpy()


def check_same_function(graph, found):
    """Check what leaves the mixer, and that the statistics are those of the new graph."""
    np.testing.assert_allclose(
        maps(found.graph, pictures()), maps(graph, pictures()), rtol=0, atol=2e-5
    )
    for name, each in collect(found.graph, pictures()).items():
        for field in ("low", "high", "mean", "mean_square"):
            expected = getattr(found.statistics[name], field)
            np.testing.assert_allclose(getattr(each, field), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", ["relu6", "relu", None])
def test_the_loudest_channel_is_shared_out(activation):
    """Nine tenths of the noise come by one channel: its copies lie a quarter of a step apart."""
    graph = network(activation=activation)
    found, seen = filled(graph)
    step = encoded(graph, seen).tensors["maker"].scale
    assert found.copies["maker"] == tuple(
        Copy(channel=channel, of=LOUD, plus=pytest.approx(step * quarter / 4))
        for quarter, channel in enumerate(SPARE, start=1)
    )
    assert [copy.channel for copy in found.copies["depthwise"]] == SPARE


def test_the_function_and_its_statistics_are_the_same():
    graph = network()
    check_same_function(graph, filled(graph)[0])


def test_at_a_padded_border_less_than_a_step_of_the_channel_is_off():
    graph = network(pad=1)
    found, seen = filled(graph)
    step = encoded(graph, seen).tensors["maker"].scale
    off = np.abs(maps(found.graph, pictures()) - maps(graph, pictures()))
    assert off[:, :, 1:-1, 1:-1].max() < 2e-5
    depthwise, mixer = graph.operators[2:4]
    reach = np.abs(depthwise.weight[LOUD]).sum() * np.abs(mixer.weight[:, LOUD]).max()
    assert 0 < off.max() < step * reach


def test_noise_falls():
    graph = network()
    found, seen = filled(graph)
    plain, copied = encoded(graph, seen), encoded(found.graph, found.statistics)
    images = pictures(40)

    def noise(quantized):
        held = {name: quantized.tensors[name] for name in ("normalised", "maker", "depthwise")}
        rounded = replace(quantized, tensors=held, layers={}, sums={})
        made = {}
        simulate.execute(rounded, torch.from_numpy(np.concatenate(images)), made.__setitem__)
        return float(((made["mixer"].numpy() - maps(graph, images)) ** 2).mean())

    assert noise(copied) < noise(plain) / 8


def test_a_channel_at_an_end_is_not_shifted():
    """Its zeros would no longer be cut alike; where it keeps clear of both ends it is."""
    graph = network(loud=AT_ZERO)
    found, seen = filled(graph)
    assert seen["maker"].low[AT_ZERO] == 0
    shifts = {
        name: {copy.plus > 0 for copy in copies if copy.of == AT_ZERO}
        for name, copies in found.copies.items()
    }
    assert shifts == {"maker": {False}, "depthwise": {True}}


def test_a_channel_that_is_heard_is_not_spare():
    graph = network()
    seen = collect(graph, pictures())
    plain = encoded(graph, seen)
    depthwise, mixer = (plain.tensors[name].scale for name in ("depthwise", "mixer"))
    whole_step = mixer / (255 * depthwise)

    def spare(*steps):
        graph.operators[3].weight[0, SPARE] = (np.array(steps) * whole_step).reshape(-1, 1, 1)
        found = fill_spare_channels(graph, plain, seen)
        return [copy.channel for copy in found.copies["maker"]]

    assert spare(0, 0.9, 0) == [1, 4, 6]
    assert spare(0, 1.1, 0) == [1, 6]
    assert spare(0.4, 0.5, 0.3) == [1, 6]  # not all three together


def test_what_spare_channels_gave_on_average_goes_into_the_bias():
    graph = network()
    graph.operators[3].weight[:, SPARE] = 5e-4
    found, _ = filled(graph)
    shift = maps(found.graph, pictures()).mean((0, 2, 3)) - maps(graph, pictures()).mean((0, 2, 3))
    np.testing.assert_allclose(shift, 0, atol=2e-5)


@pytest.mark.parametrize("tensor", ["maker", "depthwise"])
def test_a_tensor_that_leaves_the_network_is_left_alone(tensor):
    found, _ = filled(network(outputs={"fc": LOGITS, tensor: "map"}))
    assert found.copies == {}


def test_nothing_spare_nothing_changed():
    graph = network()
    graph.operators[3].weight[:] = 1
    found, seen = filled(graph)
    assert found.copies == {}
    assert found.graph.operators == graph.operators
    assert found.statistics == seen


def test_a_tensor_in_float_has_no_steps_to_lie_between():
    found, _ = filled(network(), float_layers=["maker", "depthwise"])
    shifts = [copy.plus for copy in found.copies.get("maker", ())]
    assert shifts == [0.0] * len(shifts)


NEEDLESS = [1, 3, 4, 6, 8, 9, 12, 14, 15]


def with_nothing_to_carry(spare=NEEDLESS, *, heard=1e-6, **options):
    """Return a graph of 16 channels, all cut at 0, and the same after spare ones were used.

    Its first layers are in float.
    """
    graph = network(channels=16, spare=spare, passed="relu", **options)
    depthwise, mixer = graph.operators[2:4]
    depthwise.bias[:] = -3 * depthwise.weight.sum(axis=(1, 2, 3))
    mixer.weight[:, spare] = heard
    mixer.weight[:, 12] *= 2
    found, _ = filled(graph, float_layers=["maker", "depthwise"])
    return graph, found


def test_spare_channels_with_nothing_to_carry_are_left_out():
    """As many as leave a multiple of eight: the one that is heard most of the nine stays."""
    _, found = with_nothing_to_carry()
    gone = tuple(channel for channel in NEEDLESS if channel != 12)
    assert found.copies == {}
    assert found.left_out == {"maker": gone, "depthwise": gone}
    assert found.kept("maker", 16).tolist() == [0, 2, 5, 7, 10, 11, 12, 13]
    assert found.kept("mixer", 6).tolist() == list(range(6))
    maker, depthwise, mixer = found.graph.operators[1:4]
    assert [len(op.weight) for op in (maker, depthwise, mixer)] == [8, 8, 6]
    assert depthwise.groups == 8
    assert mixer.weight.shape[1] == 8
    assert [found.graph.shapes[name][0] for name in ("maker", "depthwise", "mixer")] == [8, 8, 6]


def test_leaving_channels_out_changes_neither_function_nor_statistics():
    check_same_function(*with_nothing_to_carry())


def test_what_left_channels_gave_on_average_goes_into_the_bias():
    graph, found = with_nothing_to_carry(heard=1e-4)
    assert found.left_out
    shift = maps(found.graph, pictures()).mean((0, 2, 3)) - maps(graph, pictures()).mean((0, 2, 3))
    np.testing.assert_allclose(shift, 0, atol=2e-5)


def test_fewer_than_eight_are_not_left_out():
    """Kernels would take the same time."""
    _, found = with_nothing_to_carry(NEEDLESS[:7])
    assert found.left_out == {}
    assert found.graph.shapes["maker"][0] == 16


def test_copies_that_are_worth_more_stay():
    """One channel suffers far more than all others: here its copies are worth eight channels."""
    graph = network(channels=16, spare=NEEDLESS)
    found, _ = filled(graph)
    assert found.left_out == {}
    assert {copy.channel for copy in found.copies["maker"]} == set(NEEDLESS)


@pytest.mark.parametrize("tensor", ["maker", "depthwise"])
def test_no_channel_of_an_output_is_left_out(tensor):
    _, found = with_nothing_to_carry(outputs={"fc": LOGITS, tensor: "map"})
    assert found.left_out == {}


def test_the_default_form_of_mobilenet_v1_has_24_channels_behind_the_stem(imagenet):
    """Where they are in float no copy helps; eight of the nine spare ones are left out."""
    graph = folded(imagenet)
    images = network_inputs(photographs.calibration_set(), imagenet, 8)
    recipe = replace(load_recipe("minmax"), learned_rounding=False)
    calibrated = calibrate(graph, images, recipe, seed=0, progress=Silent())
    layers = ("stem", "conv_dw_1")
    narrow = make_form(calibrated, layers, progress=Silent())
    assert set(narrow.filled.left_out) == set(layers)
    assert {len(channels) for channels in narrow.filled.left_out.values()} == {8}
    wide = make_form(
        replace(calibrated, recipe=replace(recipe, spare_channels=False)),
        layers,
        progress=Silent(),
    )
    judges = jury("the same images", graph, images)
    sqnr_db = [judges.agreement(form.quantized).sqnr_db for form in (narrow, wide)]
    assert sqnr_db[0] > sqnr_db[1] - 0.3
    told = {
        layer.name: layer
        for layer in diagnose_layers(
            narrow, images[:2], calibrated.noise, seed=0, progress=Silent()
        )
    }
    assert (told["stem"].channels, told["stem"].channels_left_out) == (32, 8)
    assert min(told[name].sqnr_db for name in layers) > 40


def test_nine_channels_behind_the_stem_of_mobilenet_v1(imagenet):
    """Nobody listens to them; six others, which keep clear of 0 and 6, are held in finer steps."""
    graph = folded(imagenet)
    images = network_inputs(photographs.calibration_set(), imagenet, 8)
    recipe = replace(load_recipe("minmax"), learned_rounding=False, bias_correction=False)
    with_copies, without = (
        make_form(calibrate(graph, images, each, seed=0, progress=Silent()), (), progress=Silent())
        for each in (recipe, replace(recipe, spare_channels=False))
    )
    assert without.filled.copies == {}
    stem = with_copies.filled.copies["stem"]
    assert [copy.channel for copy in stem] == [0, 3, 4, 8, 11, 15, 16, 20, 21]
    assert all(0 < copy.plus < with_copies.quantized.tensors["stem"].scale for copy in stem)
    noise = [form.calibrated.noise.by_tensor["stem"] for form in (with_copies, without)]
    assert noise[0] < noise[1] / 3
