"""Latencies of a stream: nothing is lost, the window slides, clocks are kept apart."""

import numpy as np
import pytest

from edgenet.stream.frame import Clock
from edgenet.stream.latency import Latencies
from tests.stream.results import MS, SECOND, make_frame, make_result


def add(latencies, labelled_ns, *, age_ms=20, infer_ms=5, clock=Clock.DRIVER, decode_ms=None):
    frame = make_frame(
        captured_ns=labelled_ns - age_ms * MS,
        clock=clock,
        decode_ns=None if decode_ms is None else decode_ms * MS,
    )
    latencies.add(make_result(frame=frame, labelled_ns=labelled_ns, infer_ns=infer_ms * MS))


def test_every_sample_is_kept_raw_and_in_order():
    latencies = Latencies()
    ages = [30, 10, 20, 40]
    for number, age in enumerate(ages):
        add(latencies, number * SECOND, age_ms=age, decode_ms=2)
    samples = latencies.samples_ns()
    assert (samples["frame_to_label"] == np.array(ages) * MS).all()
    assert set(samples) == {"wait", "decode", "preprocess", "inference", "frame_to_label"}
    assert latencies.clocks == {Clock.DRIVER: 4}


def test_what_is_not_known_has_no_samples():
    latencies = Latencies()
    add(latencies, 0)
    assert "decode" not in latencies.samples_ns()
    assert latencies.window()["decode"].n == 0
    assert Latencies().samples_ns() == {}
    assert Latencies().window()["inference"].n == 0
    assert Latencies().labelled_per_second() is None


def test_the_window_slides():
    latencies = Latencies(window_s=10)
    for second in range(300):
        add(latencies, second * SECOND // 10, infer_ms=50)
    for second in range(300, 700):
        add(latencies, second * SECOND // 10, infer_ms=5)
    found = latencies.window()["inference"]
    assert found.n == 101
    assert found.p50_ms == pytest.approx(5)
    assert found.p95_ms is None, "ten samples must lie beyond it"
    assert latencies.labelled_per_second() == pytest.approx(10)
    assert latencies.labelled == latencies.kept == 700


def test_a_run_of_weeks_keeps_the_newest():
    latencies = Latencies(most=500, window_s=100)
    for number in range(1234):
        add(latencies, number * SECOND // 10, age_ms=number)
    assert (latencies.labelled, latencies.kept) == (1234, 500)
    ages = latencies.samples_ns()["frame_to_label"] // MS
    assert list(ages) == list(range(734, 1234))
    assert latencies.window()["frame_to_label"].n == 500
    assert latencies.window()["frame_to_label"].p50_ms == pytest.approx(983.5)


def test_ages_of_unlike_clocks_are_no_one_figure():
    latencies = Latencies()
    for number in range(10):
        add(latencies, number * SECOND, age_ms=25)
    for number in range(10, 13):
        add(latencies, number * SECOND, age_ms=1, clock=Clock.ARRIVAL)
    assert latencies.clocks == {Clock.DRIVER: 10, Clock.ARRIVAL: 3}
    assert set(latencies.samples_ns()["frame_to_label"]) == {25 * MS}
    assert len(latencies.samples_ns()["inference"]) == 13


def test_a_frame_from_the_future_is_a_bug_and_no_sample():
    latencies = Latencies()
    with pytest.raises(ValueError, match="-3"):
        add(latencies, SECOND, age_ms=-3)
    assert latencies.labelled == 0


def test_frames_beside_the_shadow_are_kept_apart():
    latencies = Latencies()
    for number in range(100):
        frame = make_frame(captured_ns=number * SECOND // 10, clock=Clock.DRIVER)
        beside = number % 4 == 0
        latencies.add(
            make_result(
                frame=frame,
                labelled_ns=number * SECOND // 10 + (50 if beside else 5) * MS,
                infer_ns=(40 if beside else 4) * MS,
            ),
            beside=beside,
        )
    assert (latencies.labelled, latencies.kept) == (100, 75)
    assert latencies.clocks == {Clock.DRIVER: 75}
    assert set(latencies.samples_ns()["frame_to_label"]) == {5 * MS}
    apart = latencies.samples_beside_ns()
    assert set(apart["frame_to_label"]) == {50 * MS}
    assert len(apart["inference"]) == 25
    assert latencies.window()["inference"].n == 75
    assert latencies.window()["inference"].p50_ms == pytest.approx(4)
    assert latencies.labelled_per_second() == pytest.approx(10, rel=0.01), "all of them"
