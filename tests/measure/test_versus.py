"""Two bundles in turns: real launches of small ones, and the arithmetic by hand."""

import json
import math
import os
import random
import shutil
import signal
from contextlib import suppress
from dataclasses import replace
from importlib.resources import files
from threading import Timer

import fastjsonschema
import numpy as np
import pytest

from edgenet.board.detect import detect
from edgenet.board.machine import Machine
from edgenet.bundle import Precision
from edgenet.data import fashion_mnist
from edgenet.errors import NotComparable, RuntimeRefused
from edgenet.manifest import load_bundle
from edgenet.measure.comparison import interleaved_changes
from edgenet.measure.gates import Limits, Outcome, judge
from edgenet.measure.interleaved import InterleavedLaunch, middle, ratio_of, waited
from edgenet.measure.launch import Block, Launch
from edgenet.measure.profile import NULL, runnable, shown_images
from edgenet.measure.statistics import Verdict
from edgenet.measure.timing import Rules
from edgenet.measure.versus import Place, Plan, Side, summed_up, take_turns, versus
from edgenet.report.comparison import comparison_document, comparison_text
from edgenet.report.reading import read_comparison
from edgenet.report.saving import save_document

AT_ONCE = Rules(warm_up_runs=1, warm_up_seconds=0, give_up_seconds=0)
SHORT = Plan(launches=2, rounds=3, block_seconds=0.005, warm_up=AT_ONCE)
COMMAND = ["edgenet", "profile", "new", "--against", "base"]


def quiet(description, *, total=1):
    """A progress that shows nothing."""
    return lambda: None


def launch(ratio=1.0, *, base_ms=5.0, own=True, p95=True):
    """A launch of three rounds, each of them slowed down as a whole by something else."""
    rounds = tuple((base_ms * times, base_ms * ratio * times) for times in (1, 3, 1.5))
    return InterleavedLaunch(
        rounds_own_ms=((base_ms, base_ms * ratio),) if own else None,
        rounds_p50_ms=rounds,
        p95_ms=(2 * base_ms, 2 * base_ms * ratio) if p95 else None,
        waited=None,
    )


def test_a_launch_is_one_ratio_whatever_hits_both():
    found = middle(launch(1.1).rounds_p50_ms)
    assert found.ratio == pytest.approx(1.1)
    assert (found.base_ms, found.new_ms) == (7.5, pytest.approx(8.25))
    assert middle([(1, 1.1), (1, 1.1), (4, 1.1), (1, 1.1), (1, 5)]).ratio == pytest.approx(1.1)


def block(runs_ms, waited_ms):
    return Block(
        samples_ns=[round(ms * 1e6) for ms in runs_ms],
        elapsed_ns=round(sum(runs_ms) * 1e6),
        waited_ns=None if waited_ms is None else round(waited_ms * 1e6),
    )


def test_own_time_leaves_out_what_a_neighbour_takes():
    alone, beside = block([2, 2, 2, 2], 0), block([2, 6, 2, 6], 8)
    found = summed_up([(alone, alone), (alone, beside), (beside, alone)], threads=1)
    assert found.rounds_own_ms == ((2, 2), (2, 2), (2, 2))
    assert found.rounds_p50_ms == ((2, 2), (2, 4), (4, 2))
    assert found.waited == pytest.approx(16 / (4 * 8 + 2 * 16))
    assert list(found.figures) == ["own", "p50"]
    two_threads = summed_up([(beside, beside)], threads=2)
    assert two_threads.rounds_own_ms == ((3, 3),)
    assert two_threads.waited == pytest.approx(0.25)


def test_own_time_that_is_not_known():
    untold, impossible = block([2, 2], None), block([2, 2], 4)
    known = block([2, 2], 1)
    assert summed_up([(known, untold)], threads=1).rounds_own_ms is None
    assert summed_up([(known, untold)], threads=1).waited is None
    rounds = [(known, known), (known, known), (known, impossible)]
    assert len(summed_up(rounds, threads=1).rounds_own_ms) == 2
    assert summed_up(rounds[1:], threads=1).rounds_own_ms is None


def test_p95_wants_ten_runs_beyond():
    assert summed_up([(block([1] * 199, 0), block([1] * 500, 0))], threads=1).p95_ms is None
    long = block([1] * 180 + [3] * 20, 0)
    assert summed_up([(long, block([1] * 200, 0))], threads=1).p95_ms == (3, 1)


def test_the_interval_is_99_percent_over_launches():
    ratios = [1.02, 1.01, 1.03, 0.99, 1.00]
    logs = np.log(ratios)
    half = 4.604094871 * logs.std(ddof=1) / math.sqrt(5)
    found = ratio_of(ratios)
    assert found.confidence == 0.99
    assert found.low == pytest.approx(math.exp(logs.mean() - half))
    assert found.high == pytest.approx(math.exp(logs.mean() + half))
    assert ratio_of(ratios[:4]) is None


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ([1.1, 1.09, 1.11, 1.1, 1.1], Verdict.SLOWER),
        ([0.9, 0.91, 0.9, 0.89, 0.9], Verdict.FASTER),
        ([1.01, 0.99, 1, 1.02, 0.98], Verdict.NO_DIFFERENCE),
        ([1.1, 1.1, 1.1, 1.1], Verdict.CANNOT_TELL),
    ],
)
def test_verdicts(ratios, verdict):
    changes = list(interleaved_changes([launch(ratio) for ratio in ratios]))
    assert [change.percentile for change in changes] == ["own", "p50", "p95"]
    assert {change.verdict for change in changes} == {verdict}
    assert changes[0].base.launches == len(ratios)
    assert (changes[0].would_tell is None) == (len(ratios) >= 5)


@pytest.mark.parametrize(
    ("lacking", "told"), [({"p95": False}, ["own", "p50"]), ({"own": False}, ["p50", "p95"])]
)
def test_a_figure_is_told_only_where_every_launch_knows_it(lacking, told):
    launches = [launch(), launch(**lacking), *[launch()] * 5]
    assert [change.percentile for change in interleaved_changes(launches)] == told


def test_equal_things_are_called_equal_in_all_but_one_of_a_hundred():
    draw = np.random.default_rng(0)
    verdicts = [ratio_of(np.exp(draw.normal(0, 0.02, 7))).verdict for _ in range(4000)]
    assert 0.985 < verdicts.count(Verdict.NO_DIFFERENCE) / len(verdicts) < 0.995


def test_waiting_is_that_of_the_middle_launch():
    launches = [replace(launch(), waited=share) for share in (0.1, 0.5, None, 0.2)]
    assert waited(launches) == 0.2
    assert waited(launches[2:3]) is None


@pytest.fixture(scope="module")
def place():
    machine = Machine()
    return Place(machine=machine, board=detect(machine))


@pytest.fixture(scope="module")
def compare(place):
    """A function that lets two sides take turns, briefly."""

    def run(base, new, plan=SHORT, step=quiet):
        return versus(
            base,
            new,
            plan,
            dataset=fashion_mnist.test_set().draw(40, seed=0),
            place=place,
            command=COMMAND,
            step=step,
        )

    return run


def side(bundle, *runtimes, precision=Precision.INT8):
    """The artefacts of some runtimes, or the null runtime in their place."""
    return Side(bundle=bundle, artifacts=runnable(bundle, runtimes or (NULL,), (precision,)))


@pytest.fixture(scope="module")
def nothing_changed(small_bundle, compare):
    """LiteRT's INT8 against itself, five launches."""
    one = side(small_bundle, "litert")
    return compare(one, one, replace(SHORT, launches=5, rounds=10))


def test_a_bundle_against_itself(nothing_changed, small_bundle):
    (pair,) = nothing_changed.pairs
    assert pair.label == "litert int8, 1 thread"
    assert len(pair.launches) == 5
    assert all(len(launch.rounds_p50_ms) == 10 for launch in pair.launches)
    assert all(launch.waited is None or 0 <= launch.waited <= 1 for launch in pair.launches)
    p50 = next(change for change in pair.latencies if change.percentile == "p50")
    assert p50.name == "inference_ms"
    assert p50.ratio.low < 1.2
    assert p50.ratio.high > 0.8
    assert pair.accuracy.difference.n == pair.same_answers.right == 40
    assert (pair.accuracy.difference.lost, pair.accuracy.difference.gained) == (0, 0)
    assert pair.base.size_bytes == pair.new.size_bytes > 0
    assert pair.base.peak_rss_bytes > 10_000_000
    assert 0 < pair.base.added_bytes < pair.base.peak_rss_bytes
    assert pair.base.device == pair.new.device
    assert nothing_changed.base.bundle_sha256 == small_bundle.sha256
    assert nothing_changed.interleaving.complete
    assert not nothing_changed.conditions.differences or pair.base.throttled


def test_the_document_is_read_back_as_it_was(nothing_changed, tmp_path):
    schema = json.loads((files("edgenet.schemas") / "comparison.schema.json").read_bytes())
    document = comparison_document(nothing_changed, (), command=COMMAND)
    fastjsonschema.compile(schema)(document)
    (pair,) = document["pairs"]
    for found in pair["launches"]:
        assert set(found["p50"]) == {"base_ms", "new_ms", "ratio"}
    assert document["interleaving"]["command"] == COMMAND
    assert pair["latency"][0]["ratio"]["confidence"] == 0.99
    save_document(document, tmp_path / "found.json")
    again = read_comparison(tmp_path / "found.json")
    assert comparison_text(again, ()) == comparison_text(nothing_changed, ())
    assert comparison_document(again, (), command=COMMAND)["pairs"] == document["pairs"]


def test_the_report_says_how_it_was_taken(nothing_changed):
    text = comparison_text(nothing_changed, ())
    assert "5 launches of 10 rounds, blocks of 5 ms in a drawn order, on golden pictures" in text
    assert "intervals of latency are 99 % over launches, of answers 95 %" in text
    assert "again: edgenet profile new --against base" in text
    assert "different times" not in text


def test_null_against_null(small_bundle, compare):
    found = compare(side(small_bundle), side(small_bundle), replace(SHORT, threads=(1, 2)))
    assert [pair.label for pair in found.pairs] == [
        f"null {small_bundle.artifacts[0].form}, {threads}" for threads in ("1 thread", "2 threads")
    ]
    for pair in found.pairs:
        assert pair.latencies[0].verdict is Verdict.CANNOT_TELL
        assert pair.latencies[0].base.ms < 1
        assert (pair.accuracy, pair.accuracy_reason) == (None, "nothing is computed")


def test_what_only_one_side_has_is_named(small_bundle, compare):
    base = side(small_bundle, "litert", "openvino")
    new = replace(base, artifacts=(base.artifacts[0], *side(small_bundle, "onnxruntime").artifacts))
    shared, left = base.artifacts
    found = compare(base, new)
    assert [pair.label for pair in found.pairs] == [f"{shared.label}, 1 thread"]
    assert [record.artifact_label for record in found.only_base] == [left.label]
    assert [record.artifact_label for record in found.only_new] == ["onnxruntime int8"]
    (gate,) = judge(replace(found, pairs=()), Limits(max_drop_points=1))
    assert (gate.name, gate.outcome) == ("present", Outcome.CANNOT_TELL)


def test_nothing_in_common(small_bundle, compare):
    with pytest.raises(NotComparable, match=r"nothing in common: .* has litert int8; .* openvino"):
        compare(side(small_bundle, "litert"), side(small_bundle, "openvino"))


@pytest.mark.parametrize(
    ("change", "told"),
    [({"resolution": 32}, "resolution 64 against 32"), ({"crop_fraction": 0.5}, "preprocessing ")],
)
def test_other_pixels_are_refused(small_bundle, compare, change, told):
    other = replace(small_bundle, preprocessing=replace(small_bundle.preprocessing, **change))
    with pytest.raises(NotComparable, match=f"do not see the same pixels: {told}"):
        compare(side(small_bundle, "litert"), side(other, "litert"))


def test_other_labels_leave_the_latency(small_bundle, compare):
    other = replace(small_bundle, labels=tuple(f"{name}s" for name in small_bundle.labels))
    (pair,) = compare(side(small_bundle, "litert"), side(other, "litert")).pairs
    assert (pair.accuracy, pair.accuracy_reason) == (None, "the bundles have other labels")
    assert pair.latencies


def test_what_a_runtime_refuses_is_named_and_passes_no_gate(small_bundle, compare, tmp_path):
    shutil.copytree(small_bundle.root, tmp_path / "new")
    broken = load_bundle(tmp_path / "new")
    broken.path(side(broken, "onnxruntime").artifacts[0]).write_bytes(b"nonsense")
    found = compare(
        side(small_bundle, "litert", "onnxruntime"), side(broken, "litert", "onnxruntime")
    )
    assert [pair.new.runtime for pair in found.pairs] == ["litert"]
    ((label, reason),) = found.interleaving.not_run
    assert label == "onnxruntime int8, 1 thread"
    assert "onnx" in reason
    assert f"{label} not run: " in comparison_text(found, ())
    gates = judge(found, Limits(max_drop_points=100))
    assert [(gate.name, gate.outcome) for gate in gates] == [
        ("max_drop", Outcome.HOLDS),
        ("present", Outcome.CANNOT_TELL),
    ]
    with pytest.raises(RuntimeRefused, match="onnx"):
        compare(side(small_bundle, "onnxruntime"), side(broken, "onnxruntime"))


def interrupting(after):
    """A progress by which Ctrl-C comes a little after so many launches."""
    left = [after]

    def done():
        left[0] -= 1
        if left[0] == 0:
            Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()

    return lambda description, *, total=1: done


def test_ctrl_c_keeps_the_launches_that_are_whole(small_bundle, compare, tmp_path):
    one = Side(
        bundle=small_bundle,
        artifacts=side(small_bundle).artifacts + side(small_bundle, "litert").artifacts,
    )
    found = compare(one, one, replace(SHORT, launches=100), interrupting(after=2))
    (pair,) = found.pairs
    assert len(pair.launches) == 2
    assert pair.latencies[0].verdict is Verdict.CANNOT_TELL
    assert "these are 2 and 2" in pair.latencies[0].would_tell
    assert pair.accuracy_reason == "interrupted before"
    assert not found.interleaving.complete
    assert [reason for _, reason in found.interleaving.not_run] == ["interrupted before"]
    assert "interrupted: the launches that are here are whole" in comparison_text(found, ())
    save_document(comparison_document(found, (), command=COMMAND), tmp_path / "found.json")
    assert not read_comparison(tmp_path / "found.json").interleaving.complete


def test_ctrl_c_before_any_launch_is_whole_leaves_nothing(small_bundle, compare):
    Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        compare(side(small_bundle), side(small_bundle))


def test_ctrl_c_within_a_block(small_bundle):
    (artifact,) = side(small_bundle).artifacts
    with (
        shown_images(small_bundle) as (images, _),
        Launch("null", small_bundle.path(artifact), threads=1, images=images) as base,
        Launch("null", small_bundle.path(artifact), threads=1, images=images) as new,
    ):
        base.open()
        new.open()
        block = base.block(runs=3, seconds=0.02)
        assert block.elapsed_ns >= max(sum(block.samples_ns), 0.02e9)
        assert block.waited_ns is None or block.waited_ns >= 0
        (found,) = take_turns(
            [base, new], replace(SHORT, rounds=1), random.Random(0), threads=1
        ).rounds_p50_ms
        assert min(found) > 0
        Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        plan = replace(SHORT, rounds=10_000)
        with pytest.raises(KeyboardInterrupt):
            take_turns([base, new], plan, random.Random(0), threads=1)


def test_ctrl_c_between_the_words_of_a_block(small_bundle):
    """Blocks of one run: it mostly comes while a request or an answer is on its way."""
    (artifact,) = side(small_bundle).artifacts
    with (
        shown_images(small_bundle) as (images, _),
        Launch("null", small_bundle.path(artifact), threads=1, images=images) as launch,
    ):
        launch.open()
        watchdog = Timer(60.0, launch.close)  # an answer that never comes would be waited for
        watchdog.start()
        for number in range(100):
            launch.interrupted = False
            Timer(0.002 + 0.00013 * number, os.kill, (os.getpid(), signal.SIGINT)).start()
            with suppress(KeyboardInterrupt):
                while not launch.interrupted:
                    assert len(launch.block(runs=1, seconds=0).samples_ns) >= 1
        assert watchdog.is_alive()
        watchdog.cancel()


def in_launches(comparison, launches):
    """The comparison as it would be with other launches."""
    (pair,) = comparison.pairs
    latencies = tuple(interleaved_changes(launches))
    return replace(comparison, pairs=(replace(pair, launches=launches, latencies=latencies),))


@pytest.mark.parametrize(("own", "figure"), [(True, "own"), (False, "p50")])
def test_own_time_is_gated_where_it_is_known(nothing_changed, own, figure):
    ratios = (1.06, 1.061, 1.059, 1.06, 1.06)
    found = in_launches(nothing_changed, tuple(launch(ratio, own=own) for ratio in ratios))
    gates = {limit: judge(found, Limits(max_slowdown_percent=limit)) for limit in (5.0, 6.01, 7.0)}
    assert [gate.figure for (gate,) in gates.values()] == [f"inference_ms {figure}"] * 3
    assert [gate.outcome for (gate,) in gates.values()] == [
        Outcome.FAILS,
        Outcome.CANNOT_TELL,
        Outcome.HOLDS,
    ]


def test_a_busy_machine_is_told(nothing_changed):
    launches = tuple(replace(launch(), waited=share) for share in (0.4, 0.41, 0.39, 0.4, 0.02))
    text = comparison_text(in_launches(nothing_changed, launches), ())
    assert "litert int8, 1 thread: 40 % of the time went by waiting for a processor" in text
    assert "inference own time, ms" in text
