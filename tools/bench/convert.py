"""Measure what a whole `edgenet convert` costs: wall time and peak memory, over several runs.

Each run is a fresh process, as a user starts it. Peak memory is the largest resident set of the
process as the kernel reports it.

    python tools/bench/convert.py --runs 5 -- mobilenet_v1
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Run:
    """One conversion."""

    wall_s: float
    peak_mib: float


def convert_once(arguments: list[str]) -> Run:
    """Convert into a temporary folder and return what it cost."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "edgenet", "convert", *arguments, "-o", f"{folder}/bundle"]
        started = time.monotonic()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        wall_s = time.monotonic() - started
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    return Run(wall_s=wall_s, peak_mib=usage.ru_maxrss / 1024)


def main() -> None:
    """Run, and print the medians with their range."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the raw figures here")
    parser.add_argument("arguments", nargs="*", default=["mobilenet_v1"], help="for convert")
    options = parser.parse_args()
    runs = [convert_once(options.arguments) for _ in range(options.runs)]
    print(
        f"edgenet convert {' '.join(options.arguments)}: {options.runs} runs, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {platform.machine()}"
    )
    for name, values in (
        ("wall s", [run.wall_s for run in runs]),
        ("peak MiB", [run.peak_mib for run in runs]),
    ):
        print(
            f"{name:9} median {statistics.median(values):8.1f}   "
            f"min {min(values):8.1f}   max {max(values):8.1f}"
        )
    if options.json:
        options.json.write_text(json.dumps([vars(run) for run in runs], indent=2) + "\n")


if __name__ == "__main__":
    main()
