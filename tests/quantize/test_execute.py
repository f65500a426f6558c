"""Running a graph on the host: each operator by its definition, tensors let go after use."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch

from edgenet.graph import (
    IMAGE,
    Activate,
    Add,
    Concatenate,
    Convolution,
    Flatten,
    FullyConnected,
    GlobalAveragePool,
    Graph,
    Multiply,
    Normalise,
    Pool,
    Select,
    infer_shapes,
)
from edgenet.quantize.execute import apply, execute

RANDOM = np.random.default_rng(7)
X = (4 * RANDOM.normal(size=(2, 4, 7, 6))).astype(np.float32)
Y = RANDOM.normal(size=X.shape).astype(np.float32)
ROW = RANDOM.normal(size=(2, 5)).astype(np.float32)
GATE = RANDOM.random((2, 4, 1, 1), dtype=np.float32)


def convolve(x, op):
    """A convolution as its definition has it: one output at a time."""
    top, bottom, left, right = op.pad
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    out, per_group, height, width = op.weight.shape
    shape = infer_shapes((op,), X.shape[1:])[op.name]
    y = np.zeros((len(x), *shape), np.float64)
    for channel, row, column in np.ndindex(shape):
        first = channel // (out // op.groups) * per_group
        rows = row * op.stride[0] + op.dilation * np.arange(height)
        columns = column * op.stride[1] + op.dilation * np.arange(width)
        window = x[:, first : first + per_group][:, :, rows][:, :, :, columns]
        y[:, channel, row, column] = (window * op.weight[channel]).sum((1, 2, 3)) + op.bias[channel]
    return y


def slide(x, op, function):
    top, bottom, left, right = op.pad
    edges = ((0, 0), (0, 0), (top, bottom), (left, right))
    x = np.pad(x, edges, constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(x, op.kernel, (2, 3))
    return function(windows[:, :, :: op.stride[0], :: op.stride[1]], axis=(-2, -1))


def mean_within(windows, axis):
    """Return the mean of what `slide` did not add."""
    there = np.isfinite(windows)
    return np.where(there, windows, 0).sum(axis) / there.sum(axis)


CONVOLUTION = Convolution(
    name="y",
    input=IMAGE,
    weight=RANDOM.normal(size=(6, 2, 3, 2)).astype(np.float32),
    bias=RANDOM.normal(size=6).astype(np.float32),
    stride=(2, 1),
    pad=(2, 0, 1, 1),
    groups=2,
    dilation=2,
    activation="relu6",
)
ROWS = FullyConnected(
    name="y",
    input="x",
    weight=RANDOM.normal(size=(3, 5)).astype(np.float32),
    bias=RANDOM.normal(size=3).astype(np.float32),
    activation="unit",
)
MAX = Pool(name="y", input="x", kind="max", kernel=(3, 2), stride=(2, 1), pad=(1, 1, 1, 0))
MEAN = Pool(name="y", input="x", kind="average", kernel=(2, 3), stride=(2, 3), pad=(0, 0, 0, 0))
EDGES = Pool(name="y", input="x", kind="average", kernel=(3, 3), stride=(2, 1), pad=(1, 1, 1, 1))
NORMALISE = Normalise(
    name="y", input="x", mean=np.array([1, 2, 3, 4], "f4"), std=np.array([1, 2, 4, 8], "f4")
)
CASES = {
    "normalise": (
        NORMALISE,
        (X,),
        (X - np.c_[1, 2, 3, 4].reshape(4, 1, 1)) / np.c_[1, 2, 4, 8].reshape(4, 1, 1),
    ),
    "convolution": (CONVOLUTION, (X,), convolve(X, CONVOLUTION).clip(0, 6)),
    "fully connected": (ROWS, (ROW,), (ROW @ ROWS.weight.T + ROWS.bias).clip(0, 1)),
    "max": (MAX, (X - 9,), slide(X - 9, MAX, np.max)),
    "mean": (MEAN, (X,), slide(X, MEAN, np.mean)),
    "mean of what is there": (EDGES, (X,), slide(X, EDGES, mean_within)),
    "mean of a map": (GlobalAveragePool(name="y", input="x"), (X,), X.mean((2, 3))),
    "mean as a map": (
        GlobalAveragePool(name="y", input="x", keep_map=True),
        (X,),
        X.mean((2, 3), keepdims=True),
    ),
    "flatten": (Flatten(name="y", input="x"), (X,), X.reshape(2, -1)),
    "relu": (Activate(name="y", input="x", function="relu"), (X,), X.clip(0)),
    "relu6": (Activate(name="y", input="x", function="relu6"), (X,), X.clip(0, 6)),
    "unit": (Activate(name="y", input="x", function="unit"), (X,), X.clip(0, 1)),
    "hard-swish": (
        Activate(name="y", input="x", function="hard_swish"),
        (X,),
        X * (X / 6 + 0.5).clip(0, 1),
    ),
    "sigmoid": (Activate(name="y", input="x", function="sigmoid"), (X,), 1 / (1 + np.exp(-X))),
    "add": (Add(name="y", inputs=("x", "z"), activation="relu"), (X, Y), (X + Y).clip(0)),
    "multiply": (Multiply(name="y", inputs=("x", "z")), (X, GATE), X * GATE),
    "concatenate": (
        Concatenate(name="y", inputs=("x", "z")),
        (X, Y),
        np.concatenate([X, Y], axis=1),
    ),
    "select": (Select(name="y", input="x", channels=(2, 0)), (X,), X[:, [2, 0]]),
}


@pytest.mark.parametrize("case", CASES)
def test_operators_by_their_definitions(case):
    op, inputs, expected = CASES[case]
    found = apply(op, *map(torch.from_numpy, inputs)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


def test_a_tensor_lives_until_its_last_reader():
    """The shortcut of a residual outlives the layers that it skips; nothing else does."""

    def relu(name, source):
        return Activate(name=name, input=source, function="relu")

    operators = (
        Normalise(name="a", input=IMAGE, mean=np.zeros(3, "f4"), std=np.ones(3, "f4")),
        relu("b", "a"),
        relu("c", "b"),
        relu("d", "c"),
        Add(name="e", inputs=("d", "a")),
        Add(name="f", inputs=("e", "e")),
    )
    shapes = infer_shapes(operators, (3, 4, 4))
    graph = Graph(name="n", operators=operators, shapes=shapes, outputs={"f": "sums"})
    tensors, alive = {}, []

    def watch(name, tensor):
        tensors[name] = weakref.ref(tensor)
        gc.collect()
        alive.append("".join(sorted(key for key, ref in tensors.items() if ref() is not None)))

    images = torch.full((2, 4, 4, 3), 3, dtype=torch.uint8)
    assert (execute(graph, images, watch) == 12).all()
    assert alive == ["a", "ab", "abc", "acd", "ade", "ef"]
