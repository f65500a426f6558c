"""Accuracy and agreement, by arithmetic that can be done by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenet.measure.accuracy import Proportion, score, top_indices
from edgenet.measure.agreement import agreement


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(8, 10, 49.02, 94.33), (0, 10, 0.0, 27.75), (10, 10, 72.25, 100.0), (50, 100, 40.38, 59.62)],
)
def test_wilson(right, n, low, high):
    """Reference values of R's binom::binom.confint(methods = "wilson")."""
    found = Proportion(right=right, n=n)
    assert found.percent == 100 * right / n
    assert found.interval == pytest.approx((low, high), abs=0.005)


def test_top_indices_keep_the_order_of_ties():
    logits = np.array([1, 3, 3, 2, 3], np.float32)
    assert top_indices(logits, 4) == (1, 2, 4, 3)
    assert top_indices(logits, 9) == (1, 2, 4, 3, 0)


@given(
    st.lists(st.sampled_from([0.0, -0.0, 1.0, 2.5, -7.0, np.inf, -np.inf, np.nan]), min_size=1),
    st.integers(1, 12),
)
def test_top_indices_are_the_first_of_all_sorted(values, count):
    logits = np.array(values, np.float32)
    assert top_indices(logits, count) == tuple(np.argsort(-logits, kind="stable")[:count].tolist())


def test_score():
    found = score([(1, 2), (2, 1), (3, 0)], [frozenset({1, 9}), frozenset({1}), frozenset({4})])
    assert (found.top1.right, found.top5.right, found.top1.n) == (1, 2, 3)


def test_nothing_has_no_accuracy():
    with pytest.raises(ValueError, match="0 predictions"):
        score([], [])
    with pytest.raises(ValueError, match="logits"):
        agreement(np.empty((0, 3), np.float32), np.empty((0, 3), np.float32))


def test_agreement():
    reference = np.array([[3, 0], [0, 4]], np.float32)
    found = agreement(np.array([[3, 0], [5, 4]], np.float32), reference)
    assert (found.top1.right, found.top1.n) == (1, 2)
    assert found.max_difference == 5
    assert found.rms_difference == pytest.approx(2.5)
    assert found.sqnr_db == pytest.approx(10 * math.log10(25 / 25))
    assert agreement(reference, reference).sqnr_db is None
