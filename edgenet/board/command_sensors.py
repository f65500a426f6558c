"""Sensors that are commands: the firmware tool of Raspberry Pi and NVIDIA's power-mode tool.

As in `sysfs_sensors.py`, each returns its share of a `State` or raises `Unreadable`.
"""

from __future__ import annotations

import math
import re

from edgenet.board.machine import Machine, Unreadable
from edgenet.board.state import State
from edgenet.board.target import Sensor

THROTTLE_BITS = {
    0: "under-voltage",
    1: "clock capped",
    2: "throttled",
    3: "soft temperature limit",
}
"""Of `get_throttled`; 16 bits higher stands the same for "has happened since boot".

raspberrypi/documentation, computers/os/graphics-utilities.adoc.
"""
SINCE_BOOT = 16
NO_ACCESS = ("VCHI initialization failed", "Can't open device file")
VIDEO_GROUP = "add yourself to the group that may: sudo usermod -aG video $USER, and log in again"
RAIL = re.compile(r"\s*(?P<rail>\w+)_(?P<kind>[AV])\s+\w+\(\d+\)=(?P<value>[^AV\s]+)[AV]?\s*")
"""A line such as ` VDD_CORE_A current(7)=0.75012000A`."""


def vcgencmd_throttled(machine: Machine, _: Sensor) -> State:
    """Return the firmware's throttle bits in words."""
    bits = int(_vcgencmd(machine, r"throttled=(0x[0-9a-fA-F]+)", "get_throttled"), 16)
    now = [word for bit, word in THROTTLE_BITS.items() if bits >> bit & 1]
    before = [word for bit, word in THROTTLE_BITS.items() if bits >> (bit + SINCE_BOOT) & 1]
    return State(
        throttled=bool(now),
        throttled_since_boot=bool(now or before),
        throttle_reasons=(
            *(f"{word} now" for word in now),
            *(f"{word} since boot" for word in before),
        ),
    )


def vcgencmd_temperature(machine: Machine, _: Sensor) -> State:
    """Return the chip's temperature as the firmware has it."""
    celsius = float(_vcgencmd(machine, r"temp=(\d+(?:\.\d+)?)'C", "measure_temp"))
    return State(soc_temperature_c=celsius, temperatures_c={"vcgencmd": celsius})


def pmic_rails(machine: Machine, _: Sensor) -> State:
    """Return what the power chip's rails add up to; it has no current of the input itself."""
    output = _vcgencmd(machine, r"(?s)(.*_A +current\(.*)", "pmic_read_adc")
    readings: dict[str, dict[str, float]] = {"A": {}, "V": {}}
    for line in output.splitlines():
        if found := RAIL.fullmatch(line):
            value = _float(found["value"])
            if math.isfinite(value):  # an input that nothing is connected to reads nan
                readings[found["kind"]][found["rail"]] = value
    # By name: the numbers in brackets are those of the converter's inputs and differ within a rail.
    powers_w = [
        amperes * readings["V"][rail]
        for rail, amperes in readings["A"].items()
        if rail in readings["V"]
    ]
    if not powers_w:
        raise Unreadable("vcgencmd pmic_read_adc", "no rail with both current and voltage")
    return State(
        power_w=sum(powers_w),
        power_source=f"sum of {len(powers_w)} PMIC rails, less than the input power: "
        "without conversion losses, USB devices, fan and what hangs on 5 V",
    )


def nvpmodel(machine: Machine, _: Sensor) -> State:
    """Return name and number of the power mode; it is read, never set."""
    output = machine.run("nvpmodel", "-q")
    found = re.search(r"NV Power Mode: *(\S+)\s+(\d+)", output)
    if not found:
        raise Unreadable("nvpmodel -q", f"says {_last_line(output)!r}")
    return State(power_mode=f"{found[1]} (mode {found[2]})")


def _vcgencmd(machine: Machine, pattern: str, what: str) -> str:
    """Return what the pattern's group finds; the tool ends with 0 even where it refuses."""
    try:
        output = machine.run("vcgencmd", what)
    except Unreadable as fault:
        if any(known in str(fault) for known in NO_ACCESS):
            raise Unreadable(str(fault), VIDEO_GROUP) from None
        raise
    if found := re.search(pattern, output):
        return found[1]
    said = _last_line(output)
    hint = f"; {VIDEO_GROUP}" if any(known in output for known in NO_ACCESS) else ""
    raise Unreadable(f"vcgencmd {what}", f"says {said!r}{hint}")


def _last_line(output: str) -> str:
    return (output.strip().splitlines() or [""])[-1]


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
