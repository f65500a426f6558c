"""Arm instructions per inference: every artefact of a bundle, on the processors of Pi 4 and Pi 5.

Each artefact runs through edgenet in an arm64 system under QEMU's user mode emulation, on one
thread, where a plugin counts what is executed between two inferences. These are instruction counts,
never timings: caches, memory and how many instructions a processor executes at once are not in
them, and a runtime that needs fewer may still take longer. The Python around an inference is
included; it makes them differ a little (`spread`: the largest less the smallest).

    python tools/bench/arm_instructions.py BUNDLE
    python tools/bench/arm_instructions.py BUNDLE --profile pi5 --runtime litert --json counts.json

The arm64 system is that of tools/virtual_board, built when it is missing. Needs `qemu-aarch64`
(Debian's qemu-user; not the static one, which takes no plugins) and `gcc`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edgenet import runtimes
from edgenet.bundle import Artifact, Bundle, Precision, load_bundle
from edgenet.report.table import render

BOARD = Path(__file__).parents[1] / "virtual_board/board"
COUNTER = Path(__file__).with_name("instruction_counter.c")
PROCESSORS = {"pi4": "cortex-a72", "pi5": "cortex-a76"}
"""QEMU's name of the processor by the board that has it."""
PYTHON = "/opt/edgenet/bin/python"
WARM_UP, RUNS = 3, 5
GUEST = f"""
import gc, os, sys
from contextlib import suppress
from pathlib import Path
import numpy as np
from edgenet import runtimes

def mark(number):
    with suppress(OSError):
        os.getpriority(0x7E57, number)

runtime, path, image = sys.argv[1:]
picture = np.load(image)
session = runtimes.load(runtime, Path(path), threads=1)
for _ in range({WARM_UP}):
    session.run(picture)
gc.collect()
gc.disable()
mark(0)
for number in range(1, {RUNS} + 1):
    session.run(picture)
    mark(number)
print(session.version, session.device, sep="\\n")
"""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Instructions of one inference of one artefact on one processor."""

    artifact: str
    sha256: str
    profile: str
    processor: str
    instructions: int
    """The median of the inferences."""
    simd: int
    """Those of the SIMD and floating point unit among them."""
    dot_products: int
    """8-bit dot products (SDOT, UDOT) among those."""
    every_inference: tuple[int, ...]
    """Instructions of each inference, after the warm-up."""
    version: str
    device: str


class Counter:
    """The compiled plugin and the folder that it works in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._plugin = folder / "counter.so"
        build = ["gcc", "-shared", "-fPIC", "-O2", "-o", str(self._plugin), str(COUNTER)]
        _run(build)
        self._roots: dict[str, Path] = {}

    def count(self, bundle: Bundle, artifact: Artifact, profile: str) -> Counts:
        """Return what one inference of `artifact` takes."""
        if profile not in self._roots:
            self._roots[profile] = Path(_run([str(BOARD), "user-root", profile]).strip())
        root, counts = self._roots[profile], self._folder / "counts.txt"
        guest, image = self._folder / "guest.py", self._folder / "image.npy"
        guest.write_text(GUEST)
        side = bundle.model.resolution
        np.save(image, np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8))
        emulator = ["qemu-aarch64", "-L", str(root), "-cpu", PROCESSORS[profile]]
        plugin = ["-plugin", f"{self._plugin},out={counts}"]
        program = ["-0", PYTHON, str(root / "usr/bin/python3"), str(guest)]
        arguments = [artifact.runtime, str(bundle.path(artifact).absolute()), str(image)]
        said = _run([*emulator, *plugin, *program, *arguments], fresh=True)
        version, device = said.splitlines()[-2:]
        rows = [[int(word) for word in line.split()] for line in counts.read_text().splitlines()]
        assert [row[0] for row in rows] == list(range(RUNS + 1))
        everything, simd, dots = zip(*(row[1:] for row in rows[1:]), strict=True)
        return Counts(
            artifact=artifact.label,
            sha256=artifact.sha256,
            profile=profile,
            processor=PROCESSORS[profile],
            instructions=statistics.median_low(everything),
            simd=statistics.median_low(simd),
            dot_products=statistics.median_low(dots),
            every_inference=everything,
            version=version,
            device=device,
        )


def table(counts: Sequence[Counts]) -> str:
    """Return the counts by artefact and processor; int8 beside the float32 of its runtime."""
    floats = {
        (each.artifact.partition(" ")[0], each.profile): each.instructions
        for each in counts
        if each.artifact.endswith(" float32")
    }
    rows = []
    for each in counts:
        base = floats.get((each.artifact.partition(" ")[0], each.profile))
        spread = max(each.every_inference) - min(each.every_inference)
        rows.append(
            [
                each.artifact,
                each.processor,
                f"{each.instructions:,}",
                f"{spread / each.instructions:.2%}",
                f"{each.simd:,}",
                f"{each.dot_products:,}",
                f"{each.instructions / base:.3f}" if base else "-",
            ]
        )
    headers = [
        "artefact",
        "processor",
        "instructions",
        "spread",
        "SIMD",
        "dot products",
        "of float32",
    ]
    return render(headers, rows)


def _run(command: Sequence[str], *, fresh: bool = False) -> str:
    """Return what a program prints; `fresh` gives it an environment that is the same everywhere."""
    if not shutil.which(command[0]):
        raise SystemExit(f"{command[0]} is missing: tools/install_system_packages.sh tests")
    environment = {"PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "0", "LANG": "C.UTF-8"}
    done = subprocess.run(
        command,
        env=environment if fresh else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if fresh else None,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed ({done.returncode})\n{done.stderr or ''}")
    return done.stdout


def main() -> None:
    """Count, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--profile", nargs="+", choices=PROCESSORS, default=list(PROCESSORS))
    parser.add_argument("--runtime", nargs="+", choices=runtimes.names(), default=[])
    parser.add_argument("--precision", nargs="+", type=Precision, default=[])
    parser.add_argument("--json", type=Path, help="also write the counts of each inference here")
    options = parser.parse_args()
    bundle = load_bundle(options.bundle)
    artifacts = bundle.select(tuple(options.runtime), tuple(options.precision))
    with tempfile.TemporaryDirectory() as folder:
        counter = Counter(Path(folder))
        counts = [
            counter.count(bundle, artifact, profile)
            for artifact in artifacts
            for profile in options.profile
        ]
    print(table(counts))
    if options.json:
        document = {
            "what": "instruction counts per inference under emulation; not timings",
            "bundle_sha256": bundle.sha256,
            "counts": [asdict(each) for each in counts],
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
