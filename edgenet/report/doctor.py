"""An examination as text and as JSON. The schema is `edgenet/schemas/doctor.schema.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from edgenet.board.detect import Board
from edgenet.board.doctor import Examination, RuntimeCheck
from edgenet.board.sensors import ABSENT, State
from edgenet.report.table import render, size

SCHEMA_VERSION = "1.1"
NOT_INSTALLED = "it is not installed"
NOT_TOLD = "the machine does not tell"


def doctor_text(found: Examination, *, source: str) -> str:
    """Return what was found, for people: the verdict last, where the eye stays."""
    board = found.board
    verified = "" if board.target.verified_on_hardware else " (not verified on hardware)"
    lines = [
        f"{board.name}: {source}",
        f"target      {board.target.name}{verified}",
        *([f"            {board.mismatch}"] if board.mismatch else []),
        f"system      {'; '.join(board.systems) or 'unknown'}",
        f"processor   {_processors(board)}",
        f"int8        {found.int8_meaning}",
        f"cores       {_cores(board)}",
        *_state_lines(found.state),
        *_room_lines(found),
        "",
        _runtimes(found.runtimes),
    ]
    lines += _section("unknown", [f"{name}: {why}" for name, why in _unknown(found).items()])
    lines += _section("traps of this family", board.target.traps)
    lines += _section("do next", found.advice)
    verdict = f"fit to measure on: {found.verdict.fit.value}"
    return "\n".join([*lines, "", verdict, *(f"  - {why}" for why in found.verdict.reasons)])


def doctor_document(found: Examination, *, source: str, command: Sequence[str]) -> dict[str, Any]:
    """Return the JSON document; what is unknown is null with a reason."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "examination",
        "command": list(command),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "source": source,
        "board": board_document(found.board),
        "state": state_document(found.state),
        "int8": {"features": list(found.int8), "meaning": found.int8_meaning},
        "runtimes": [_runtime(check) for check in found.runtimes],
        **_or_reason("python", found.python and asdict(found.python), found.unknown),
        **_or_reason("memory", found.memory and asdict(found.memory), found.unknown),
        "clashes": list(found.clashes),
        "advice": list(found.advice),
        "verdict": {"fit": found.verdict.fit.value, "reasons": list(found.verdict.reasons)},
    }


def board_document(board: Board) -> dict[str, Any]:
    """Return what a board is, for this document and for records."""
    nothing = {"model": NOT_TOLD, "architecture": NOT_TOLD}
    facts = board.facts
    return {
        "target": board.target.name,
        "name": board.name,
        **({"target_mismatch": board.mismatch} if board.mismatch else {}),
        "target_verified_on_hardware": board.target.verified_on_hardware,
        **_or_reason("model", board.model, nothing),
        **_or_reason("architecture", board.architecture, nothing),
        "systems": list(board.systems),
        "cpus": list(board.cpus),
        "processors": list(board.processors),
        "features": sorted(board.features),
        "fastest_cpus": list(board.fastest_cpus),
        "advised_cpus": list(board.advised_cpus),
        "emulated": board.emulated,
        "virtual": board.virtual,
        "facts": list(facts.facts) if facts else [],
        "traps": list(board.target.traps),
        "latency_bands": [asdict(band) for band in board.latency_bands],
    }


def state_document(state: State) -> dict[str, Any]:
    """Return a state, for this document and for records: every null with its reason beside it."""
    values = asdict(state)
    unknown = values.pop("unknown")
    return {**values, **{f"{name}_reason": reason for name, reason in unknown.items()}}


def _or_reason(name: str, value: Any, unknown: Mapping[str, str]) -> dict[str, Any]:
    return {name: value} if value is not None else {name: None, f"{name}_reason": unknown[name]}


def _runtime(check: RuntimeCheck) -> dict[str, Any]:
    entry = asdict(check)
    reason = check.failure or (NOT_INSTALLED if check.installed is False else NOT_TOLD)
    missing = [name for name, value in entry.items() if value is None and name != "failure"]
    return {**entry, **{f"{name}_reason": reason for name in missing}}


def _processors(board: Board) -> str:
    kinds = dict.fromkeys(board.processors)
    counted = [f"{board.processors.count(kind)} x {kind}" for kind in kinds]
    where = " (emulated)" if board.emulated else " (virtual machine)" if board.virtual else ""
    return f"{', '.join(counted) or 'unknown'}, {board.architecture or 'unknown'}{where}"


def _cores(board: Board) -> str:
    cpus = ",".join(map(str, board.advised_cpus)) or "unknown"
    return f"{cpus}; {board.target.threads.advice}"


def _state_lines(state: State) -> list[str]:
    """Return a line for everything that is known of the state."""
    answer = {True: "yes", False: "no", None: "unknown"}
    told = {
        "temperature": _shown(state.soc_temperature_c, "{:.1f} C"),
        "clocks": state.cpu_clock_mhz and _clocks(state.cpu_clock_mhz, state.cpu_max_clock_mhz),
        "governor": state.governor,
        "power mode": state.power_mode,
        "slowed down": "; ".join(
            [
                f"now {answer[state.throttled]}, since boot {answer[state.throttled_since_boot]}",
                *state.throttle_reasons,
            ]
        ),
        "power": _shown(state.power_w, f"{{:.2f}} W ({state.power_source})"),
        "gpu": _shown(state.gpu_load_percent, "{:.0f} % busy"),
        "load": _shown(state.load_1min, "{:.2f} in the last minute"),
    }
    return [f"{name:<11} {text}" for name, text in told.items() if text]


def _clocks(now_mhz: Sequence[float], most_mhz: Sequence[float] | None) -> str:
    text = f"{min(now_mhz):.0f} to {max(now_mhz):.0f} MHz now"
    return f"{text}, up to {max(most_mhz):.0f} MHz" if most_mhz else text


def _room_lines(found: Examination) -> list[str]:
    lines = []
    if found.memory:
        free, whole = found.memory.available_bytes, found.memory.total_bytes
        lines.append(f"memory      {size(free)} free of {size(whole)}")
    if found.python:
        python = found.python
        lines.append(f"disk        {size(python.disk_free_bytes)} free")
        lines.append(f"python      {python.python}, {python.bits} bits, {python.libc}")
    return lines


def _runtimes(checks: Sequence[RuntimeCheck]) -> str:
    return render(("runtime", "works", "what"), [_row(check) for check in checks])


def _row(check: RuntimeCheck) -> tuple[str, str, str]:
    works = {True: "yes", False: "NO", None: "-"}[check.works]
    if check.installed is False:
        return check.name, works, f"not installed; {check.install}"
    told = [check.version, check.device, check.failure]
    return check.name, works, "; ".join(filter(None, told))


def _unknown(found: Examination) -> dict[str, str]:
    """Return what is unknown and why, without what this family has no sensor for."""
    reasons = {name: why for name, why in found.state.unknown.items() if why != ABSENT}
    together: dict[str, list[str]] = {}
    for name, why in {**reasons, **found.unknown}.items():
        together.setdefault(why, []).append(name)
    return {", ".join(names): why for why, names in together.items()}


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", f"{title}:", *(f"  - {line}" for line in lines)] if lines else []


def _shown(value: float | None, form: str) -> str | None:
    return None if value is None else form.format(value)
