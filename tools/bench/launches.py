"""Does `edgenet profile NEW --against BASE` say what is so, beside a neighbour that comes and goes?

A hundred comparisons of a bundle with a copy of itself, which differ in nothing, and a hundred with
a network that has one layer more, of about a tenth of its work. Each is the command as a user gives
it. Meanwhile a neighbour multiplies matrices and rests, for times drawn about a second.

    python tools/bench/launches.py --json launches.json          hours: 100 + 100
    python tools/bench/launches.py --comparisons 3 --launches 5  minutes: for CI

Ctrl-C ends it with the table so far. The exit code is 1 when more than one in twenty, and more than
one, came out wrong. `own` decides, p50 and p95 are as a clock on the wall has them; the last column
is the share of time that the processes waited, for the neighbour or whatever else ran.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import networks
import numpy as np
import torch
from int8 import machine_line
from torch import nn

from edgenet.measure.statistics import Verdict
from edgenet.report.comparison import FIGURES
from edgenet.report.table import render

SIDE, CHANNELS, LAYERS = 64, 48, 10
SAME, PLANTED = "same", "one layer more"
RIGHT = {SAME: Verdict.NO_DIFFERENCE, PLANTED: Verdict.SLOWER}
BUNDLES = {SAME: "copy", PLANTED: "planted"}
VERDICTS = (Verdict.NO_DIFFERENCE, Verdict.SLOWER, Verdict.FASTER, Verdict.CANNOT_TELL)
WRONG_SHARE = 0.05
MEAN_SECONDS = 1.0
"""For which the neighbour works, and rests."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one comparison said of one figure of latency."""

    what: str
    figure: str
    """own, p50 or p95."""
    verdict: Verdict
    ratio: float
    low: float
    high: float
    waited: float | None
    """Share of the time, in the middle launch."""

    @property
    def half_width(self) -> float:
        """Return half the interval's width, as a share."""
        return (self.high - self.low) / 2

    @property
    def in_words(self) -> str:
        """Return it as a line of progress."""
        return (
            f"{self.what}: {self.verdict.value} {self.ratio:.3f} ({self.low:.3f}-{self.high:.3f})"
        )


def network(layers: int) -> nn.Module:
    """Return convolutions of equal cost behind a stem, and a head; seeded random weights."""
    torch.manual_seed(0)
    body = [nn.Conv2d(3, CHANNELS, 3, 2, 1), nn.ReLU()]
    for _ in range(layers):
        body += [nn.Conv2d(CHANNELS, CHANNELS, 3, 1, 1), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 10))


def make_bundles(folder: Path) -> None:
    """Write the bundles base, copy and planted."""
    for name, layers in (("base", LAYERS), ("planted", LAYERS + 1)):
        file = folder / f"{name}.onnx"
        networks.export_module(network(layers).eval(), file, resolution=SIDE)
        _edgenet(
            *("convert", str(file), "--precision", "float32", "-o", str(folder / name)),
            *("--mean", "123.675,116.28,103.53", "--std", "58.395,57.12,57.375"),
        )
    shutil.copytree(folder / "base", folder / "copy")


@contextmanager
def neighbour(seed: int) -> Iterator[None]:
    """Keep a process beside us that works and rests at random."""
    process = multiprocessing.get_context("spawn").Process(
        target=_come_and_go, args=(seed,), daemon=True
    )
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _come_and_go(seed: int) -> None:
    draw = random.Random(seed)
    matrix = np.random.default_rng(seed).random((256, 256))
    parent = os.getppid()
    while os.getppid() == parent:  # whatever becomes of it, nobody is left with a neighbour
        until = time.monotonic() + draw.expovariate(1 / MEAN_SECONDS)
        while time.monotonic() < until:
            matrix @ matrix
        time.sleep(draw.expovariate(1 / MEAN_SECONDS))


def compare(folder: Path, what: str, *, runtime: str, launches: int) -> list[Finding]:
    """Return what one comparison of a bundle with base said, the deciding figure first."""
    record = folder / "comparison.json"
    _edgenet(
        *("profile", str(folder / BUNDLES[what]), "--against", str(folder / "base")),
        *("--runtime", runtime, "--launches", str(launches), "-o", str(record)),
    )
    (pair,) = json.loads(record.read_bytes())["pairs"]
    waits = [launch["waited"] for launch in pair["launches"] if launch["waited"] is not None]
    return [
        Finding(
            what=what,
            figure=change["percentile"],
            verdict=Verdict(change["verdict"]),
            ratio=change["ratio"]["value"],
            low=change["ratio"]["low"],
            high=change["ratio"]["high"],
            waited=median(waits) if waits else None,
        )
        for change in pair["latency"]
    ]


def _edgenet(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgenet", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"failed: edgenet {' '.join(arguments)}\n{done.stderr}")


def table(findings: Sequence[Finding]) -> str:
    """Return how often each verdict was given, and what ratios and intervals were found."""
    groups = {
        (figure, what): [f for f in findings if (f.figure, f.what) == (figure, what)]
        for figure in FIGURES
        for what in RIGHT
    }
    return render(
        (
            *("figure", "NEW is", "n", *(verdict.value for verdict in VERDICTS)),
            *("ratio: least", "middle", "most", "+- % middle", "most", "waited %"),
        ),
        [
            (figure, what, str(len(found)), *_counts(found), *_spread(found))
            for (figure, what), found in groups.items()
            if found
        ],
    )


def _counts(found: Sequence[Finding]) -> tuple[str, ...]:
    counts = Counter(finding.verdict for finding in found)
    return tuple(str(counts[verdict]) for verdict in VERDICTS)


def _spread(found: Sequence[Finding]) -> tuple[str, ...]:
    ratios = sorted(finding.ratio for finding in found)
    widths = [100 * finding.half_width for finding in found]
    waits = [100 * finding.waited for finding in found if finding.waited is not None]
    return (
        *(f"{value:.3f}" for value in (ratios[0], median(ratios), ratios[-1])),
        *(f"{value:.1f}" for value in (median(widths), max(widths))),
        f"{median(waits):.0f}" if waits else "-",
    )


def too_many_wrong(findings: Sequence[Finding]) -> bool:
    """Tell whether the deciding figure was wrong more often than may be; a single time it may."""
    known = [figure for figure in FIGURES if any(f.figure == figure for f in findings)]
    for what, right in RIGHT.items():
        verdicts = [f.verdict for f in findings if (f.figure, f.what) == (known[0], what)]
        wrong = len(verdicts) - verdicts.count(right)
        if wrong > max(1, WRONG_SHARE * len(verdicts)):
            return True
    return False


def main() -> None:
    """Compare, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--comparisons", type=int, default=100, metavar="N", help="of each kind")
    parser.add_argument("--launches", type=int, default=7, metavar="N", help="in each")
    parser.add_argument("--runtime", default="onnxruntime", metavar="NAME")
    parser.add_argument("--seed", type=int, default=0, help="of the neighbour")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the findings here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{machine_line()}, Python {platform.python_version()}", flush=True)
    findings: list[Finding] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name, neighbour(options.seed):
        folder = Path(name)
        make_bundles(folder)
        try:
            for number in range(options.comparisons):
                for what in RIGHT:
                    found = compare(
                        folder, what, runtime=options.runtime, launches=options.launches
                    )
                    findings += found
                    print(f"{number + 1} {found[0].in_words}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
    minutes = (time.monotonic() - started) / 60
    print(f"{options.runtime}, {options.launches} launches, {minutes:.0f} minutes\n")
    print(table(findings))
    print(f"load at the end {os.getloadavg()[0]:.2f}")
    if options.json:
        text = json.dumps([asdict(finding) for finding in findings], indent=2)
        options.json.write_text(text + "\n", "utf-8")
    if too_many_wrong(findings):
        raise SystemExit("more came out wrong than may by chance")


if __name__ == "__main__":
    main()
