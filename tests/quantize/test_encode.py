"""The arithmetic of 8 bits, for any range and any weights; and the ranges of a real network."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgenet.data import fashion_mnist
from edgenet.errors import ConversionFailed
from edgenet.graph import (
    IMAGE,
    LOGITS,
    Activate,
    Affine,
    Concatenate,
    Convolution,
    FullyConnected,
    GlobalAveragePool,
    Graph,
    Normalise,
    Pool,
    QuantizedGraph,
    infer_shapes,
)
from edgenet.models.fold import fold
from edgenet.models.weights import Reference
from edgenet.preprocess import UInt8Array, prepare
from edgenet.quantize import simulate
from edgenet.quantize.encode import encode, with_integer_normaliser
from edgenet.quantize.execute import execute
from edgenet.quantize.ranges import find_ranges
from edgenet.quantize.recipe import load_recipe
from edgenet.quantize.statistics import collect, merge

Float32Array = npt.NDArray[np.float32]

WIDTH = 4


def tiny(
    weight: Float32Array, bias: Float32Array, *, mean: float = 127.5, std: float = 127.5
) -> Graph:
    """An image's channel means, times `weight` plus `bias`."""
    channels = weight.shape[1]
    operators = (
        Normalise(
            name="normalised",
            input=IMAGE,
            mean=np.full(channels, mean, np.float32),
            std=np.full(channels, std, np.float32),
        ),
        GlobalAveragePool(name="pool", input="normalised"),
        FullyConnected(name="fc", input="pool", weight=weight, bias=bias),
    )
    shapes = infer_shapes(operators, (channels, 2, 2))
    return Graph(name="tiny", operators=operators, shapes=shapes, outputs={"fc": LOGITS})


ONE = (-1.0, 1.0)


def quantized(
    weight: Float32Array, bias: Float32Array, pool: tuple[float, float]
) -> QuantizedGraph:
    return encode(tiny(weight, bias), {"normalised": ONE, "pool": pool, "fc": ONE})


ONES, NONE = np.ones((1, WIDTH), np.float32), np.zeros(1, np.float32)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(finite, finite)
@example(0.0, 0.0)
@example(0.0, 1e-45)
@example(-1e-45, 0.0)
@example(-3e38, 3e38)
def test_an_affine_covers_its_range_and_holds_zero(a: float, b: float) -> None:
    low, high = sorted((a, b))
    affine = quantized(ONES, NONE, (low, high)).tensors["pool"]
    assert affine.scale > 0
    assert float(np.float32(affine.scale)) == affine.scale
    assert isinstance(affine.zero_point, int) and 0 <= affine.zero_point <= 255
    # Zero is the zero point itself; both ends are reached up to the rounding of half a step.
    half = 0.5001 * affine.scale
    assert affine.scale * (0 - affine.zero_point) <= min(low, 0) + half
    assert affine.scale * (255 - affine.zero_point) >= max(high, 0) - half


weights = arrays.arrays(np.float32, (3, WIDTH), elements=st.floats(-1e4, 1e4, width=32))
biases = arrays.arrays(np.float32, (3,), elements=st.floats(-1e4, 1e4, width=32))


@settings(max_examples=300)
@given(weights, biases, st.floats(1e-6, 1e6))
@example(np.full((3, WIDTH), 1e-38, np.float32), np.full(3, 9.0, np.float32), 1.0)
@example(np.full((3, WIDTH), 1e-45, np.float32), np.zeros(3, np.float32), 1.0)
@example(np.zeros((3, WIDTH), np.float32), np.full(3, -1e4, np.float32), 1e-6)
def test_weights_and_bias_are_within_half_a_step(
    weight: Float32Array, bias: Float32Array, high: float
) -> None:
    found = quantized(weight, bias, (0, high))
    layer, source = found.layers["fc"], found.tensors["pool"]
    assert layer.values.dtype == np.int8 and layer.bias.dtype == np.int32
    assert layer.scale.dtype == np.float32 and (layer.scale > 0).all()
    assert np.abs(layer.values.astype(int)).max() <= 127
    steps = layer.scale[:, None].astype(np.float64)
    assert (np.abs(weight - layer.values * steps) <= 0.50001 * steps).all()
    # A bias that did not fit int32 would have come back with another sign or size.
    unit = source.scale * layer.scale.astype(np.float64)
    error = np.abs(bias - layer.bias * unit)
    assert (error <= 0.50001 * unit + 1e-6 * np.abs(bias)).all()


@given(weights)
def test_the_largest_weight_of_a_channel_uses_the_last_step(weight: Float32Array) -> None:
    layer = quantized(weight, np.zeros(3, np.float32), (0, 1)).layers["fc"]
    for row, values in zip(weight, layer.values, strict=True):
        if np.abs(row).max() > 1e-15:
            assert np.abs(values).max() == 127


def test_what_the_zero_point_of_the_image_rounds_away_is_in_the_bias() -> None:
    """127.5 becomes 128: the integer layer, computed by hand, must not notice."""
    weight = np.array([[0.5, -1.0, 0.25]], np.float32)
    base = tiny(weight, np.array([0.125], np.float32))
    operators = (base.operators[0], dataclasses.replace(base.operators[2], input="normalised"))
    graph = dataclasses.replace(base, operators=operators)
    found = encode(graph, {"normalised": (-1, 1), "fc": (-2, 2)})
    image, layer = found.tensors["normalised"], found.layers["fc"]
    assert (image.zero_point, image.scale) == (128, float(np.float32(1 / 127.5)))
    pixels = np.array([200, 13, 255])
    exact = float(weight[0] @ ((pixels - 127.5) / 127.5) + 0.125)
    total = int((pixels - image.zero_point) @ layer.values[0].astype(int) + layer.bias[0])
    assert total * image.scale * float(layer.scale[0]) == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize("kernel", [3, 7])
def test_sums_that_leave_as_floats_are_exact_in_any_order(kernel: int) -> None:
    """Of a layer that reads the image's bytes; the function is what it was."""
    random = np.random.default_rng(7)
    weight = random.normal(0, [[[[0.01]]], [[[0.3]]], [[[2.0]]]], (3, 3, kernel, kernel))
    weight[0] = 0
    layer = Convolution(
        name="stem",
        input="normalised",
        weight=weight.astype(np.float32),
        bias=np.array([0.3, -2.0, 50.0], np.float32),
        stride=(1, 1),
        pad=(0, 0, 0, 0),
        groups=1,
        activation=None,
    )
    base = tiny(np.ones((1, 3), np.float32), NONE)
    pool, fc = base.operators[1:]
    operators = (base.operators[0], layer, dataclasses.replace(pool, input="stem"), fc)
    graph = dataclasses.replace(
        base, operators=operators, shapes=infer_shapes(operators, (3, kernel, kernel))
    )
    ranges = dict.fromkeys(("normalised", "stem", "pool", "fc"), ONE)
    found = encode(graph, ranges, float_layers=["stem"], wide_layers=["stem"])
    image = found.tensors["normalised"]
    assert image.scale == 2.0**-7
    op = next(op for op in found.graph.operators if op.name == "stem")
    real = simulate.real_weights(found, op)
    pixels = random.integers(0, 256, (50, 3 * kernel * kernel))
    values = ((pixels - image.zero_point) * image.scale).astype(np.float32)
    before = (pixels - 127.5) / 127.5
    for channel in range(3):
        products = values * real.weight[channel].ravel()
        exact = products.astype(np.float64).sum(1) + float(real.bias[channel])
        for order in (slice(None), slice(None, None, -1), random.permutation(products.shape[1])):
            terms = np.column_stack([np.full(50, real.bias[channel]), products[:, order]])
            np.testing.assert_array_equal(np.add.accumulate(terms, axis=1)[:, -1], exact)
        wanted = before @ weight[channel].ravel() + float(layer.bias[channel])
        step = float(found.layers["stem"].scale[channel])
        assert np.abs(exact - wanted).max() < step * products.shape[1] / 4
        assert step < 2.01 * np.abs(weight[channel]).max() / 127 or not weight[channel].any()


MEAN, STD = (np.array(v, np.float32) for v in ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4)))


def uneven() -> Graph:
    """The same with a mean and a deviation for each channel."""
    graph = tiny(np.ones((1, 3), np.float32), NONE)
    normalise = dataclasses.replace(graph.operators[0], mean=MEAN, std=STD)
    return dataclasses.replace(graph, operators=(normalise, *graph.operators[1:]))


def test_means_that_differ_by_channel_become_a_layer_of_integers() -> None:
    graph = with_integer_normaliser(uneven())
    raw, layer = graph.operators[:2]
    assert isinstance(layer, Convolution)
    found = encode(graph, {"normalised": (-2.2, 2.7), "pool": ONE, "fc": ONE})
    assert found.is_integer(layer)
    assert found.tensors[raw.name] == Affine(scale=1, zero_point=0)  # the image's own bytes
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 256, 1).repeat(1, 3, 1, 1)
    made = simulate.step(found, layer, simulate.step(found, raw, pixels))
    exact = (pixels.float() - torch.from_numpy(MEAN).view(1, 3, 1, 1)) / torch.from_numpy(STD).view(
        1, 3, 1, 1
    )
    # One weight a channel is held exactly: what is left is half a step of the output.
    assert (made - exact).abs().max() <= 0.501 * found.tensors["normalised"].scale
    before, after = (
        execute(g, pixels.permute(0, 2, 3, 1), lambda *_: None) for g in (uneven(), graph)
    )
    np.testing.assert_allclose(before.numpy(), after.numpy(), atol=1e-5)


def test_one_mean_for_all_channels_needs_no_such_layer() -> None:
    graph = tiny(np.ones((1, 3), np.float32), NONE)
    assert with_integer_normaliser(graph) is graph


def test_symmetric_zero_points_are_all_0_in_int8() -> None:
    graph = tiny(np.ones((1, 3), np.float32), NONE)
    found = encode(graph, {"normalised": (-1, 3), "pool": (0, 2), "fc": (-5, 1)}, symmetric=True)
    assert {affine.zero_point for affine in found.tensors.values()} == {128}
    for name, reach in {"normalised": 3, "pool": 2, "fc": 5}.items():
        assert found.tensors[name].scale == pytest.approx(reach / 127)


def test_a_float_output_keeps_the_affine_it_would_have_had() -> None:
    graph = tiny(np.ones((1, 3), np.float32), NONE)
    ranges = {"normalised": ONE, "pool": ONE, "fc": (-3.0, 1.0)}
    whole, sums = encode(graph, ranges), encode(graph, ranges, float_output=True)
    assert sums.sums == {"fc": whole.tensors["fc"]}
    assert sums.tensors.keys() == whole.tensors.keys() - {"fc"}
    assert sums.layers.keys() == whole.layers.keys()


@pytest.fixture(scope="module")
def images(fashion: Reference) -> list[UInt8Array]:
    samples = fashion_mnist.calibration_set().draw(6, seed=0).samples
    return [prepare(sample.read(), fashion.preprocessing) for sample in samples]


def test_statistics_are_what_torch_sees(fashion: Reference, images: list[UInt8Array]) -> None:
    graph = fold(fashion.module, name="f", mean=fashion.mean, std=fashion.std)
    done: list[int] = []
    found = collect(graph, images, on_image=lambda: done.append(1))
    assert len(done) == 6
    assert found.keys() == {op.name for op in graph.operators}
    outputs: dict[str, torch.Tensor] = {}
    names = [op.name for op in graph.weighted()]
    hooks = [
        fashion.module.get_submodule(name).register_forward_hook(
            lambda _m, _i, y, name=name: outputs.update({name: y})
        )
        for name in names
    ]
    x = torch.from_numpy(np.concatenate(images)).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (fashion.mean, fashion.std))
    with torch.no_grad():
        fashion.module((x - mean) / std)
    for hook in hooks:
        hook.remove()
    for name in names:
        y = outputs[name].flatten(2) if outputs[name].ndim > 2 else outputs[name][..., None]
        for field, expected in (
            ("low", y.amin((0, 2))),
            ("high", y.amax((0, 2))),
            ("mean", y.mean((0, 2))),
            ("mean_square", y.square().mean((0, 2))),
        ):
            values = getattr(found[name], field)
            np.testing.assert_allclose(values, expected.numpy(), rtol=1e-3, atol=1e-4)


def test_a_tensor_that_is_not_finite_is_named(images: list[UInt8Array]) -> None:
    graph = tiny(np.full((1, 3), 3e38, np.float32), NONE, std=1)
    with pytest.raises(ConversionFailed, match="tensor fc is not finite"):
        collect(graph, images)


def test_halves_merge_to_the_whole(fashion: Reference, images: list[UInt8Array]) -> None:
    graph = fold(fashion.module, name="f", mean=fashion.mean, std=fashion.std)
    whole = collect(graph, images)
    parts = merge(collect(graph, images[:2]), collect(graph, images[2:]), share=2 / 6)
    for name, seen in whole.items():
        for field in ("low", "high", "mean", "mean_square"):
            np.testing.assert_allclose(
                getattr(parts[name], field), getattr(seen, field), rtol=1e-9, atol=1e-12
            )


def test_the_order_of_the_images_changes_nothing(
    fashion: Reference, images: list[UInt8Array]
) -> None:
    graph = fold(fashion.module, name="f", mean=fashion.mean, std=fashion.std)
    recipe = load_recipe("minmax")
    first, second = (
        encode(graph, find_ranges(recipe, graph, collect(graph, order), {}, order))
        for order in (images, images[::-1])
    )
    assert first.tensors == second.tensors
    assert first.tensors.keys() == {op.name for op in graph.operators}
    assert first.layers.keys() == second.layers.keys() == {op.name for op in graph.weighted()}
    for name, layer in first.layers.items():
        for field in ("values", "scale", "bias"):
            np.testing.assert_array_equal(
                getattr(layer, field), getattr(second.layers[name], field)
            )


def test_concatenations_of_concatenations_share_one_affine() -> None:
    """As channel shuffles chain them: what the first holds reaches the last through a pool.

    So does a sigmoid that is joined, which has an affine of its own elsewhere.
    """
    convolutions = {
        name: Convolution(
            name=name,
            input="normalised",
            weight=np.ones((1, 3, 1, 1), np.float32),
            bias=np.zeros(1, np.float32),
            stride=(1, 1),
            pad=(0, 0, 0, 0),
            groups=1,
            activation=None,
        )
        for name in "abc"
    }
    pool = Pool(name="pool", input="a", kind="max", kernel=(1, 1), stride=(1, 1), pad=(0, 0, 0, 0))
    operators = (
        tiny(ONES[:, :3], NONE).operators[0],
        *convolutions.values(),
        Concatenate(name="first", inputs=("a", "b")),
        pool,
        Activate(name="s", input="c", function="sigmoid"),
        Concatenate(name="second", inputs=("c", "pool", "s")),
    )
    shapes = infer_shapes(operators, (3, 1, 1))
    graph = Graph(name="n", operators=operators, shapes=shapes, outputs={"second": "joined"})
    ranges = dict.fromkeys(graph.shapes, (0.0, 1.0)) | {"b": (-2.0, 3.0), "first": (-2.0, 3.0)}
    tensors = encode(graph, ranges).tensors
    same = {tensors[name] for name in ("a", "b", "c", "first", "pool", "s", "second")}
    assert same == {Affine(scale=float(np.float32(5 / 255)), zero_point=102)}
