"""The paper's figures, to the integer."""

import pytest

from edgenet.models.architecture import LayerKind
from edgenet.models.cost import PAPER, count, grid

MULT_ADDS = {
    (1.0, 224): 568_740_352,
    (1.0, 192): 418_121_728,
    (1.0, 160): 290_675_200,
    (1.0, 128): 186_400_768,
    (0.75, 224): 325_400_448,
    (0.75, 192): 239_273_472,
    (0.75, 160): 166_396_800,
    (0.75, 128): 106_770_432,
    (0.5, 224): 149_497_088,
    (0.5, 192): 109_970_432,
    (0.5, 160): 76_524_800,
    (0.5, 128): 49_160_192,
    (0.25, 224): 41_030_272,
    (0.25, 192): 30_212_608,
    (0.25, 160): 21_059_200,
    (0.25, 128): 13_570_048,
}
# weights (paper), trainable (torch), Keras, BatchNorm folded
PARAMS = {
    1.0: (4_209_088, 4_231_976, 4_253_864, 4_221_032),
    0.75: (2_568_144, 2_585_560, 2_601_976, 2_577_352),
    0.5: (1_319_648, 1_331_592, 1_342_536, 1_326_120),
    0.25: (463_600, 470_072, 475_544, 467_336),
}


def test_grid():
    models = grid()
    assert len(models) == 16
    for model in models:
        assert model.mult_adds == MULT_ADDS[model.width_multiplier, model.resolution]
        assert (
            model.params,
            model.params_trainable,
            model.params_keras,
            model.params_deployed,
        ) == PARAMS[model.width_multiplier]


def test_printed_tables_6_and_7():
    for (alpha, resolution), row in PAPER.items():
        model = count(width_multiplier=alpha, resolution=resolution)
        # 290.675 million is printed as 290; every other figure is rounded.
        printed = {round(model.mult_adds / 1e6), model.mult_adds // 1_000_000}
        assert row.mult_adds_millions in printed
        assert row.params_millions == round(model.params / 1e6, 1)


def test_table_2_shares():
    model = count()
    shares = {kind: model.share(kind) for kind in LayerKind}
    assert shares[LayerKind.POINTWISE] == pytest.approx((94.86, 74.59), abs=0.005)
    assert shares[LayerKind.DEPTHWISE] == pytest.approx((3.06, 1.06), abs=0.005)
    assert shares[LayerKind.CONVOLUTION] == pytest.approx((1.9056, 0.0205), abs=5e-5)
    assert shares[LayerKind.FULLY_CONNECTED] == pytest.approx((0.18, 24.33), abs=0.005)


def test_table_4_full_convolutions():
    assert count().full_convolution_mult_adds == 4_866_269_184


def test_table_3_internal_block():
    block = count().layers[13:15]  # 512 channels at 14 x 14
    assert sum(row.mult_adds for row in block) == 52_283_392
    assert sum(row.weights for row in block) == 266_752


def test_saving_is_the_formula():
    savings = count(width_multiplier=0.75, resolution=160).savings()
    assert len(savings) == 13
    for row in savings:
        assert row.ratio == pytest.approx(row.formula, rel=1e-12)
        assert row.formula > 1 / 9


def test_layer_oracle_of_tf_slim():
    """TF-Slim's docstring lists every convolution; its totals leave the classifier out."""
    body = count().layers[:-1]
    assert (sum(r.weights for r in body), sum(r.mult_adds for r in body)) == (
        3_185_088,
        567_716_352,
    )
    body = count(width_multiplier=0.75, resolution=128).layers[:-1]
    assert (sum(r.weights for r in body), sum(r.mult_adds for r in body)) == (
        1_800_144,
        106_002_432,
    )
