"""Outputs in more than 8 bits: exact to the last bit of a layer's sums."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgenet.graph import Affine
from edgenet.quantize.windows import COLUMNS, WINDOWS, columns, least_weight_scale, windows

ZERO_POINTS = st.integers(0, 255)


@given(zero_point=ZERO_POINTS, seed=st.integers(0, 2**32 - 1), reach=st.floats(0, 1))
def test_columns_add_exactly_what_is_asked(zero_point, seed, reach):
    source = Affine(scale=0.1, zero_point=zero_point)
    unit = max(zero_point, 255 - zero_point) // (WINDOWS - 1)
    largest = int(reach * (COLUMNS - 1) * 127 * unit)
    steps = np.random.default_rng(seed).integers(-largest, largest + 1, 20)
    found = columns(steps, source)
    assert found.weights.dtype == np.int8 and found.weights.min() >= -127
    assert found.weights.shape == (20, found.inputs.shape[1]) and found.inputs.shape[1] <= COLUMNS
    real = found.inputs.astype(np.int64) - (zero_point - 128)
    for row, inputs in enumerate(real):
        np.testing.assert_array_equal(found.weights.astype(np.int64) @ inputs, row * steps)


@given(
    zero_point=ZERO_POINTS,
    output=st.builds(Affine, scale=st.floats(1e-3, 10), zero_point=ZERO_POINTS),
    input_scale=st.floats(1e-4, 1),
)
def test_the_least_weight_scale_keeps_the_windows_within_reach(zero_point, output, input_scale):
    source = Affine(scale=input_scale, zero_point=zero_point)
    step = input_scale * least_weight_scale(output, source)
    first, second, *_ = windows(output).shifts
    steps = np.array([round((first - second) / step)])
    assert columns(steps, source).inputs.shape[1] <= COLUMNS


@given(output=st.builds(Affine, scale=st.floats(1e-3, 10), zero_point=ZERO_POINTS))
def test_windows_add_up_to_the_output(output):
    found = windows(output)
    reach = 255 * output.scale * (1 - output.zero_point / 255)
    values = np.linspace(-output.zero_point * output.scale, reach, 200)
    total = np.zeros(200)
    for shift in found.shifts:
        bytes_ = np.clip(
            np.rint((values - shift) / found.affine.scale) + found.affine.zero_point, 0, 255
        )
        total += (bytes_ - found.affine.zero_point) * found.affine.scale
    np.testing.assert_allclose(total, values, atol=found.affine.scale * 1.01)
    assert 4 * found.affine.scale < 1.3 * output.scale, (
        "four times as fine, but for what they reach"
    )
