"""Sums of agreement: what they say is what the whole arrays say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenet.measure.agreement import agreement
from edgenet.stream.standing import Standing


def standing(ours, theirs, accepted=None):
    found = Standing()
    for number, (own, reference) in enumerate(zip(ours, theirs, strict=True)):
        found = found.with_frame(own, reference, accepted[number] if accepted else None)
    return found


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(1, 40))
def test_it_is_what_evaluate_counts(seed, classes, frames):
    rng = np.random.default_rng(seed)
    theirs = rng.normal(size=(frames, classes)).astype(np.float32)
    ours = (theirs + rng.normal(scale=0.5, size=theirs.shape)).astype(np.float32)
    found, whole = standing(ours, theirs), agreement(ours, theirs)
    assert found.top1 == whole.top1
    assert found.sqnr_db == pytest.approx(whole.sqnr_db)
    assert 0 <= found.top5_overlap <= 1
    if classes <= 5:
        assert found.top5_overlap == 1


def test_the_same_bits():
    logits = np.random.default_rng(0).normal(size=(7, 10)).astype(np.float32)
    found = standing(logits, logits)
    assert (found.top1.right, found.top5_overlap, found.sqnr_db) == (7, 1.0, None)


def test_the_five_best():
    reference = np.arange(10, dtype=np.float32)
    ours = reference.copy()
    ours[[8, 9]] = -1  # two of its five best are none of ours
    found = Standing().with_frame(ours, reference, None)
    assert found.top5_overlap == pytest.approx(3 / 5)
    assert found.same == 0


def test_without_frames_nothing_is_said():
    found = Standing()
    assert found.top1 is found.top5_overlap is found.sqnr_db is found.bound is None


def test_without_labels_there_is_no_bound():
    assert (
        standing([np.eye(3, dtype=np.float32)[0]], [np.eye(3, dtype=np.float32)[0]]).bound is None
    )


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3, st.booleans()), min_size=1, max_size=60))
def test_the_bound_holds_whatever_is_right(frames):
    """The accuracy on the labelled frames lies in it; it is as wide as both differ."""
    one_hot = np.eye(4, dtype=np.float32)
    found = Standing()
    for ours, theirs, right, labelled in frames:
        accepted = frozenset({right}) if labelled else None
        found = found.with_frame(one_hot[ours], one_hot[theirs], accepted)
    known = [frame for frame in frames if frame[3]]
    assert found.labelled == len(known)
    if not known:
        assert found.bound is None
        return
    low, high = found.bound
    assert low - 1e-9 <= found.accuracy.percent <= high + 1e-9
    apart = 100 * sum(ours != theirs for ours, theirs, *_ in known) / len(known)
    middle = found.reference_accuracy.percent
    assert low == pytest.approx(max(0, middle - apart))
    assert high == pytest.approx(min(100, middle + apart))
