"""Samples, what goes missing half-way, and energy by the trapezoid rule."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenet.board.detect import detect
from edgenet.board.sampling import (
    NO_ENERGY,
    Sample,
    Sampler,
    board_sampler,
    energy,
    mean_power_w,
    why_no_energy,
)
from edgenet.board.sensors import Sensors
from edgenet.board.state import READINGS, State, combine
from edgenet.board.target import load_target

SECOND = 1_000_000_000


def watts(*points):
    """Samples of power at so many seconds."""
    return tuple(
        Sample(taken_ns=int(seconds * SECOND), state=combine([State(power_w=power)], "absent"))
        for seconds, power in points
    )


def known(value):
    return combine([State(load_1min=value)], "absent")


def test_reads_until_closed():
    numbers = iter(range(10_000))
    with Sampler(lambda: known(next(numbers)), interval_s=0.01) as sampler:
        assert sampler.samples
        time.sleep(0.2)
    taken = sampler.samples
    assert [sample.state.load_1min for sample in taken] == list(range(len(taken)))
    assert 5 <= len(taken) <= 25
    times = [sample.taken_ns for sample in taken]
    assert times == sorted(times)
    time.sleep(0.03)
    assert sampler.samples == taken
    assert sampler.problems == ()
    assert not any(thread.name == "edgenet sampler" for thread in threading.enumerate())


def test_a_run_of_weeks_keeps_its_ends_and_fewer_between():
    numbers = iter(range(10_000))
    with Sampler(lambda: known(next(numbers)), interval_s=0.005, most=8) as sampler:
        time.sleep(0.6)
        assert sampler.newest.load_1min == sampler.samples[-1].state.load_1min
    read = [sample.state.load_1min for sample in sampler.samples]
    assert read[0] == 0
    assert read[-1] == next(numbers) - 1, "the last reading is there"
    assert 4 <= len(read) <= 8
    assert read == sorted(read)
    assert read[-1] > 8, "more was read than is kept"


def test_power_at_ten_readings_a_second():
    state = combine([State(power_w=2.0)], "absent")
    with Sampler(lambda: known(1.0), read_power=lambda: state) as sampler:
        start_ns = time.monotonic_ns()
        time.sleep(1.0)
        end_ns = time.monotonic_ns()
    found = energy(sampler.power_samples, start_ns, end_ns, idle_power_w=1.5)
    assert found
    assert found.readings >= 5  # twelve, on a machine with a free core
    assert found.gross_mj == pytest.approx(2000 * found.seconds)
    assert found.above_idle_mj == pytest.approx(500 * found.seconds)
    assert len(sampler.samples) <= 5


def test_a_sensor_that_disappears_half_way(copy_of):
    machine, root = copy_of("pi_5")
    zone = root / "sys/class/thermal/thermal_zone0/temp"
    target = load_target("raspberry_pi")
    sensors = [it for it in target.sensors if it.kind == "thermal_zones"]
    with Sampler(Sensors(machine, sensors).read, interval_s=0.01) as sampler:
        time.sleep(0.1)
        zone.unlink()
        time.sleep(0.1)
    temperatures = [sample.state.soc_temperature_c for sample in sampler.samples]
    assert temperatures[0] == 51.35
    assert temperatures[-1] is None
    (problem,) = sampler.problems
    assert problem.startswith("soc_temperature_c: read ")
    assert "times, then no more (cpu-thermal: /sys/class/thermal/thermal_zone0/temp" in problem


def test_a_power_sensor_that_disappears(copy_of):
    machine, root = copy_of("orin_nano")
    with board_sampler(machine, detect(machine).target, interval_s=0.05) as sampler:
        time.sleep(0.1)
        (root / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/curr1_input").unlink()
        time.sleep(0.3)
    assert [problem.split(":")[0] for problem in sampler.problems] == ["power_w", "power_source"]
    assert sampler.power_samples[0].state.power_w == 4.59648


def test_a_fault_does_not_end_it():
    calls = []

    def read():
        calls.append(1)
        if len(calls) % 2:
            raise ZeroDivisionError("oh")
        return known(1.0)

    with Sampler(read, interval_s=0.01) as sampler:
        time.sleep(0.1)
    assert len(sampler.samples) >= 3
    assert sampler.problems == ("bug in a sensor: ZeroDivisionError: oh",)


def test_a_slow_sensor_is_not_chased():
    def read():
        time.sleep(0.05)
        return known(1.0)

    with Sampler(read, interval_s=0.01) as sampler:
        time.sleep(0.3)
    gaps = [
        after.taken_ns - before.taken_ns
        for before, after in zip(sampler.samples, sampler.samples[1:], strict=False)
    ]
    # All but the last one, which follows the end at once.
    assert min(gaps[2:-1]) >= 0.055 * SECOND


def test_a_board(copy_of):
    machine, _ = copy_of("orin_nano")
    with board_sampler(machine, detect(machine).target, interval_s=0.05) as sampler:
        time.sleep(0.3)
    assert {sample.state.power_w for sample in sampler.power_samples} == {4.59648}
    last = sampler.samples[-1].state
    assert (last.power_w, last.power_source) == (4.59648, "VDD_IN")
    assert last.throttled is False
    assert last.unknown == {}
    assert sampler.problems == ()


def test_energy_of_a_straight_line():
    rising = watts((0, 0), (0.5, 5), (1, 10))
    found = energy(rising, 0, SECOND)
    assert found
    assert found.gross_mj == pytest.approx(5000)
    assert found.above_idle_mj is None
    half = energy(rising, SECOND // 4, SECOND * 3 // 4)
    assert half
    assert half.gross_mj == pytest.approx(2500)


@given(
    level=st.floats(0.1, 100),
    start=st.floats(0.0, 0.9),
    length=st.floats(0.15, 3.0),
    idle=st.floats(0.0, 100),
)
def test_energy_of_constant_power(level, start, length, idle):
    samples = watts(*((number / 10, level) for number in range(50)))
    begin, end = int(start * SECOND), int((start + length) * SECOND)
    found = energy(samples, begin, end, idle_power_w=idle)
    assert found
    seconds = (end - begin) / SECOND
    assert found.gross_mj == pytest.approx(level * seconds * 1000)
    assert found.above_idle_mj == pytest.approx((level - idle) * seconds * 1000, abs=1e-3)


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        ((), "nothing was read"),
        (watts((0, 1), (2, 1)), "nothing between start and end"),
        (watts((0.6, 1), (1, 1), (2, 1)), "begins too late"),
        (watts((0, 1), (1, 1), (1.4, 1)), "ends too early"),
        (watts((0, 1), (0.7, 1), (0.9, None), (2, 1)), "a gap"),
    ],
)
def test_energy_that_is_not_known(samples, why):
    assert energy(samples, SECOND // 2, SECOND * 19 // 10) is None, why


def test_mean_power():
    assert mean_power_w(watts((0, 1), (1, 3), (2, None))) == 2
    assert mean_power_w(watts((0, None))) is None


def test_states_of_several_sensors():
    told = combine(
        [
            State(throttled=False, throttle_count=2, load_1min=1.0),
            State(throttled=True, throttle_count=3, load_1min=2.0),
            State(unknown={"governor": "lost"}),
            State(unknown={"governor": "gone"}),
        ],
        "absent",
    )
    assert (told.throttled, told.throttle_count, told.load_1min) == (True, 5, 1.0)
    assert told.unknown["governor"] == "lost; gone"
    assert told.unknown["power_w"] == "absent"
    assert set(told.unknown) <= set(READINGS)


def test_why_there_is_no_energy():
    """What the sensors said last; gaps only where any of them ever told power."""
    absent = combine([State(load_1min=0.5)], "this target has no sensor for it")
    with Sampler(lambda: absent) as without:
        pass
    assert why_no_energy(without) == "this target has no sensor for it"
    refused = State(unknown={"power_w": "energy_uj: permission denied"})
    with Sampler(lambda: absent, read_power=lambda: refused, power_interval_s=0.01) as locked:
        pass
    assert why_no_energy(locked) == "energy_uj: permission denied"
    told = State(power_w=3.0)
    with Sampler(lambda: absent, read_power=lambda: told, power_interval_s=0.01) as gaps:
        pass
    assert why_no_energy(gaps) == NO_ENERGY
