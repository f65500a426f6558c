"""From the sensors that a target names to the state of the board.

`KINDS` is the table of what a target may name. A sensor that fails costs its own values, never the
others'.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgenet.board import command_sensors, sysfs_sensors
from edgenet.board.machine import Machine, Unreadable
from edgenet.board.state import POWER, combine
from edgenet.board.state import State as State
from edgenet.board.target import Sensor, Target

ABSENT = "this target names no sensor for it"

Clock = Callable[[], int]
"""Monotonic time in nanoseconds."""
Reader = Callable[[Machine, Sensor], State]
"""Returns one sensor's share of a state; may remember the reading before."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of sensor."""

    tells: tuple[str, ...]
    """The fields of a `State` that stay unknown when it cannot be read."""
    make: Callable[[Clock], Reader]


def _one_look(read: Reader) -> Callable[[Clock], Reader]:
    """Return the maker of a reader that remembers nothing."""
    return lambda _clock: read


TEMPERATURE = ("soc_temperature_c",)
THROTTLING = ("throttled", "throttled_since_boot")
CLOCKS = ("cpu_clock_mhz", "cpu_max_clock_mhz", "governor")

KINDS: Mapping[str, Kind] = {
    "load": Kind(tells=("load_1min",), make=_one_look(sysfs_sensors.load)),
    "cpufreq": Kind(tells=CLOCKS, make=_one_look(sysfs_sensors.cpufreq)),
    "thermal_zones": Kind(tells=TEMPERATURE, make=_one_look(sysfs_sensors.thermal_zones)),
    "hwmon_temperatures": Kind(tells=TEMPERATURE, make=_one_look(sysfs_sensors.hwmon_temperatures)),
    "undervoltage_alarm": Kind(tells=THROTTLING, make=_one_look(sysfs_sensors.undervoltage_alarm)),
    "cooling_alerts": Kind(tells=("throttled",), make=_one_look(sysfs_sensors.cooling_alerts)),
    "event_counters": Kind(
        tells=(*THROTTLING, "throttle_count"), make=lambda _clock: sysfs_sensors.EventCounters()
    ),
    "ina3221": Kind(tells=POWER, make=_one_look(sysfs_sensors.ina3221)),
    "gpu": Kind(tells=("gpu_load_percent", "gpu_clock_mhz"), make=_one_look(sysfs_sensors.gpu)),
    "rapl": Kind(tells=POWER, make=sysfs_sensors.Rapl),
    "vcgencmd_throttled": Kind(
        tells=THROTTLING, make=_one_look(command_sensors.vcgencmd_throttled)
    ),
    "vcgencmd_temperature": Kind(
        tells=TEMPERATURE, make=_one_look(command_sensors.vcgencmd_temperature)
    ),
    "pmic_rails": Kind(tells=POWER, make=_one_look(command_sensors.pmic_rails)),
    "nvpmodel": Kind(tells=("power_mode",), make=_one_look(command_sensors.nvpmodel)),
}


class Sensors:
    """The sensors of one machine; counters remember the reading before."""

    def __init__(
        self, machine: Machine, sensors: Sequence[Sensor], clock_ns: Clock = time.monotonic_ns
    ) -> None:
        self._machine = machine
        self._readers = [(sensor, KINDS[sensor.kind].make(clock_ns)) for sensor in sensors]

    def read(self) -> State:
        """Return the state now; whatever cannot be read is unknown with its reason."""
        return combine([self._share(sensor, reader) for sensor, reader in self._readers], ABSENT)

    def _share(self, sensor: Sensor, reader: Reader) -> State:
        try:
            return reader(self._machine, sensor)
        except Unreadable as fault:
            return State(unknown=dict.fromkeys(KINDS[sensor.kind].tells, str(fault)))


def read_state(machine: Machine, target: Target) -> State:
    """Return the state of a machine by one look at the sensors of its target.

    What only two looks tell - energy counters, event counters - has that as its reason.
    """
    return Sensors(machine, target.sensors).read()


def power_sensors(target: Target) -> tuple[Sensor, ...]:
    """Return the sensors of a target that tell power."""
    return tuple(sensor for sensor in target.sensors if "power_w" in KINDS[sensor.kind].tells)
