"""Recipes: the built-in ones work, a wrong one is refused in a line that says what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import Silent, folded, network_inputs

from edgenet.data import fashion_mnist
from edgenet.errors import BadData, UsageError
from edgenet.quantize.form import calibrate, jury, make_form
from edgenet.quantize.recipe import METHODS, Recipe, load_recipe


@pytest.mark.parametrize("name", METHODS)
def test_built_in(name):
    recipe = load_recipe(name)
    assert recipe.ranges == name
    steps = "equalised, spare channels, learned rounding, bias correction"
    assert recipe.summary().startswith(name)
    assert recipe.summary().endswith(steps)


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"ranges": "percentile", "percentile": 99.5, "spare_channels": false}')
    mine = Recipe(ranges="percentile", percentile=99.5, spare_channels=False)
    assert load_recipe(str(path)) == mine
    assert mine.summary() == "percentile 99.5, equalised, learned rounding, bias correction"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"ranges": "minmax", "rounding": true}', "unknown key 'rounding'; a recipe has ranges"),
        ('{"ranges": "kl"}', 'ranges is "kl", expected one of minmax, percentile, mse, entropy'),
        ('{"ranges": ["minmax"]}', "ranges is"),
        ('{"ranges": "percentile", "percentile": 100.5}', "percentile is 100.5, expected a number"),
        ('{"ranges": "percentile", "percentile": true}', "percentile is true, expected a number"),
        ('{"ranges": "percentile", "percentile": NaN}', "percentile is NaN, expected a number"),
        ('{"ranges": "minmax", "equalise": 1}', "equalise is 1, expected true or false"),
        ('{"equalise": true}', 'lacks "ranges"'),
        ('["minmax"]', "a recipe is a JSON object"),
        ("ranges: minmax", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        (b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    path = tmp_path / "mine.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadData) as caught:
        load_recipe(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_such_recipe():
    with pytest.raises(UsageError, match="no recipe 'nothing': choose from minmax, percentile"):
        load_recipe("nothing")


@pytest.fixture(scope="module")
def shown(fashion):
    """The graph, 48 calibration images, and a jury of 150 test images."""
    graph = folded(fashion)
    judging = network_inputs(fashion_mnist.test_set(), fashion, 150)
    calibrating = network_inputs(fashion_mnist.calibration_set(), fashion, 48)
    return graph, calibrating, jury("test images", graph, judging)


@pytest.mark.parametrize("name", METHODS)
def test_each_gives_a_working_int8(shown, name):
    graph, images, judges = shown
    calibrated = calibrate(graph, images, load_recipe(name), seed=0, progress=Silent())
    form = make_form(calibrated, (), progress=Silent())
    found = judges.agreement(form.quantized)
    assert found.sqnr_db >= 25
    assert found.top1.percent >= 96
    # Against the ranges that the same images show: minmax keeps them, the others only ever cut.
    seen = calibrated.equalised.statistics
    width, whole = np.transpose(
        [
            (
                calibrated.ranges[tensor][1] / calibrated.equalised.headroom.get(tensor, 1),
                values.high.max(),
            )
            for tensor, values in seen.items()
        ]
    )
    cut = width < whole * (1 - 1e-6)
    assert not (width > whole * (1 + 1e-6)).any()
    if name == "minmax":
        assert not cut.any()
    else:
        assert cut.sum() >= 5
