"""When the label of a stream changes."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenet.errors import UsageError
from edgenet.stream.events import UNKNOWN, LabelChanges, Smoothing, parse_smoothing
from tests.stream.results import MS, make_frame, make_result


def events_of(words, smoothing, probability=0.9):
    changes = LabelChanges(smoothing, wall_ns=lambda: 1_700_000_000_123_456_789)
    found = []
    for number, word in enumerate(words.split()):
        label, _, sure = word.partition(":")
        frame = make_frame(number, captured_ns=number * 100 * MS)
        result = make_result(
            label,
            float(sure) if sure else probability,
            frame=frame,
            labelled_ns=frame.captured_ns + 7 * MS,
        )
        event = changes.add(result)
        if event is not None:
            found.append(event)
    return found


SMOOTHED = Smoothing(needed=3, of=5, threshold=0.5)


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("cat cat", []),
        ("cat cat cat cat", [("cat", 2)]),
        ("cat dog cat dog cat", [("cat", 4)]),
        ("cat cat cat dog cat dog cat", [("cat", 2)]),
        ("cat cat cat dog dog dog dog", [("cat", 2), ("dog", 5)]),
        ("cat:0.4 cat:0.4 cat:0.4 cat cat cat", [(UNKNOWN, 2), ("cat", 5)]),
        ("cat:0.1 dog:0.2 boat:0.3", [(UNKNOWN, 2)]),
        ("cat:0.5 cat:0.5 cat:0.5", [("cat", 2)]),
    ],
)
def test_n_of_m(words, changes):
    found = events_of(words, SMOOTHED)
    assert [(event.label, event.sequence) for event in found] == changes
    before = [None, *(label for label, _ in changes)]
    assert [event.previous for event in found] == before[: len(found)]


def test_an_event_says_what_it_knows():
    (event,) = events_of("cat:0.9 dog:0.9 cat:0.8 cat:0.7", SMOOTHED)
    assert event.fields() == {
        "time": "2023-11-14T22:13:20.123+00:00",
        "label": "cat",
        "index": sum(map(ord, "cat")),
        "previous": None,
        "probability": 0.8,
        "votes": 3,
        "of": 4,
        "sequence": 3,
        "age_ms": 7.0,
        "clock": "sensor",
    }
    (unsure,) = events_of("cat:0.1 cat:0.1 cat:0.1", SMOOTHED)
    assert (unsure.label, unsure.index) == (UNKNOWN, None)


def test_classes_of_the_same_name_are_not_added_up():
    """ImageNet has two classes "crane" and two "maillot"."""
    changes = LabelChanges(SMOOTHED)
    for index in (134, 517, 134, 517):
        assert changes.add(make_result("crane", index=index)) is None
    assert changes.add(make_result("crane", index=134)).index == 134


@given(st.lists(st.sampled_from(["cat", "dog", "cat:0.1"]), max_size=60), st.integers(1, 7))
def test_a_change_is_a_change_and_has_its_votes(words, of):
    smoothing = Smoothing(needed=of // 2 + 1, of=of, threshold=0.5)
    found = events_of(" ".join(words), smoothing)
    for before, after in pairwise(found):
        assert before.label == after.previous != after.label
    assert all(smoothing.needed <= event.votes <= event.of <= of for event in found)


@pytest.mark.parametrize("text", ["", "3", "3/", "a/5", "0/5", "6/5", "2/4", "-1/1", "3/5/7"])
def test_no_smoothing(text):
    with pytest.raises(UsageError, match="--smooth"):
        parse_smoothing(text, threshold=0.3)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_no_threshold(threshold):
    with pytest.raises(UsageError, match="--unknown"):
        parse_smoothing("3/5", threshold=threshold)


def test_smoothing():
    assert parse_smoothing("1/1", threshold=0.0) == Smoothing(needed=1, of=1, threshold=0.0)
