"""What a machine is, what works on it, what is in the way, and whether to measure on it.

Everything comes through `Machine`, the packages and runtimes too: they are commands that run this
Python again, so that a crash of theirs is a finding, and a recorded tree has them as well.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from edgenet.board.detect import Board, detect
from edgenet.board.machine import PYTHON, Machine, Unreadable
from edgenet.board.sensors import State, read_state
from edgenet.board.target import Target

ENVIRONMENT = (PYTHON, "-m", "edgenet.board.python_environment")
PROBE = (PYTHON, "-m", "edgenet.measure.probe")
PYTHON_TIMEOUT_S = 120.0
"""OpenVINO compiles for seconds on a board; on an emulated one a first import takes tens."""

BUSY = 0.25
"""Of the cores, taken by others: from here on a neighbour is part of every figure."""
OVERLOADED = 1.0
HOT_C = 75.0
"""Boards slow down from 80 C (Raspberry Pi) on; a run of minutes adds some degrees."""
LEAST_MEMORY_BYTES = 256 * 2**20
"""A MobileNet in any runtime stays below; with less the machine swaps."""
LEAST_DISK_BYTES = 200 * 2**20

INT8_FEATURES: Mapping[str, tuple[str, ...]] = {
    "aarch64": ("asimddp", "i8mm"),
    "x86_64": ("avx512_vnni", "avx_vnni"),
}
"""Extensions with 8-bit dot products, by architecture."""


@dataclass(frozen=True, kw_only=True)
class RuntimeCheck:
    """One runtime on this machine."""

    name: str
    installed: bool | None
    works: bool | None
    """Whether it ran a small int8 model and answered rightly; or was imported, if it builds its
    models on the board. None where it is not installed or not known."""
    version: str | None
    device: str | None
    failure: str | None
    """Why it does not work, or why nothing is known."""
    install: str
    """The command that would install it here."""


@dataclass(frozen=True, kw_only=True)
class PythonEnvironment:
    """The Python that edgenet runs in."""

    python: str
    bits: int
    libc: str
    packages: Mapping[str, str]
    """Versions by distribution, of those that edgenet uses or that clash."""
    opencv: bool
    """Whether there is any, pip's or the system's."""
    disk_free_bytes: int


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The machine's memory."""

    total_bytes: int
    available_bytes: int


class Fit(str, Enum):
    """Whether figures that are measured here can be relied on."""

    YES = "yes"
    WITH_CARE = "with care"
    NO = "no"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether to measure here, and why not."""

    fit: Fit
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Examination:
    """All that doctor finds out."""

    board: Board
    state: State
    int8: tuple[str, ...]
    """The extensions for 8-bit dot products that the processor has."""
    int8_meaning: str
    runtimes: tuple[RuntimeCheck, ...]
    python: PythonEnvironment | None
    memory: Memory | None
    clashes: tuple[str, ...]
    advice: tuple[str, ...]
    """What to do next, the most useful first."""
    verdict: Verdict
    unknown: Mapping[str, str] = field(default_factory=dict)
    """The reason for `python` and `memory` that are None."""


def examine(machine: Machine, target: Target | None = None) -> Examination:
    """Return all there is to say of a machine, as a board of `target` or as what it says it is."""
    unknown: dict[str, str] = {}
    board = detect(machine, target)
    state = read_state(machine, board.target)
    runtimes = tuple(
        _check(machine, choice.name, choice.install) for choice in board.target.runtimes
    )
    python = _environment(machine, unknown)
    memory = _memory(machine, unknown)
    clashes = _clashes(python.packages if python else {})
    int8 = _int8(board)
    return Examination(
        board=board,
        state=state,
        int8=int8,
        int8_meaning=_int8_meaning(board, int8),
        runtimes=runtimes,
        python=python,
        memory=memory,
        clashes=clashes,
        advice=_advice(runtimes, python, clashes),
        verdict=_verdict(board, state, runtimes, python, memory),
        unknown=unknown,
    )


def _check(machine: Machine, runtime: str, install: str) -> RuntimeCheck:
    def result(**found: Any) -> RuntimeCheck:
        nothing = dict.fromkeys(("installed", "works", "version", "device", "failure"))
        return RuntimeCheck(name=runtime, install=install, **{**nothing, **found})

    try:
        found = _answer(machine, *PROBE, runtime)
        works = found["failure"] is None if found["installed"] else None
        return result(**found, works=works)
    except Unreadable as fault:
        crashed = any(name in fault.reason for name in CRASHES)
        return result(
            installed=True if crashed else None,
            works=False if crashed else None,
            failure=fault.reason,
        )
    except (TypeError, KeyError):
        return result(failure=STRANGE)


CRASHES = tuple(it.name for it in (signal.SIGILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS))
INSTALL_32_BIT = "pip install 'edgenet[tflite-runtime]'"
STRANGE = "was told by another version of edgenet"


def _environment(machine: Machine, unknown: dict[str, str]) -> PythonEnvironment | None:
    try:
        return PythonEnvironment(**_answer(machine, *ENVIRONMENT))
    except Unreadable as fault:
        unknown["python"] = str(fault)
    except TypeError:
        unknown["python"] = STRANGE
    return None


def _answer(machine: Machine, *argv: str) -> dict[str, Any]:
    """Return the JSON object in the last line of a command: packages may chatter before it."""
    lines = machine.run(*argv, timeout_s=PYTHON_TIMEOUT_S).splitlines() or [""]
    try:
        found = json.loads(lines[-1])
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Unreadable(" ".join(argv), f"says {lines[-1]!r}, which is no JSON object")
    return found


def _memory(machine: Machine, unknown: dict[str, str]) -> Memory | None:
    try:
        lines = [line.split() for line in machine.read("/proc/meminfo").splitlines()]
        kibibytes = {line[0].rstrip(":"): int(line[1]) for line in lines if len(line) > 1}
        return Memory(
            total_bytes=kibibytes["MemTotal"] * 1024,
            available_bytes=kibibytes["MemAvailable"] * 1024,
        )
    except Unreadable as fault:
        unknown["memory"] = str(fault)
    except (KeyError, ValueError):
        unknown["memory"] = "/proc/meminfo: has no MemTotal and MemAvailable"
    return None


def _int8(board: Board) -> tuple[str, ...]:
    known = INT8_FEATURES.get(board.architecture or "", ())
    return tuple(name for name in known if name in board.features)


def _int8_meaning(board: Board, int8: Sequence[str]) -> str:
    """Return in words what the processor's 8-bit extensions, or their lack, mean for int8."""
    if board.architecture not in INT8_FEATURES:
        return f"nothing is known about int8 on {board.architecture or 'an unknown architecture'}"
    if not board.features:
        return "what this processor has is unknown: /proc/cpuinfo lists no features"
    if int8:
        return (
            f"it has 8-bit dot products ({', '.join(int8)}): int8 should take well less time than "
            "float32"
        )
    if board.architecture == "x86_64":
        return (
            "no VNNI: plain 8-bit kernels saturate, so exact or float ones run in their place "
            "(docs/processors.md) and int8 may be slower than float32; measure both"
        )
    return (
        "no dot products (asimddp): int8 is built from widening products and gains less, mostly "
        "from memory; measure both"
    )


def _clashes(packages: Mapping[str, str]) -> tuple[str, ...]:
    found = []
    opencvs = [name for name in packages if name.startswith("opencv-")]
    if len(opencvs) > 1:
        found.append(
            f"{' and '.join(opencvs)} overwrite each other's files: "
            f"pip uninstall {' '.join(opencvs)}, then install one of them"
        )
    if {"onnxruntime", "onnxruntime-gpu"} <= packages.keys():
        found.append(
            "onnxruntime and onnxruntime-gpu share one folder, so that either may be what runs: "
            "pip uninstall onnxruntime onnxruntime-gpu, then install one of them"
        )
    numpy = packages.get("numpy", "0")
    if "tflite-runtime" in packages and int(numpy.partition(".")[0]) >= 2:
        found.append(
            f"tflite-runtime is built for numpy 1 and breaks with numpy {numpy}: "
            "pip install 'numpy<2', or take ai-edge-litert in its place"
        )
    return tuple(found)


def _advice(
    runtimes: Sequence[RuntimeCheck], python: PythonEnvironment | None, clashes: Sequence[str]
) -> tuple[str, ...]:
    """Return what to install or mend next; nothing about what cannot be known."""
    if python is None:
        return ()
    advice = list(clashes)
    broken = [check for check in runtimes if check.works is False]
    advice += [f"{check.name} is installed and does not work: {check.failure}" for check in broken]
    missing = [check for check in runtimes if check.installed is False]
    if python.bits == 32:
        advice.append(f"the one runtime for a 32-bit Python: {INSTALL_32_BIT}")
    elif not any(check.works for check in runtimes) and missing:
        advice.append(f"no runtime works yet; the first choice here: {missing[0].install}")
    elif missing:
        advice.append(f"another runtime to compare with: {missing[0].install}")
    if not python.opencv:
        advice.append("pictures need OpenCV: pip install 'edgenet[board]'")
    return tuple(advice)


def _verdict(
    board: Board,
    state: State,
    runtimes: Sequence[RuntimeCheck],
    python: PythonEnvironment | None,
    memory: Memory | None,
) -> Verdict:
    against = [*_against_board(board), *_against_state(state, len(board.processors))]
    against += _against_software(runtimes, python, memory)
    fits = [fit for fit, _ in against]
    worst = next((fit for fit in (Fit.NO, Fit.WITH_CARE) if fit in fits), Fit.YES)
    ordered = sorted(against, key=lambda it: it[0] is not Fit.NO)
    return Verdict(fit=worst, reasons=tuple(reason for _, reason in ordered))


Objection = tuple[Fit, str]


def _against_board(board: Board) -> list[Objection]:
    if board.emulated:
        return [(Fit.NO, "an emulated board: what it times is the emulator")]
    if board.virtual:
        return [(Fit.WITH_CARE, "a virtual machine: neighbours share its cores, clocks are hidden")]
    return []


def _against_state(state: State, cores: int) -> list[Objection]:
    found: list[Objection] = []
    reasons = ", ".join(state.throttle_reasons)
    if state.throttled:
        found.append((Fit.NO, f"slowed down now: {reasons}"))
    elif state.throttled_since_boot:
        found.append((Fit.WITH_CARE, f"was slowed down: {reasons}"))
    elif state.throttled_since_boot is None:
        why = state.unknown["throttled_since_boot"]
        found.append((Fit.WITH_CARE, f"whether it is ever slowed down is unknown: {why}"))
    if state.soc_temperature_c is not None and state.soc_temperature_c >= HOT_C:
        found.append((Fit.WITH_CARE, f"{state.soc_temperature_c:.0f} C before anything has run"))
    if state.governor not in (None, "performance"):
        found.append(
            (
                Fit.WITH_CARE,
                f"governor {state.governor}: clocks follow the load; to compare runs: "
                "sudo cpupower frequency-set -g performance",
            )
        )
    if state.load_1min is not None and cores and state.load_1min >= BUSY * cores:
        fit = Fit.NO if state.load_1min >= OVERLOADED * cores else Fit.WITH_CARE
        found.append((fit, f"load {state.load_1min:.2f} on {cores} cores: others are at work"))
    return found


def _against_software(
    runtimes: Sequence[RuntimeCheck], python: PythonEnvironment | None, memory: Memory | None
) -> list[Objection]:
    found: list[Objection] = []
    if not any(check.works for check in runtimes):
        unknown = any(check.installed is None for check in runtimes)
        what = "whether a runtime works is unknown" if unknown else "no runtime works"
        found.append((Fit.WITH_CARE if unknown else Fit.NO, what))
    if memory is not None and memory.available_bytes < LEAST_MEMORY_BYTES:
        found.append(
            (Fit.NO, f"{memory.available_bytes / 1e6:.0f} MB of memory left: it would swap")
        )
    if python is not None and python.disk_free_bytes < LEAST_DISK_BYTES:
        found.append((Fit.WITH_CARE, f"{python.disk_free_bytes / 1e6:.0f} MB of disk left"))
    if python is not None and python.bits == 32:
        found.append(
            (Fit.WITH_CARE, "a 32-bit Python: of all runtimes only tflite-runtime exists for it")
        )
    return found
