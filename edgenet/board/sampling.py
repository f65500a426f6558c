"""The state of the board while something else runs, and the energy that it took.

Reading happens in a thread of this process; what is measured runs in another process, so that a
sensor never stands in its way. A sensor that fails costs its values, never the run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean
from types import TracebackType

from edgenet.board.machine import Machine
from edgenet.board.sensors import Sensors, State, power_sensors
from edgenet.board.state import READINGS, with_power
from edgenet.board.target import Target

INTERVAL_S = 1.0
POWER_INTERVAL_S = 0.08
"""From the end of a reading to the next: ten a second, with the time that a reading takes."""
LONGEST_GAP_NS = 1_000_000_000
"""Between readings of power across which energy may still be drawn as a straight line."""
NO_ENERGY = "power was not read all the time from start to end"
LONGEST_READING_S = 10.0
"""Nothing waits longer for the sensors: a command of theirs gives up after half of it."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One reading."""

    taken_ns: int
    """Of the monotonic clock, when reading was over."""
    state: State


@dataclass(frozen=True, kw_only=True)
class Energy:
    """What a stretch of time took."""

    seconds: float
    gross_mj: float
    above_idle_mj: float | None
    """Less what the board takes when it does nothing for as long; None where that is not known."""
    readings: int
    """Of power, in that time."""


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """What is read how often, and where it goes."""

    read: Callable[[], State]
    interval_s: float
    samples: list[Sample]


class Sampler:
    """Reads until it is closed; `with Sampler(...) as sampler: ...`, then look at its samples.

    The block begins when every sensor has been read, and one more reading follows its end: the
    readings reach over all that happens in it.
    """

    def __init__(
        self,
        read: Callable[[], State],
        *,
        read_power: Callable[[], State] | None = None,
        interval_s: float = INTERVAL_S,
        power_interval_s: float = POWER_INTERVAL_S,
        most: int | None = None,
    ) -> None:
        """Read at these intervals; of states, `most` at the most are kept (None is all).

        When there are more, every second one between the first and the last goes, and the interval
        doubles.
        """
        self._samples: list[Sample] = []
        self._power_samples: list[Sample] = []
        self._faults: list[str] = []
        self._most = most
        self._schedule = [_Entry(read=read, interval_s=interval_s, samples=self._samples)]
        if read_power is not None:
            power = _Entry(
                read=read_power, interval_s=power_interval_s, samples=self._power_samples
            )
            self._schedule = [power, replace(self._schedule[0], read=self._with_power(read))]
        self._ready, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgenet sampler", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        self._ready.wait(LONGEST_READING_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(LONGEST_READING_S)

    @property
    def newest(self) -> State | None:
        """Return what was read last; None before anything was."""
        samples = self._samples
        return samples[-1].state if samples else None

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Return what was read at the long interval, in order."""
        return tuple(self._samples)

    @property
    def power_samples(self) -> tuple[Sample, ...]:
        """Return what the power sensors said at the short interval, in order."""
        return tuple(self._power_samples)

    @property
    def problems(self) -> tuple[str, ...]:
        """Return in words which values went missing half-way, and what failed beside that."""
        return tuple(dict.fromkeys([*_lost(self._samples), *self._faults]))

    def _run(self) -> None:
        first = self._schedule[0]
        if len(self._schedule) > 1:  # energy counters tell power from their second reading on
            self._read(first)
            self._stop.wait(first.interval_s)
        self._read_all()
        self._ready.set()
        due = [time.monotonic() + entry.interval_s for entry in self._schedule]
        while not self._stop.wait(max(0.0, min(due) - time.monotonic())):
            for index, entry in enumerate(self._schedule):
                if time.monotonic() >= due[index]:
                    self._read(entry)
                    # From now, not from when it was due: a slow sensor must not be chased.
                    due[index] = time.monotonic() + entry.interval_s
        self._read_all()  # so that the readings reach beyond whatever ended just now

    def _with_power(self, read: Callable[[], State]) -> Callable[[], State]:
        """Return a reader whose states have the power that was read last."""

        def both() -> State:
            state = read()
            return (
                with_power(state, self._power_samples[-1].state) if self._power_samples else state
            )

        return both

    def _read_all(self) -> None:
        for entry in self._schedule:
            self._read(entry)

    def _read(self, entry: _Entry) -> None:
        try:
            state = entry.read()
        except Exception as error:  # noqa: BLE001  a fault of ours must not end a long measurement
            self._faults.append(f"bug in a sensor: {type(error).__name__}: {error}")
            return
        entry.samples.append(Sample(taken_ns=time.monotonic_ns(), state=state))
        if self._most is not None and len(self._samples) > max(self._most, 2):
            self._thin_out()

    def _thin_out(self) -> None:
        first, *between, last = self._samples
        self._samples[:] = [first, *between[1::2], last]
        self._schedule[-1] = replace(
            self._schedule[-1], interval_s=2 * self._schedule[-1].interval_s
        )


def board_sampler(machine: Machine, target: Target, *, interval_s: float = INTERVAL_S) -> Sampler:
    """Return a sampler of the target's sensors, power at ten readings a second where it has any."""
    power = power_sensors(target)
    others = [sensor for sensor in target.sensors if sensor not in power]
    return Sampler(
        Sensors(machine, others).read,
        read_power=Sensors(machine, power).read if power else None,
        interval_s=interval_s,
    )


def energy(
    samples: Sequence[Sample], start_ns: int, end_ns: int, *, idle_power_w: float | None = None
) -> Energy | None:
    """Return the energy between two moments by the trapezoid rule; None where readings lack.

    Needs a reading at or before the start, one at or after the end, and one between: what lies
    outside the readings, or in a gap between them, is not known: `why_no_energy` tells more. The
    idle power is the mean measured before (`mean_power_w`).
    """
    points = [
        (sample.taken_ns, sample.state.power_w)
        for sample in samples
        if sample.state.power_w is not None
    ]
    inside = [point for point in points if start_ns < point[0] < end_ns]
    first, last = _power_at(points, start_ns), _power_at(points, end_ns)
    if not inside or first is None or last is None:
        return None
    path = [(start_ns, first), *inside, (end_ns, last)]
    if any(later[0] - point[0] > LONGEST_GAP_NS for point, later in pairwise(path)):
        return None
    gross_nj = sum(
        (power + next_power) / 2 * (next_ns - at_ns)
        for (at_ns, power), (next_ns, next_power) in pairwise(path)
    )
    seconds, gross_mj = (end_ns - start_ns) / 1e9, gross_nj / 1e6
    idle_mj = None if idle_power_w is None else idle_power_w * seconds * 1000
    return Energy(
        seconds=seconds,
        gross_mj=gross_mj,
        above_idle_mj=None if idle_mj is None else gross_mj - idle_mj,
        readings=len(inside),
    )


def why_no_energy(sampler: Sampler) -> str:
    """Return why `energy` found none: what the sensors said last, or that there were gaps."""
    states = [sample.state for sample in (*sampler.samples, *sampler.power_samples)]
    if any(state.power_w is not None for state in states):
        return NO_ENERGY
    return next(
        (why for state in reversed(states) if (why := state.unknown.get("power_w"))), NO_ENERGY
    )


def mean_power_w(samples: Sequence[Sample]) -> float | None:
    """Return the mean of all readings of power; None where there is none."""
    powers_w = [sample.state.power_w for sample in samples if sample.state.power_w is not None]
    return fmean(powers_w) if powers_w else None


def _power_at(points: Sequence[tuple[int, float]], moment_ns: int) -> float | None:
    """Return the power at a moment, between the readings around it; None outside all of them."""
    for (before_ns, before), (after_ns, after) in pairwise(points):
        if before_ns <= moment_ns <= after_ns:
            share = (moment_ns - before_ns) / (after_ns - before_ns)
            return before + share * (after - before)
    return None


def _lost(samples: Sequence[Sample]) -> list[str]:
    """Return which values there were at first and no longer at the end, and why."""
    if not samples:
        return []
    last = samples[-1].state
    return [
        f"{name}: read {count} times, then no more ({last.unknown[name]})"
        for name in READINGS
        if getattr(last, name) is None
        and (count := sum(getattr(sample.state, name) is not None for sample in samples))
    ]
