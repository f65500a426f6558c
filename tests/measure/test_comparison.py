"""What may be said of two stored measurements, and which are not compared at all."""

import pytest
from stored_profiles import (
    predictions,
    profile_document,
    profile_record,
    sha256,
    write_document,
)

from edgenet.errors import NotComparable
from edgenet.measure.comparison import RUN_INTERLEAVED, compare
from edgenet.measure.gates import Limits, Outcome, judge
from edgenet.report.reading import read_document

FIVE = (5.0, 5.05, 4.95, 5.02, 4.98)


@pytest.fixture
def stored(tmp_path):
    """Return a function that stores a document and reads it back."""

    def store(name, *records, **changes):
        path = write_document(tmp_path / f"{name}.json", profile_document(*records, **changes))
        return read_document(path)

    return store


def slower(times, **changes):
    return profile_record(launches_ms=[times * ms for ms in FIVE], **changes)


def verdicts(comparison):
    (pair,) = comparison.pairs
    return {(c.name, c.percentile): c.verdict.value for c in pair.latencies}


def test_one_launch_a_side_cannot_tell(stored):
    found = compare(stored("base"), stored("new", profile_record(launches_ms=[10.0])))
    assert set(verdicts(found)) == {
        (name, percentile)
        for name in ("inference_ms", "paced_inference_ms")
        for percentile in ("p50", "p95")
    }
    assert set(verdicts(found).values()) == {"cannot tell"}
    change = found.pairs[0].latencies[0]
    assert change.base.interval[0] < change.base.ms < change.base.interval[1]
    assert "(these are 1 and 1)" in change.would_tell
    assert change.would_tell.endswith(f"{RUN_INTERLEAVED}, which times inference alone")


@pytest.mark.parametrize(
    ("times", "verdict"), [(1.0, "no difference"), (1.1, "slower"), (0.9, "faster")]
)
def test_five_launches_a_side_tell(stored, times, verdict):
    found = compare(stored("base", slower(1)), stored("new", slower(times)))
    assert set(verdicts(found).values()) == {verdict}
    (ratio, *_) = [change.ratio for change in found.pairs[0].latencies]
    assert ratio.low < times < ratio.high
    assert ratio.launches == 5


def test_four_launches_are_too_few(stored):
    found = compare(stored("base", slower(1)), stored("new", profile_record(launches_ms=FIVE[:4])))
    assert set(verdicts(found).values()) == {"cannot tell"}


def test_what_one_side_did_not_time_is_not_compared(stored):
    record = profile_record()
    record["latency"]["paced_inference_ms"] = None
    found = compare(stored("base"), stored("new", record))
    assert {name for name, _ in verdicts(found)} == {"inference_ms"}


def test_records_meet_by_artefact_and_threads(stored):
    base = [profile_record(threads=n) for n in (1, 2)] + [profile_record(runtime="litert")]
    new = [profile_record(threads=n) for n in (2, 4)] + [profile_record(precision="float32")]
    found = compare(stored("base", *base), stored("new", *new))
    assert [pair.label for pair in found.pairs] == ["onnxruntime int8, 2 threads"]
    assert [record.label for record in found.only_base] == [
        "onnxruntime int8, 1 thread",
        "litert int8, 1 thread",
    ]
    assert [record.label for record in found.only_new] == [
        "onnxruntime int8, 4 threads",
        "onnxruntime float32, 1 thread",
    ]


def test_nothing_in_common_names_what_each_has(stored):
    base, new = stored("base"), stored("new", profile_record(runtime="litert", threads=2))
    with pytest.raises(NotComparable, match=r"base.json has onnxruntime int8, 1 thread; .*new"):
        compare(base, new)


def paced(fps):
    return {"fps": fps, "missed": 0, "saturated": False, "reachable_fps": None}


def state(governor, power_mode=None):
    before = {"governor": governor, "power_mode": power_mode}
    return {"before": before, "during": [], "after": before}


OF_RECORDS = [
    ({"threads": 2}, "threads 1 against 2"),
    ({"runtime_version": "1.17"}, "runtime version 1.20.1 against 1.17"),
    ({"device": "GPU"}, "device CPU against GPU"),
    ({"quick": True}, "length of the run published against quick"),
    ({"affinity": [0]}, "CPU affinity 0 1 2 3 against 0"),
    ({"paced": paced(15)}, "paced rate 30 fps against 15 fps"),
    ({"state": state("ondemand")}, "governor performance against ondemand"),
    ({"throttled": True}, "throttled no against yes"),
    ({"complete": False}, "measured whole yes against no"),
    ({"predictions": predictions(n=58)}, "images 57 against 58, 57 of them the same"),
]
OF_DOCUMENTS = [
    ({"machine": "x86_64"}, "machine aarch64 against x86_64"),
    ({"board": {"model": "Pi 4"}}, "board Raspberry Pi 5 Model B Rev 1.0 against Pi 4"),
    ({"preprocessing_sha256": sha256("other")}, f"against {sha256('other')[:12]}"),
]


@pytest.mark.parametrize(
    ("record", "document", "told"),
    [(changes, {}, told) for changes, told in OF_RECORDS]
    + [({}, changes, told) for changes, told in OF_DOCUMENTS],
    ids=[told.partition(" against")[0] for _, told in OF_RECORDS + OF_DOCUMENTS],
)
def test_unlike_conditions_are_refused_and_named(stored, record, document, told):
    base, new = stored("base"), stored("new", profile_record(**record), **document)
    for sides in ((base, new), (new, base)):
        with pytest.raises(NotComparable, match="--allow-unlike"):
            compare(*sides)
    with pytest.raises(NotComparable) as refused:
        compare(base, new)
    assert told in str(refused.value)
    assert "base.json and " in str(refused.value)
    found = compare(base, new, allow_unlike=True)
    assert len(found.conditions.differences) == 1


def test_two_throttled_runs_are_not_alike(stored):
    sides = [stored(name, profile_record(throttled=True)) for name in ("base", "new")]
    with pytest.raises(NotComparable, match="throttled yes against yes"):
        compare(*sides)


def test_every_unlike_condition_is_named_once(stored):
    base = [profile_record(runtime=name) for name in ("litert", "openvino")]
    new = [profile_record(runtime=name, device="GPU") for name in ("litert", "openvino")]
    with pytest.raises(NotComparable) as refused:
        compare(stored("base", *base), stored("new", *new, machine="x86_64"))
    assert "machine aarch64 against x86_64; " in str(refused.value)
    assert str(refused.value).count("device CPU against GPU") == 1
    assert "(litert int8, openvino int8)" in str(refused.value)


def test_what_one_side_does_not_state_is_named(stored):
    record = profile_record(throttled=None, affinity=None, state=None)
    found = compare(stored("base"), stored("new", record, board=None))
    assert found.conditions.unknown == ("board", "CPU affinity", "governor")
    assert not found.conditions.differences


def test_what_only_changes_latency_does_not_stand_against_accuracy(stored):
    record = profile_record(latency=None, quick=True, throttled=True, wrong=[0])
    found = compare(stored("base"), stored("new", record))
    assert not found.pairs[0].latencies
    assert found.pairs[0].accuracy.difference.points == pytest.approx(-100 / 57)


def test_accuracy_is_paired_by_image(stored):
    base = profile_record(wrong=[1, 2, 3])
    new = profile_record(wrong=[3, 4])
    new["predictions"].reverse()
    (pair,) = compare(stored("base", base), stored("new", new)).pairs
    difference = pair.accuracy.difference
    assert (difference.n, difference.lost, difference.gained) == (57, 1, 2)
    assert (pair.accuracy.base.right, pair.accuracy.new.right) == (54, 55)
    assert (pair.same_answers.right, pair.same_answers.n) == (54, 57)
    assert difference.verdict.value == "no difference"


def test_other_labels_make_other_images(stored):
    record = profile_record()
    record["predictions"][0]["label"] = [9]
    new = stored("new", record)
    with pytest.raises(NotComparable, match="57 against 57, 56 of them the same"):
        compare(stored("base"), new)
    (pair,) = compare(stored("base"), new, allow_unlike=True).pairs
    assert pair.accuracy.difference.n == 56


def test_no_accuracy_leaves_agreement(stored):
    new = stored("new", profile_record(accuracy=None, wrong=[5]))
    (pair,) = compare(stored("base"), new).pairs
    assert (pair.accuracy, pair.accuracy_reason) == (None, "no accuracy in NEW")
    assert (pair.same_answers.right, pair.same_answers.n) == (56, 57)
    (without,) = compare(stored("base"), stored("new", profile_record(predictions=None))).pairs
    assert without.accuracy_reason == "no labelled image in common"
    assert without.same_answers is None


def outcomes(gates):
    return {(gate.name, gate.figure): gate.outcome for gate in gates}


@pytest.mark.parametrize(
    ("percent", "outcome"),
    [(5, Outcome.FAILS), (10, Outcome.CANNOT_TELL), (15, Outcome.HOLDS)],
)
def test_a_slowdown_gate_is_about_the_whole_interval(stored, percent, outcome):
    found = compare(stored("base", slower(1)), stored("new", slower(1.1)))
    gates = judge(found, Limits(max_slowdown_percent=percent))
    assert outcomes(gates) == {
        ("max_slowdown", "inference_ms p50"): outcome,
        ("max_slowdown", "paced_inference_ms p50"): outcome,
    }
    for gate in gates:
        assert (gate.would_tell is None) == (outcome is not Outcome.CANNOT_TELL)


def test_an_undecided_slowdown_says_how_many_launches(stored):
    wide = [5.0, 5.4, 4.7, 5.2, 4.9]
    sides = [stored("base", profile_record(launches_ms=wide)), stored("new", slower(1.0))]
    gate = judge(compare(*sides), Limits(max_slowdown_percent=5))[0]
    assert gate.outcome is Outcome.CANNOT_TELL
    assert gate.would_tell.startswith("about ")
    assert gate.would_tell.endswith("launches a side, to show that it holds; these are 5")


@pytest.mark.parametrize(
    ("wrong", "points", "outcome", "told"),
    [
        ([], 7, Outcome.HOLDS, None),
        ([], 0.5, Outcome.CANNOT_TELL, "about 765 images, to show that it holds; these are 57"),
        (range(20), 5, Outcome.FAILS, None),
        (range(3), 2, Outcome.CANNOT_TELL, "to show that it fails; these are 57"),
    ],
)
def test_a_drop_gate(stored, wrong, points, outcome, told):
    found = compare(stored("base"), stored("new", profile_record(wrong=wrong)))
    (gate,) = judge(found, Limits(max_drop_points=points))
    assert gate.outcome is outcome
    assert gate.would_tell is None if told is None else told in gate.would_tell
    low, high = gate.interval
    assert low <= 100 * len(wrong) / 57 <= high


def test_gates_without_a_figure_cannot_be_told(stored):
    base = stored("base", profile_record(), profile_record(runtime="litert"))
    new = stored("new", profile_record(latency=None, accuracy=None))
    gates = judge(compare(base, new), Limits(max_slowdown_percent=5, max_drop_points=1))
    assert outcomes(gates) == {
        ("max_slowdown", "latency"): Outcome.CANNOT_TELL,
        ("max_drop", "top-1"): Outcome.CANNOT_TELL,
        ("present", "artefact"): Outcome.CANNOT_TELL,
    }
    assert [gate.artifact for gate in gates][-1] == "litert int8, 1 thread"
    assert all(gate.would_tell for gate in gates)
    assert judge(compare(base, new), Limits()) == ()
