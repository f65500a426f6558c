"""The correction on real weights: what it must buy, and that it repeats."""

import numpy as np
import pytest
import torch

from edgenet.data import fashion_mnist, photographs
from edgenet.graph import Convolution, GlobalAveragePool, Normalise
from edgenet.measure.agreement import agreement
from edgenet.models.fold import fold
from edgenet.preprocess import prepare
from edgenet.quantize.correct import _outputs, _Stream, _to_bytes, correct
from edgenet.quantize.encode import encode
from edgenet.quantize.equalise import equalise
from edgenet.quantize.execute import apply, execute
from edgenet.quantize.statistics import collect


def folded(reference):
    return fold(reference.module, name=reference.name, mean=reference.mean, std=reference.std)


def inputs(dataset, reference, count):
    drawn = dataset.draw(count, seed=1)
    return [prepare(sample.read(), reference.preprocessing) for sample in drawn.samples]


def float_logits(graph, images):
    return torch.cat(
        [execute(graph, torch.from_numpy(image), lambda name, x: None) for image in images]
    ).numpy()


def int8_logits(quantized, images):
    """Run the integers on the host, written apart from the code under test's own loop."""
    stream = None
    for op in quantized.graph.operators:
        affine = quantized.tensors[op.name]
        if isinstance(op, Normalise):
            values = torch.from_numpy(np.concatenate(images)).permute(0, 3, 1, 2)
            stream = _Stream(values=values, affine=affine)
            continue
        outputs = (
            [apply(op, x) for x in stream.chunks()]
            if isinstance(op, GlobalAveragePool)
            else list(_outputs(op, quantized.layers[op.name], stream))
        )
        stream = _Stream(values=torch.cat([_to_bytes(y, affine) for y in outputs]), affine=affine)
    return torch.cat(list(stream.chunks())).numpy()


@pytest.fixture(scope="module")
def photographs_int8(imagenet):
    """Return the graph and its INT8 form, plain and corrected, on 48 calibration photographs."""
    graph = folded(imagenet)
    images = inputs(photographs.calibration_set(), imagenet, 48)
    plain = encode(graph, collect(graph, images))
    equalised, seen = equalise(graph, collect(graph, images))
    return graph, plain, correct(encode(equalised, seen), seen, images)


def test_correction_holds_the_imagenet_weights(photographs_int8, imagenet):
    graph, plain, corrected = photographs_int8
    images = inputs(photographs.labelled(), imagenet, 57)
    expected = float_logits(graph, images)
    before = agreement(int8_logits(plain, images), expected)
    after = agreement(int8_logits(corrected, images), expected)
    assert before.sqnr_db < 13  # the textbook collapse is really there
    assert after.sqnr_db > 23.5
    assert after.top1.percent >= 93


def test_fashion_mnist_keeps_its_labels(fashion):
    graph = folded(fashion)
    images = inputs(fashion_mnist.calibration_set(), fashion, 64)
    equalised, seen = equalise(graph, collect(graph, images))
    corrected = correct(encode(equalised, seen), seen, images)
    test_images = inputs(fashion_mnist.test_set(), fashion, 300)
    found = agreement(int8_logits(corrected, test_images), float_logits(graph, test_images))
    assert found.top1.percent >= 98
    assert found.sqnr_db > 30


def test_it_repeats(fashion):
    graph = folded(fashion)
    images = inputs(fashion_mnist.calibration_set(), fashion, 16)
    seen = collect(graph, images)
    once, again = (correct(encode(graph, seen), seen, images) for _ in range(2))
    for name, layer in once.layers.items():
        np.testing.assert_array_equal(layer.values, again.layers[name].values)
        np.testing.assert_array_equal(layer.bias, again.layers[name].bias)


@pytest.mark.parametrize("reference", ["imagenet", "fashion"])
def test_equalised_is_the_same_function(reference, request):
    reference = request.getfixturevalue(reference)
    graph = folded(reference)
    source = photographs if reference.name.endswith("224") else fashion_mnist
    images = inputs(source.calibration_set(), reference, 8)
    equalised, seen = equalise(graph, collect(graph, images))
    expected = float_logits(graph, images)
    np.testing.assert_allclose(
        float_logits(equalised, images), expected, atol=2e-4 * np.abs(expected).max()
    )
    counted = collect(equalised, images)
    for name, statistics in counted.items():
        np.testing.assert_allclose(statistics.high, seen[name].high, rtol=1e-3, atol=1e-3)
    changed = [
        op.name
        for op, old in zip(equalised.operators, graph.operators, strict=True)
        if isinstance(op, Convolution) and not np.array_equal(op.weight, old.weight)
    ]
    assert changed
