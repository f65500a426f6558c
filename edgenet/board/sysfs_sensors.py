"""Sensors that are files below /proc and /sys: one function, or one counter, for each kind.

Each returns its own share of a `State`, or raises `Unreadable` when it can tell nothing at all.
Names of boards, rails and zones come from the target; the layouts are those of the kernel's
documentation (admin-guide/pm/cpufreq, driver-api/thermal/sysfs-api, hwmon/sysfs-interface,
hwmon/ina3221, power/powercap).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgenet.board.machine import FileRefused, Machine, Missing, Unreadable
from edgenet.board.state import State
from edgenet.board.target import Sensor

CPUS = "/sys/devices/system/cpu/cpu[0-9]*"
SWITCHED_OFF_C = -256.0
"""What Tegra chips report for a zone whose block has no power."""
TAKES_TWO = "a counter: it takes two readings to tell"
RAPL_HINT = (
    "the kernel lets only root read it since 5.10 (CVE-2020-8694); a udev rule opens it: "
    'SUBSYSTEM=="powercap", KERNEL=="intel-rapl*", RUN+="/usr/bin/chmod g+r /sys/%p/energy_uj"'
)


def load(machine: Machine, _: Sensor) -> State:
    """Return how many processes want to run."""
    return State(load_1min=_number("/proc/loadavg", machine.read("/proc/loadavg").split(" ")[0]))


def cpufreq(machine: Machine, _: Sensor) -> State:
    """Return clocks and governors; a virtual machine has none."""
    asked: Mapping[str, Callable[[], object]] = {
        "cpu_clock_mhz": lambda: _clocks_mhz(machine, "scaling_cur_freq"),
        "cpu_max_clock_mhz": lambda: _clocks_mhz(machine, "scaling_max_freq"),
        "governor": lambda: ", ".join(sorted(set(_each(machine, "scaling_governor")))),
    }
    told: dict[str, Any] = {}
    unknown = {}
    for name, ask in asked.items():  # some drivers have a governor and no clock
        try:
            told[name] = ask()
        except Unreadable as fault:
            unknown[name] = str(fault)
    return State(**told, unknown=unknown)


def thermal_zones(machine: Machine, sensor: Sensor) -> State:
    """Return the kernel's thermal zones, those of the chip by the target's pattern."""
    readings = [
        (machine.read(path), path.replace("/type", "/temp"))
        for path in _found(machine, "/sys/class/thermal/thermal_zone*/type")
    ]
    return _temperatures(machine, readings, sensor.soc)


def hwmon_temperatures(machine: Machine, sensor: Sensor) -> State:
    """Return the temperatures of the hwmon chips that the target names."""
    readings = []
    for chip, folder in _hwmon(machine, sensor.chips):
        for path in machine.glob(f"{folder}/temp*_input"):
            label = _or_none(machine, path.replace("_input", "_label"))
            readings.append((f"{chip} {label}" if label else chip, path))
    return _temperatures(machine, readings, sensor.soc)


def undervoltage_alarm(machine: Machine, sensor: Sensor) -> State:
    """Return whether a hwmon chip that the target names says that its input voltage is too low.

    Where it is not, nothing is known about throttling for other reasons.
    """
    for chip, folder in _hwmon(machine, sensor.chips):
        path = f"{folder}/in0_lcrit_alarm"
        if _number(path, machine.read(path)):
            return State(throttled=True, throttle_reasons=("under-voltage now",))
        says = f"{chip} tells under-voltage only (none now)"
    return State(unknown={"throttled": says, "throttled_since_boot": says})


def cooling_alerts(machine: Machine, sensor: Sensor) -> State:
    """Return whether one of the cooling devices that the target names as alerts is at work."""
    assert sensor.alerts is not None
    raised = []
    for path in _found(machine, "/sys/class/thermal/cooling_device*/type"):
        name, level = machine.read(path), path.replace("/type", "/cur_state")
        if re.search(sensor.alerts, name) and _number(level, machine.read(level)):
            raised.append(f"{name} now")
    return State(throttled=bool(raised), throttle_reasons=tuple(raised))


def ina3221(machine: Machine, sensor: Sensor) -> State:
    """Return the power that the monitors of the board's rails add up to."""
    rails_w = _ina3221_hwmon(machine) or _ina3221_iio(machine)
    if not rails_w:
        raise Unreadable("ina3221", "no driver of it has rails")
    for names in sensor.totals:
        if set(names) <= rails_w.keys():
            return State(
                power_w=sum(rails_w[name] for name in names), power_source=" + ".join(names)
            )
    return State(
        power_w=sum(rails_w.values()),
        power_source=f"sum of all rails that are monitored: {', '.join(rails_w)}",
    )


def gpu(machine: Machine, sensor: Sensor) -> State:
    """Return load and clock of the graphics processor, each from the first file that is there."""
    load_permille, no_load = _first_number(machine, sensor.load_files)
    clock_hz, no_clock = _first_number(machine, sensor.clock_files)
    unknown = {"gpu_load_percent": no_load, "gpu_clock_mhz": no_clock}
    return State(
        gpu_load_percent=None if load_permille is None else load_permille / 10,
        gpu_clock_mhz=None if clock_hz is None else clock_hz / 1e6,
        unknown={name: reason for name, reason in unknown.items() if reason},
    )


class EventCounters:
    """Counters that rise whenever the machine slows itself down."""

    def __init__(self) -> None:
        self._before: int | None = None

    def __call__(self, machine: Machine, sensor: Sensor) -> State:
        """Return how often since boot, and whether since the reading before."""
        paths = [path for pattern in sensor.files for path in machine.glob(pattern)]
        if not paths:
            raise Missing(" ".join(sensor.files))
        count = int(sum(_number(path, machine.read(path)) for path in paths))
        rose = None if self._before is None else count > self._before
        self._before = count
        times = f"{sensor.means} since boot (counted {count} times)"
        return State(
            throttled=rose,
            throttled_since_boot=count > 0,
            throttle_count=count,
            throttle_reasons=(
                *((f"{sensor.means} now",) if rose else ()),
                *((times,) if count else ()),
            ),
            unknown={"throttled": TAKES_TWO} if rose is None else {},
        )


class Rapl:
    """The energy counters of x86 processors, one for each package."""

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self._before: dict[str, tuple[int, float]] = {}

    def __call__(self, machine: Machine, _: Sensor) -> State:
        """Return the mean power since the reading before."""
        packages = {}
        for path in _found(machine, "/sys/class/powercap/intel-rapl:*/name"):
            name = machine.read(path)
            if name.startswith("package"):  # its parts and the platform's sum have other names
                packages[name] = path.removesuffix("/name")
        powers_w = [self._power_w(machine, folder) for folder in packages.values()]
        source = f"RAPL {' + '.join(packages)}: the processor alone"
        if not powers_w or None in powers_w:
            return State(power_source=source, unknown={"power_w": TAKES_TWO})
        return State(power_w=sum(filter(None, powers_w)), power_source=source)

    def _power_w(self, machine: Machine, folder: str) -> float | None:
        counter = f"{folder}/energy_uj"
        try:
            energy_uj = _number(counter, machine.read(counter))
        except FileRefused as refused:
            raise Unreadable(str(refused), RAPL_HINT) from None
        now_ns = self._clock_ns()
        then_ns, before_uj = self._before.get(counter, (now_ns, energy_uj))
        self._before[counter] = (now_ns, energy_uj)
        if now_ns <= then_ns:
            return None
        used_uj = energy_uj - before_uj
        if used_uj < 0:  # the counter started again from nought
            path = f"{folder}/max_energy_range_uj"
            used_uj += _number(path, machine.read(path))
        return used_uj / 1e6 / ((now_ns - then_ns) / 1e9)


def _temperatures(
    machine: Machine, readings: Sequence[tuple[str, str]], soc_pattern: str | None
) -> State:
    """Return zones by name, given the name and the file (thousandths of a degree) of each."""
    zones_c: dict[str, float] = {}
    dropped = []
    for name, path in readings:
        try:
            celsius = _number(path, machine.read(path)) / 1000
            if celsius <= SWITCHED_OFF_C:
                raise Unreadable(path, f"{celsius:g} C: its part of the chip is off")
        except Unreadable as fault:
            dropped.append(f"{name}: {fault}")
            continue
        key = name if name not in zones_c else f"{name} ({path.split('/')[-2]})"
        zones_c[key] = celsius
    hot = [value for name, value in zones_c.items() if re.search(soc_pattern or "", name)]
    if hot:
        return State(soc_temperature_c=max(hot), temperatures_c=zones_c)
    reason = "; ".join(dropped) or f"no zone of the chip among: {', '.join(zones_c) or 'none'}"
    return State(temperatures_c=zones_c, unknown={"soc_temperature_c": reason})


def _clocks_mhz(machine: Machine, name: str) -> tuple[float, ...]:
    return tuple(_number(name, kilohertz) / 1000 for kilohertz in _each(machine, name))


def _ina3221_hwmon(machine: Machine) -> dict[str, float]:
    """Return watts by rail from the driver of today's kernels: millivolts and milliamperes."""
    rails_w = {}
    for path in machine.glob("/sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in[1-3]_label"):
        folder, _, file = path.rpartition("/")
        channel = file[2]
        rail = machine.read(path)
        if rail != "NC":
            millivolts = _milli(machine, f"{folder}/in{channel}_input")
            milliamperes = _milli(machine, f"{folder}/curr{channel}_input")
            rails_w[rail] = millivolts * milliamperes / 1e6
    return rails_w


def _ina3221_iio(machine: Machine) -> dict[str, float]:
    """Return watts by rail from the driver of JetPack 4: milliwatts."""
    rails_w = {}
    for path in machine.glob("/sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_[0-2]"):
        folder, _, file = path.rpartition("/")
        rail = machine.read(path)
        if rail != "NC":
            rails_w[rail] = _milli(machine, f"{folder}/in_power{file[-1]}_input") / 1000
    return rails_w


def _milli(machine: Machine, path: str) -> float:
    try:
        return _number(path, machine.read(path))
    except FileRefused as refused:
        hint = f"let everybody read it: sudo chmod +r {path}"
        raise Unreadable(str(refused), hint) from None if refused.denied else refused


def _hwmon(machine: Machine, chips: Sequence[str]) -> list[tuple[str, str]]:
    """Return name and folder of every hwmon device with one of these names."""
    devices = [
        (machine.read(path), path.removesuffix("/name"))
        for path in _found(machine, "/sys/class/hwmon/hwmon*/name")
    ]
    wanted = [(name, folder) for name, folder in devices if name in chips]
    if not wanted:
        names = ", ".join(name for name, _ in devices)
        raise Unreadable("/sys/class/hwmon", f"no {' or '.join(chips)} among: {names}")
    return wanted


def _found(machine: Machine, pattern: str) -> tuple[str, ...]:
    """Return the files that match; raises `Missing` when none does."""
    paths = machine.glob(pattern)
    if not paths:
        raise Missing(pattern)
    return paths


def _each(machine: Machine, name: str) -> tuple[str, ...]:
    """Return what a file of this name says for each core."""
    return tuple(machine.read(path) for path in _found(machine, f"{CPUS}/cpufreq/{name}"))


def _first_number(machine: Machine, patterns: Sequence[str]) -> tuple[float | None, str]:
    """Return the value in the first file that can be read, or why there is none."""
    faults = []
    for pattern in patterns:
        for path in machine.glob(pattern):
            try:
                return _number(path, machine.read(path)), ""
            except Unreadable as fault:
                faults.append(str(fault))
    return None, "; ".join(faults) or f"{' '.join(patterns)}: is not there"


def _or_none(machine: Machine, path: str) -> str | None:
    try:
        return machine.read(path)
    except Unreadable:
        return None


def _number(where: str, text: str) -> float:
    """Return the number in a text; raises `Unreadable` for anything else, `nan` included."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Unreadable(where, f"says {text!r}, which is no number")
    return value
