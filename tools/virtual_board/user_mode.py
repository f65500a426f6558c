"""A root folder for user mode emulation: one arm64 program at a time, without a kernel.

`qemu-aarch64 -L ROOT` looks for every absolute path in ROOT first. The layers are merged there by
links, and files take the place of what the board's kernel would say about its processor: the
runtimes choose their kernels by it, so it must be the processor that is emulated (`-cpu`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from layers import System
from profiles import CORES, Profile
from workshop import Workshop, sources_of


def user_root(workshop: Workshop, system: System, profile: Profile) -> Path:
    """Return the folder to give to `qemu-aarch64 -L`."""

    def fill(into: Path) -> None:
        merge(system.roots, into / "root")
        _describe_processor(into / "root", profile)

    inputs = (profile, *system.roots, sources_of(Path(__file__)))
    return workshop.make(f"user_root_{profile.name}", inputs, fill) / "root"


def merge(layers: Sequence[Path], into: Path) -> None:
    """Fill the new folder `into` with links, so that it shows `layers`, the uppermost first."""
    into.mkdir()
    names = sorted({entry.name for layer in layers for entry in layer.iterdir()})
    for name in names:
        having = [layer / name for layer in layers if os.path.lexists(layer / name)]
        folders = [path for path in having if path.is_dir() and not path.is_symlink()]
        if having[0] in folders and len(folders) > 1:
            merge(folders, into / name)
        else:
            (into / name).symlink_to(having[0])


def _describe_processor(root: Path, profile: Profile) -> None:
    for name in ("proc", "sys"):
        path = root / name
        path.unlink()
        path.mkdir()
    (root / "proc/cpuinfo").write_text("".join(_cpuinfo(profile, core) for core in range(CORES)))
    base = root / "sys/firmware/devicetree/base"
    base.mkdir(parents=True)
    (base / "model").write_text(f"{profile.model}\0")
    (base / "compatible").write_text("".join(f"{each}\0" for each in profile.compatible))
    processors = root / "sys/devices/system/cpu"
    for core in range(CORES):
        files = {"regs/identification/midr_el1": f"0x{profile.midr:016x}", **_topology(core)}
        for name, text in files.items():
            path = processors / f"cpu{core}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
    for name in ("online", "possible", "present"):
        (processors / name).write_text(f"0-{CORES - 1}\n")


def _cpuinfo(profile: Profile, core: int) -> str:
    return (
        f"processor\t: {core}\n"
        "BogoMIPS\t: 108.00\n"
        f"Features\t: {profile.features}\n"
        "CPU implementer\t: 0x41\n"
        "CPU architecture: 8\n"
        f"CPU variant\t: {profile.variant:#x}\n"
        f"CPU part\t: {profile.part:#x}\n"
        f"CPU revision\t: {profile.revision}\n\n"
    )


def _topology(core: int) -> dict[str, str]:
    """Return all that the kernel tells; OpenVINO crashes when some of it is missing."""
    everyone, alone = (f"{(1 << CORES) - 1:x}", f"0-{CORES - 1}"), (f"{1 << core:x}", f"{core}")
    masks = {
        "core_siblings": everyone,
        "package_cpus": everyone,
        "thread_siblings": alone,
        "core_cpus": alone,
    }
    files = {"topology/core_id": f"{core}", "topology/physical_package_id": "0"}
    for name, (mask, numbers) in masks.items():
        files |= {f"topology/{name}": mask, f"topology/{name}_list": numbers}
    return files
