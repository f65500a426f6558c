"""What the sensors of a board say at one moment, and the board as a whole made of its sensors.

Every value may be unknown: then it is None and `unknown` has the reason under its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class State:
    """What was read at one moment; a single sensor's share of it leaves the rest None."""

    soc_temperature_c: float | None = None
    """The hottest zone of processor and chip."""
    temperatures_c: Mapping[str, float] = field(default_factory=dict)
    """Every zone that gave a value, by its own name."""
    cpu_clock_mhz: tuple[float, ...] | None = None
    """Of each core, now."""
    cpu_max_clock_mhz: tuple[float, ...] | None = None
    """Of each core, what the governor may go up to."""
    governor: str | None = None
    """All that are in force, by name: "performance", or "performance, powersave"."""
    throttled: bool | None = None
    """Whether it is slowed down now; from counters, since the reading before."""
    throttled_since_boot: bool | None = None
    throttle_reasons: tuple[str, ...] = ()
    """In words, now and since boot."""
    throttle_count: int | None = None
    """How often it was slowed down since boot, where the machine counts that."""
    power_w: float | None = None
    power_source: str | None = None
    """Which rails or domain `power_w` is of, and what it leaves out."""
    power_mode: str | None = None
    """What the board's own tool calls the power budget it was set to."""
    gpu_load_percent: float | None = None
    gpu_clock_mhz: float | None = None
    load_1min: float | None = None
    """Processes that want to run, averaged over a minute."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """The reason for every value that is None, by field."""


READINGS = tuple(
    entry.name
    for entry in fields(State)
    if entry.name not in ("temperatures_c", "throttle_reasons", "unknown")
)
"""The fields that are None when unknown."""
POWER = ("power_w", "power_source")


def combine(parts: Sequence[State], absent: str) -> State:
    """Return the state that several sensors tell together.

    Where two tell the same the first counts, except that it is throttled if any of them says so
    and that their counts add up. A field that none of them tells is unknown because of what they
    said, or for the reason `absent` where none was meant to tell it.
    """
    values: dict[str, Any] = {
        name: MERGED.get(name, _first)(_told(parts, name)) for name in READINGS
    }
    return State(
        **values,
        temperatures_c={
            name: value for part in reversed(parts) for name, value in part.temperatures_c.items()
        },
        throttle_reasons=tuple(
            dict.fromkeys(reason for part in parts for reason in part.throttle_reasons)
        ),
        unknown={
            name: _reasons(parts, name) or absent for name, value in values.items() if value is None
        },
    )


def was_throttled(states: Sequence[State]) -> bool | None:
    """Tell whether the board was slowed down over `states`, in order; None if none can say."""
    known = [state.throttled for state in states if state.throttled is not None]
    counts = [state.throttle_count for state in states if state.throttle_count is not None]
    if not known and not counts:
        return None
    return any(known) or (bool(counts) and counts[-1] > counts[0])


def with_power(state: State, power: State) -> State:
    """Return a state with the power of another, its reasons included."""
    others = {name: why for name, why in state.unknown.items() if name not in POWER}
    reasons = {name: why for name, why in power.unknown.items() if name in POWER}
    return replace(
        state,
        power_w=power.power_w,
        power_source=power.power_source,
        unknown={**others, **reasons},
    )


def _told(parts: Sequence[State], name: str) -> list[Any]:
    return [value for part in parts if (value := getattr(part, name)) is not None]


def _first(values: list[Any]) -> Any:
    return values[0] if values else None


def _any(values: list[bool]) -> bool | None:
    return any(values) if values else None


def _sum(values: list[int]) -> int | None:
    return sum(values) if values else None


MERGED: Mapping[str, Callable[[list[Any]], Any]] = {
    "throttled": _any,
    "throttled_since_boot": _any,
    "throttle_count": _sum,
}
"""How the values of several sensors become one, where it is not the first that counts."""


def _reasons(parts: Sequence[State], name: str) -> str:
    return "; ".join(dict.fromkeys(part.unknown[name] for part in parts if name in part.unknown))
