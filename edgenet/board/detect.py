"""Which board a machine is, from what it says about itself.

Knows no board by name: targets say how they are recognised.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgenet.board.machine import Machine, Unreadable
from edgenet.board.target import (
    LatencyBand,
    ModelFacts,
    Recognition,
    Target,
    load_target,
    targets,
)

MODEL_FILES = ("/proc/device-tree/model", "/sys/class/dmi/id/product_name")
COMPATIBLE = "/proc/device-tree/compatible"
CPUINFO = "/proc/cpuinfo"
OS_RELEASE = "/etc/os-release"
EMULATED = ("linux,dummy-virt", "qemu")
"""In the device tree's `compatible` of a board that QEMU makes up, whatever its model says."""
VIRTIO = "/sys/bus/virtio/devices/*"
"""Devices that only a hypervisor or an emulator gives."""
ALIKE = 0.9
"""Cores whose highest clocks differ by less are of one kind: favoured cores go a little higher."""

PARTS = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd04"): "Cortex-A35",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd09"): "Cortex-A73",
    ("0x41", "0xd0a"): "Cortex-A75",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd0d"): "Cortex-A77",
    ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd41"): "Cortex-A78",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x41", "0xd44"): "Cortex-X1",
    ("0x41", "0xd46"): "Cortex-A510",
    ("0x41", "0xd47"): "Cortex-A710",
    ("0x41", "0xd49"): "Neoverse-N2",
    ("0x41", "0xd4b"): "Cortex-A78C",
    ("0x41", "0xd83"): "Neoverse-V3AE",
    ("0x4e", "0x003"): "Denver 2",
    ("0x4e", "0x004"): "Carmel",
}
"""Names of ARM processors by implementer and part, as /proc/cpuinfo has them (Arm's and NVIDIA's
technical reference manuals, MIDR_EL1)."""


@dataclass(frozen=True, kw_only=True)
class Board:
    """The board that a machine is."""

    target: Target
    model: str | None
    """What the device tree or the firmware calls it; None where neither says."""
    architecture: str | None
    """As `uname -m` says."""
    systems: tuple[str, ...]
    """The operating system's own name, and the first line of what the target is recognised by."""
    cpus: tuple[int, ...]
    """Numbers of the cores that are switched on."""
    processors: tuple[str, ...]
    """The kind of each of them."""
    features: frozenset[str]
    """Instruction set extensions that every core has, as /proc/cpuinfo names them."""
    fastest_cpus: tuple[int, ...]
    """Numbers of the cores that no other core outdoes; all of them where they are alike."""
    first_threads: tuple[int, ...]
    """One number for each physical core; all of them where cores have one thread."""
    emulated: bool
    """Whether the device tree is that of an emulator: no time measured there means anything."""
    virtual: bool
    """Whether a hypervisor shares the machine with others."""
    recognised: bool
    """Whether the target recognises the machine; one that was asked for is used all the same."""

    @property
    def name(self) -> str:
        """Return the model, or the next best."""
        return self._called or self.target.title

    @property
    def mismatch(self) -> str | None:
        """Return what the target recognises and this is not; None where it recognises this."""
        if self.recognised:
            return None
        sign = self.target.recognised
        signs = (sign.model, *sign.files, *sign.architectures)
        wanted = " or ".join(filter(None, signs))
        this = self._called or "a machine that tells no name"
        kind = f" ({self.architecture})" if self.architecture else ""
        return f"{self.target.name} recognises {wanted}; this is {this}{kind}"

    @property
    def facts(self) -> ModelFacts | None:
        """Return what the target knows of this model."""
        return self.target.facts_of(self._described)

    @property
    def latency_bands(self) -> tuple[LatencyBand, ...]:
        """Return the latencies that others have published for this model."""
        return self.target.bands_of(self._described)

    @property
    def _called(self) -> str | None:
        """Return what the machine calls itself, whatever target it is taken for."""
        return self.model or (self.processors[0] if self.processors else None)

    @property
    def _described(self) -> str:
        """Return what patterns of models are searched in: a PC is known by its processor."""
        return " ".join(filter(None, (self.model, *self.processors[:1])))

    @property
    def advised_cpus(self) -> tuple[int, ...]:
        """Return the numbers of the cores that the target advises to run on."""
        if self.target.threads.cores == "all":
            return self.cpus
        return tuple(cpu for cpu in self.fastest_cpus if cpu in self.first_threads)


def detect(machine: Machine, target: Target | None = None) -> Board:
    """Return the board that a machine is, of a given target or of the one that recognises it.

    Never fails: the target of last resort recognises every machine.
    """
    model = _first_line(machine, MODEL_FILES)
    architecture = _architecture(machine)
    cores = _cores(_read(machine, CPUINFO) or "")
    cpus = tuple(int(core["processor"]) for core in cores)
    known = target or _recognise(machine, model, architecture)
    compatible = _read(machine, COMPATIBLE) or ""
    virtio = bool(machine.glob(VIRTIO))
    return Board(
        target=known,
        model=model,
        architecture=architecture,
        systems=_systems(machine, known.recognised),
        cpus=cpus,
        processors=tuple(_processor(core) for core in cores),
        features=_common_features(cores),
        fastest_cpus=_fastest_cpus(machine, cpus),
        first_threads=_first_threads(cores),
        # A device tree that names a board, on a machine that has devices of no board.
        emulated=any(mark in compatible for mark in EMULATED) or (bool(compatible) and virtio),
        virtual=virtio or any("hypervisor" in _features(core) for core in cores),
        recognised=_evidence(known.recognised, machine, model, architecture) > 0,
    )


def _recognise(machine: Machine, model: str | None, architecture: str | None) -> Target:
    """Return the target with the best evidence; the first by name where two are as good."""
    known = [load_target(name) for name in targets()]
    return max(known, key=lambda it: _evidence(it.recognised, machine, model, architecture))


def _evidence(
    sign: Recognition, machine: Machine, model: str | None, architecture: str | None
) -> int:
    """Return how much speaks for a target: 3 for its board, 2 for its processor, 0 against it."""
    if sign.model and model and re.search(sign.model, model):
        return 3
    if any(_read(machine, path) is not None for path in sign.files):
        return 3
    if architecture in sign.architectures:
        return 2
    return 1 if sign == Recognition() else 0


def _systems(machine: Machine, sign: Recognition) -> tuple[str, ...]:
    names = re.findall(r'(?m)^PRETTY_NAME="?([^"\n]+)', _read(machine, OS_RELEASE) or "")
    marks = (text.splitlines()[0] for path in sign.files if (text := _read(machine, path)))
    return (*names, *(mark.strip("# ") for mark in marks))


def _cores(cpuinfo: str) -> list[dict[str, str]]:
    """Return the fields of each core, without what follows the cores about the board."""
    blocks = [
        {
            key.strip(): value.strip()
            for key, _, value in (line.partition(":") for line in block.splitlines())
        }
        for block in re.split(r"\n\s*\n", cpuinfo)
    ]
    return [block for block in blocks if block.get("processor", "").isdecimal()]


def _processor(core: dict[str, str]) -> str:
    part = (core.get("CPU implementer", ""), core.get("CPU part", ""))
    named = PARTS.get(part) or core.get("model name")
    return named or f"unknown processor {' '.join(filter(None, part))}".strip()


def _features(core: dict[str, str]) -> frozenset[str]:
    return frozenset((core.get("Features") or core.get("flags") or "").split())


def _common_features(cores: list[dict[str, str]]) -> frozenset[str]:
    """Return what all have: a program may be moved to any of them."""
    if not cores:
        return frozenset()
    return frozenset.intersection(*(_features(core) for core in cores))


def _first_threads(cores: list[dict[str, str]]) -> tuple[int, ...]:
    """Return the first of the threads that share a core; x86 alone numbers its cores."""
    firsts: dict[tuple[str, ...], int] = {}
    for core in cores:
        same = (core.get("physical id", ""), core["core id"]) if "core id" in core else None
        firsts.setdefault(same or (core["processor"],), int(core["processor"]))
    return tuple(firsts.values())


def _fastest_cpus(machine: Machine, cpus: tuple[int, ...]) -> tuple[int, ...]:
    """Return the cores with the highest capacity, or clock where the kernel gives no capacity."""
    for file in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        speeds = {
            cpu: speed
            for cpu in cpus
            if (speed := _whole(machine, f"/sys/devices/system/cpu/cpu{cpu}/{file}"))
        }
        if speeds and len(speeds) == len(cpus):
            limit = ALIKE * max(speeds.values())
            return tuple(cpu for cpu, speed in speeds.items() if speed >= limit)
    return cpus


def _whole(machine: Machine, path: str) -> int | None:
    text = _read(machine, path)
    return int(text) if text and text.isdecimal() else None


def _first_line(machine: Machine, paths: tuple[str, ...]) -> str | None:
    return next((text.splitlines()[0] for path in paths if (text := _read(machine, path))), None)


def _read(machine: Machine, path: str) -> str | None:
    try:
        return machine.read(path)
    except Unreadable:
        return None


def _architecture(machine: Machine) -> str | None:
    try:
        return machine.run("uname", "-m").strip()
    except Unreadable:
        return None
