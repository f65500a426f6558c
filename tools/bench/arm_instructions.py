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
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edgenet import runtimes
from edgenet.bundle import Artifact, Bundle, Precision
from edgenet.manifest import load_bundle
from edgenet.report.table import render

BOARD = Path(__file__).parents[1] / "virtual_board/board"
COUNTER = Path(__file__).with_name("instruction_counter.c")
PROCESSORS = {"pi4": "cortex-a72", "pi5": "cortex-a76"}
"""QEMU's name of the processor by the board that has it."""
PYTHON = "/opt/checkout/bin/python"
SAME_EVERYWHERE = {"PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "0", "LANG": "C.UTF-8"}
"""The environment of what is counted."""
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

runtime, path, image, what = sys.argv[1:]
picture = np.load(image)
session = runtimes.load(runtime, Path(path), threads=1)
def run():
    return session.run(picture) if what == "whole" else session.invoke_ns(picture, int)
for _ in range({WARM_UP}):
    run()
gc.collect()
gc.disable()
mark(0)
for number in range(1, {RUNS} + 1):
    run()
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


@dataclass(frozen=True, kw_only=True)
class NotRun:
    """An artefact that its runtime does not run on a processor."""

    artifact: str
    profile: str
    processor: str
    reason: str


class Failed(Exception):
    """A program that did not do what it was started for, with the end of what it said."""


class Counter:
    """The compiled plugin, the arm64 systems and the folder in which they work."""

    def __init__(self, folder: Path, profiles: Sequence[str]) -> None:
        self._folder = folder
        self._plugin = folder / "counter.so"
        _run(["gcc", "-shared", "-fPIC", "-O2", "-o", str(self._plugin), str(COUNTER)])
        self._roots = {each: _run([str(BOARD), "user-root", each]).strip() for each in profiles}
        self._guest = folder / "guest.py"
        self._guest.write_text(GUEST)

    def count(self, bundle: Bundle, artifact: Artifact, profile: str) -> Counts:
        """Return what one inference of `artifact` takes; raises `Failed` when it does not run."""
        path = bundle.path(artifact).absolute()
        said, rows = self._emulate(profile, artifact.runtime, path, bundle.model.resolution)
        version, device = said.splitlines()[-2:]
        everything, simd, dots = zip(*rows, strict=True)
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

    def count_piece(self, model: bytes, side: int, profile: str) -> int:
        """Return the instructions of a piece of a LiteRT network, without what goes in and out."""
        path = self._folder / "piece.tflite"
        path.write_bytes(model)
        _, rows = self._emulate(profile, "litert", path, side, what="piece")
        return statistics.median_low(row[0] for row in rows)

    def _emulate(
        self, profile: str, runtime: str, path: Path, side: int, *, what: str = "whole"
    ) -> tuple[str, list[list[int]]]:
        """Return what the guest prints, and the counts of each inference."""
        image = self._folder / "image.npy"
        np.save(image, np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8))
        arguments = [runtime, str(path), str(image), what]
        root, counts = self._roots[profile], self._folder / "counts.txt"
        emulator = ["qemu-aarch64", "-L", root, "-cpu", PROCESSORS[profile]]
        plugin = ["-plugin", f"{self._plugin},out={counts}"]
        program = ["-0", PYTHON, f"{root}/usr/bin/python3", str(self._guest)]
        said = _run([*emulator, *plugin, *program, *arguments], environment=SAME_EVERYWHERE)
        lines = [[int(word) for word in line.split()] for line in counts.read_text().splitlines()]
        assert [line[0] for line in lines] == list(range(RUNS + 1))
        return said, [line[1:] for line in lines[1:]]


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


def count_all(
    counter: Counter, bundle: Bundle, artifacts: Sequence[Artifact], profiles: Sequence[str]
) -> tuple[list[Counts], list[NotRun]]:
    """Return the counts of what runs, and what does not run with the reason."""
    counts, not_run = [], []
    for artifact in artifacts:
        for profile in profiles:
            try:
                counts.append(counter.count(bundle, artifact, profile))
            except Failed as error:
                not_run.append(
                    NotRun(
                        artifact=artifact.label,
                        profile=profile,
                        processor=PROCESSORS[profile],
                        reason=str(error),
                    )
                )
    return counts, not_run


def _run(command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> str:
    """Return what a program prints; raises `Failed`."""
    if not shutil.which(command[0]):
        raise Failed(f"{command[0]} is missing: tools/install_system_packages.sh tests")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip() or f"{command[0]} failed ({done.returncode})"
        # A runtime's message may have several lines; the exception that holds it is one of ours.
        _, ours, message = said.rpartition("edgenet.errors.")
        raise Failed(" ".join(message.split()) if ours else said.splitlines()[-1])
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
        try:
            counter = Counter(Path(folder), options.profile)
        except Failed as error:
            raise SystemExit(str(error)) from None
        counts, not_run = count_all(counter, bundle, artifacts, options.profile)
    if counts:
        print(table(counts))
    for each in not_run:
        print(f"{each.artifact} does not run on {each.processor}: {each.reason}", file=sys.stderr)
    if options.json:
        document = {
            "what": "instruction counts per inference under emulation; not timings",
            "bundle_sha256": bundle.sha256,
            "counts": [asdict(each) for each in counts],
            "not_run": [asdict(each) for each in not_run],
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
