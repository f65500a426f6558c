"""The rules of timing, on a clock that the test drives by hand."""

from itertools import chain, cycle, repeat

import pytest

from edgenet.measure import timing
from edgenet.measure.timing import Rules, back_to_back, paced, warm_up

MS = 1_000_000


class Machine:
    """A clock that goes on only while something runs or sleeps."""

    def __init__(self, durations_ns, *, late_ns=0):
        self.durations_ns = iter(durations_ns)
        self.late_ns = late_ns
        self.began_ns = []
        self.time_ns = 5_000

    def now(self):
        return self.time_ns

    def run(self):
        self.began_ns.append(self.time_ns)
        self.time_ns += next(self.durations_ns)

    def sleep(self, seconds):
        assert seconds > 0
        self.time_ns += round(seconds * 1e9) + self.late_ns


def warmed(durations_ns, rules=timing.PUBLISHED):
    machine = Machine(durations_ns)
    return warm_up(machine.run, rules, now=machine.now)


def test_warm_up_ends_with_two_windows_alike():
    found = warmed(repeat(10 * MS))
    assert found.stable
    assert found.seconds == pytest.approx(1.0)
    assert found.runs == 100


def test_warm_up_goes_on_while_it_gets_faster():
    """Clocks rise in steps: a window of the same step twice is what it waits for."""
    steps = chain.from_iterable(repeat(round(d * MS), round(500 / d)) for d in (20, 15, 12, 10))
    found = warmed(chain(steps, repeat(10 * MS)))
    assert found.stable
    assert 2.0 < found.seconds <= 3.0


def test_warm_up_gives_up():
    """A machine that swings for ever, with a period as long as two windows."""
    swinging = cycle([10 * MS] * 50 + [11 * MS] * 46)
    found = warmed(swinging)
    assert not found.stable
    assert 30 <= found.seconds < 31


def test_warm_up_takes_ten_runs_of_a_slow_model():
    found = warmed(repeat(2_000 * MS))
    assert found.stable
    assert found.runs == 10


def test_a_window_has_five_runs_at_least():
    found = warmed(repeat(7_000 * MS))
    assert found.runs == 5
    assert not found.stable  # there was one window within thirty seconds, and it is like none


def test_at_least_so_many_runs_of_a_slow_model():
    machine = Machine(repeat(100 * MS))
    samples = back_to_back(machine.run, runs=200, seconds=10, now=machine.now)
    assert list(samples) == [100 * MS] * 200


def test_at_least_so_many_seconds_of_a_quick_model():
    machine = Machine(repeat(10 * MS))
    assert len(back_to_back(machine.run, runs=200, seconds=10, now=machine.now)) == 1000


def test_no_sample_is_dropped():
    durations = [MS, 900 * MS, MS, 2 * MS]
    machine = Machine(durations)
    samples = back_to_back(machine.run, runs=4, seconds=0, now=machine.now)
    assert list(samples) == durations


def test_samples_end_somewhere():
    machine = Machine(repeat(1))
    samples = back_to_back(machine.run, runs=1, seconds=10, now=machine.now)
    assert len(samples) == timing.MOST_RUNS


def test_what_was_measured_before_a_stop_is_kept():
    machine = Machine(repeat(10 * MS))
    samples = back_to_back(
        machine.run,
        runs=200,
        seconds=10,
        stopped=lambda: len(machine.began_ns) == 7,
        now=machine.now,
    )
    assert len(samples) == 7


def at_rate(frames_per_second, durations_ns, *, seconds=1.0, runs=1, **options):
    machine = Machine(durations_ns, **options)
    found = paced(
        machine.run,
        frames_per_second=frames_per_second,
        runs=runs,
        seconds=seconds,
        now=machine.now,
        sleep=machine.sleep,
    )
    return machine, found


def test_runs_begin_at_the_ticks():
    machine, found = at_rate(25, repeat(10 * MS))
    started = machine.began_ns[0]
    assert [began - started for began in machine.began_ns] == [40 * MS * n for n in range(25)]
    assert list(found.samples_ns) == [10 * MS] * 25
    assert found.missed == 0
    assert not found.saturated


def test_waking_up_late_is_in_no_sample_and_shifts_no_tick():
    machine, found = at_rate(25, repeat(10 * MS), late_ns=60_000)
    assert set(found.samples_ns) == {10 * MS}
    started = machine.began_ns[0]
    assert machine.began_ns[-1] - started == 40 * MS * 24 + 60_000
    assert found.missed == 0


def test_a_slow_run_misses_the_frames_that_come_meanwhile():
    machine, found = at_rate(25, [10 * MS, 130 * MS, *repeat(10 * MS, 30)])
    started = machine.began_ns[0]
    ticks = [(began - started) // (40 * MS) for began in machine.began_ns]
    assert ticks == [0, 1, *range(5, 25)]
    assert found.missed == 3
    assert found.saturated  # three frames of twenty-five
    assert found.reachable_per_second < 25


def test_a_rate_that_cannot_be_met_is_told_with_one_that_can():
    _, found = at_rate(30, repeat(50 * MS), seconds=10)
    assert found.saturated
    assert found.reachable_per_second == pytest.approx(20, rel=1e-6)
    assert max(found.samples_ns) == 50 * MS  # nothing queues, so no latency grows
    _, slower = at_rate(0.99 * found.reachable_per_second, repeat(50 * MS), seconds=10)
    assert not slower.saturated


def test_the_reachable_rate_is_not_above_one_that_was_not_met():
    """Few runs of many are slow, but so slow that most frames are missed; or it wakes up late."""
    slow = cycle([2 * MS] * 98 + [3_000 * MS] * 2)
    for rate, durations, late_ns in ((30, slow, 0), (1000, repeat(MS // 5), 900_000)):
        _, found = at_rate(rate, durations, seconds=10, late_ns=late_ns)
        assert found.saturated
        assert 0 < found.reachable_per_second < rate


def test_a_rate_without_runs():
    found = paced(print, frames_per_second=30, runs=1, seconds=1, stopped=lambda: True)
    assert found.reachable_per_second is None
    assert not found.saturated


def test_runs_at_a_rate_go_on_until_there_are_enough():
    _, found = at_rate(10, repeat(5 * MS), seconds=1, runs=50)
    assert len(found.samples_ns) == 50


def test_rules():
    assert Rules() == timing.PUBLISHED
    assert (timing.PUBLISHED.runs, timing.PUBLISHED.seconds) == (200, 10.0)
    assert timing.QUICK.runs < timing.PUBLISHED.runs
