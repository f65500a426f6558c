"""The reference read back from a bundle's float32 ONNX file is bit for bit what was converted."""

from dataclasses import fields

import numpy as np
import pytest
from networks import NETWORKS, heads

from edgenet.bundle import Precision
from edgenet.convert import onnx as onnx_writer
from edgenet.convert.description import Description
from edgenet.convert.reference_file import read_reference
from edgenet.convert.source import of_reference
from edgenet.errors import BrokenBundle
from edgenet.preprocess import Preprocessing


def assert_equal(found, expected):
    assert (found.name, found.shapes) == (expected.name, expected.shapes)
    assert list(found.outputs.items()) == list(expected.outputs.items())
    for ours, theirs in zip(found.operators, expected.operators, strict=True):
        assert type(ours) is type(theirs)
        for field in fields(ours):
            a, b = getattr(ours, field.name), getattr(theirs, field.name)
            same = np.array_equal(a, b) if isinstance(b, np.ndarray) else a == b
            assert same, (theirs.name, field.name)


def test_the_reference_of_a_bundle_is_what_was_converted(small_bundle, fashion):
    (artifact,) = small_bundle.select(("onnxruntime",), (Precision.FLOAT32,))
    found = read_reference(small_bundle.path(artifact), small_bundle.mean, small_bundle.std)
    assert_equal(found, of_reference(fashion).graph)


@pytest.mark.parametrize("draw", [*NETWORKS.values(), heads])
def test_every_operator_comes_back(draw, tmp_path):
    graph = draw()
    normalise = graph.operators[0]
    description = Description(
        name="x",
        version="1",
        licence="",
        labels=("a",),
        preprocessing=Preprocessing(resolution=32, crop_fraction=0.875),
    )
    onnx_writer.write_float32(graph, tmp_path / "x.onnx", description=description)
    mean, std = (tuple(map(float, v)) for v in (normalise.mean, normalise.std))
    assert_equal(read_reference(tmp_path / "x.onnx", mean, std), graph)


def test_an_int8_file_is_no_reference(small_bundle):
    (artifact,) = small_bundle.select(("onnxruntime",), (Precision.INT8,))
    with pytest.raises(BrokenBundle, match="is not a float32 file"):
        read_reference(small_bundle.path(artifact), small_bundle.mean, small_bundle.std)
