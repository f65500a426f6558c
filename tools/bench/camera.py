"""What the camera's own code costs, and whether it runs for long without growing.

    python tools/bench/camera.py cost BUNDLE [--seconds 20]
    python tools/bench/camera.py soak [--minutes 10] [--settle 60]
    python tools/bench/camera.py shadow BUNDLE [--blocks 10] [--seconds 8] [--threads 1]

- cost: 640 x 480 at 30 frames a second, for each float32 and INT8 artefact. Own is from the
  decoded frame in the slot to its label, less the inference: waiting, preprocessing, the best
  class. Targets for the ImageNet network 1.0-224: at most 15 % of the inference in float32, 0.6 ms
  in INT8.
- soak: the command as a user runs it, with page and events, on a camera of tests/stand_ins that
  stalls, freezes, dies and comes back. Memory may grow by 5 MB after `--settle` seconds; threads
  and descriptors must be at the end what they were then; every fault must be in the record.
- shadow: how much longer a frame takes, from the slot to its label, with `--shadow` than without:
  runs of each in turn, the ratio of their p50 and p95 with its interval over the pairs. All frames
  first, then without those beside which the shadow worked, as the record has it.

Medians and percentiles of one run each; the exit code is 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from edgenet.board.detect import detect
from edgenet.board.machine import Machine
from edgenet.bundle import Artifact, Bundle, Precision
from edgenet.errors import EdgenetError
from edgenet.manifest import load_bundle
from edgenet.measure.statistics import paired_ratio
from edgenet.report.table import render
from edgenet.stream.drift import Measure
from edgenet.stream.loading import Loaded, in_order
from edgenet.stream.reader import Fault, Opened
from edgenet.stream.result import Result
from edgenet.stream.run import LiveRun
from edgenet.stream.shadow import Sampling
from edgenet.stream.truth import Running
from edgenet.stream.watch import Plan, watch

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "tests" / "stand_ins" / "mjpeg_server.py"
SOURCE = "synthetic://?size=640x480&fps=30"
FLOAT_SHARE, INT8_MS = 0.15, 0.6
GROWTH_BYTES = 5_000_000
LAST_S = 5
WANTED_FAULTS = ("stall", "reconnected", "frozen", "thawed", "lost")


class Kept:
    """Keeps each result's times; the frames themselves are let go."""

    def __init__(self) -> None:
        self.own_ns: list[int] = []
        self.infer_ns: list[int] = []
        self.parts_ns: list[tuple[int, int, int]] = []

    def begun(self, loaded: Loaded, source: Opened) -> None:
        """Nothing to do."""

    def failed(self, fault: Fault) -> None:
        """Tell it: there should be none."""
        print(fault.message, file=sys.stderr)

    def alarmed(self, measure: Measure) -> None:
        """Nothing to do: a synthetic picture is like no photograph."""

    def went_on(self, live: LiveRun, result: Result | None, running: Running | None) -> None:  # noqa: ARG002
        """Keep the times."""
        if result is None:
            return
        stages = result.stages
        spent = result.labelled_ns - result.frame.arrived_ns
        own = spent - stages.infer_ns
        self.own_ns.append(own)
        self.infer_ns.append(stages.infer_ns)
        rest = own - stages.wait_ns - stages.preprocess_ns
        self.parts_ns.append((stages.wait_ns, stages.preprocess_ns, rest))


def cost(bundle: Bundle, seconds: float) -> bool:
    """Print what the pipeline takes with each artefact; return whether every target is met."""
    target, rows, met = detect(Machine()).target, [], True
    for artifact in bundle.artifacts:
        if artifact.precision is Precision.FLOAT16 or artifact.variant:
            continue
        kept = Kept()
        plan = Plan(source=SOURCE, preprocessing=bundle.preprocessing, seconds=seconds)
        try:
            watch(bundle, [artifact], plan, target=target, stopped=lambda: False, told=kept)
        except EdgenetError as error:
            print(f"{artifact.label}: {error}", file=sys.stderr)
            continue
        row, good = _cost_row(artifact, kept)
        rows.append(row)
        met = met and good
    print(
        render(
            (
                *("artefact", "n", "infer p50 ms", "own p50", "own p95", "of infer"),
                *("slot p50", "preprocess p50", "label p50", "target"),
            ),
            rows,
        )
    )
    return met


def _cost_row(artifact: Artifact, kept: Kept) -> tuple[tuple[str, ...], bool]:
    own, infer = (np.asarray(samples) / 1e6 for samples in (kept.own_ns, kept.infer_ns))
    parts = np.median(np.asarray(kept.parts_ns), axis=0) / 1e6
    own_ms, infer_ms = float(np.median(own)), float(np.median(infer))
    if artifact.precision is Precision.INT8:
        good, wanted = own_ms <= INT8_MS, f"<= {INT8_MS} ms"
    else:
        good, wanted = own_ms <= FLOAT_SHARE * infer_ms, f"<= {FLOAT_SHARE:.0%}"
    figures = (infer_ms, own_ms, float(np.percentile(own, 95)))
    return (
        artifact.label,
        str(len(own)),
        *(f"{value:.3f}" for value in figures),
        f"{own_ms / infer_ms:.1%}",
        *(f"{value:.3f}" for value in parts),
        f"{wanted}: {'met' if good else 'MISSED'}",
    ), good


def shadow(bundle: Bundle, *, blocks: int, seconds: float, threads: int, share: float) -> None:
    """Print by how much a shadow moves the percentiles of the run that it is beside."""
    target = detect(Machine()).target
    artifacts = in_order(bundle.artifacts, target)[:1]
    taken: dict[bool, list[tuple[np.ndarray, np.ndarray]]] = {False: [], True: []}
    sampled = beside = 0
    for block in range(blocks):
        for with_it in (False, True) if block % 2 else (True, False):
            kept = Kept()
            plan = Plan(
                source=SOURCE,
                preprocessing=bundle.preprocessing,
                seconds=seconds,
                threads=threads,
                shadow=Sampling(share=share) if with_it else None,
            )
            run = watch(bundle, artifacts, plan, target=target, stopped=lambda: False, told=kept)
            everything = (np.asarray(kept.own_ns) + np.asarray(kept.infer_ns)) / 1e6
            stages = (run.samples_ns[stage] for stage in ("wait", "preprocess", "inference"))
            taken[with_it].append((everything, np.sum(list(stages), axis=0) / 1e6))
            if run.shadow is not None:
                sampled += run.shadow.standing.frames
                beside += len(run.beside_ns.get("inference", ()))
    label, frames = artifacts[0].label, sum(len(found) for found, _ in taken[True])
    print(f"{label}, {threads} threads; {frames} frames, {sampled} sampled, {beside} beside it")
    rows = []
    for which, name in enumerate(("all frames", "not beside the shadow")):
        for percent in (50, 95):
            base, new = (
                [float(np.percentile(block[which], percent)) for block in taken[side]]
                for side in (False, True)
            )
            ratio = paired_ratio([after / before for before, after in zip(base, new, strict=True)])
            rows.append(
                (
                    f"{name}, p{percent}",
                    *(f"{median(values):.3f}" for values in (base, new)),
                    f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})",
                )
            )
    print(render(("slot to label", "without ms", "with ms", "ratio (95 %)"), rows))


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large a process was at one moment."""

    at_s: float
    rss_bytes: int
    threads: int
    descriptors: int


def size_of(pid: int, at_s: float) -> Size:
    """Return how large a process is now."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return Size(
        at_s=at_s,
        rss_bytes=1024 * int(status["VmRSS"].split()[0]),
        threads=int(status["Threads"]),
        descriptors=sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
    )


def soak(minutes: float, settle_s: float) -> bool:
    """Run the command on a camera that fails; print and return whether every target is met."""
    seconds = 60 * minutes
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record.json"
        server = subprocess.Popen(
            [sys.executable, SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert server.stdin is not None
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        camera = subprocess.Popen(
            [
                *(sys.executable, "-m", "edgenet", "camera", "--source", url),
                *("--view", "127.0.0.1:0", "--events", f"{folder}/events", "-o", str(record)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def say(command: str) -> None:
            assert server.stdin is not None
            server.stdin.write(f"{command}\n")
            server.stdin.flush()

        try:
            sizes = _watch_it(camera, say, seconds)
            camera.send_signal(signal.SIGINT)
            code = camera.wait(30)
        finally:
            for process in (camera, server):
                process.kill()
                process.wait()
        found = json.loads(record.read_text())
    return _judge(sizes, found, code, settle_s)


def _watch_it(
    camera: subprocess.Popen[bytes], say: Callable[[str], None], seconds: float
) -> list[Size]:
    script = [
        (0.40, "stall"),
        (0.40 + 4 / seconds, "go_on"),
        (0.55, "freeze"),
        (0.55 + 5 / seconds, "go_on"),
        (0.70, "die"),
        (0.70 + 3 / seconds, "come_back"),
    ]
    started, sizes = time.monotonic(), []
    while (at_s := time.monotonic() - started) < seconds:
        if script and at_s >= script[0][0] * seconds:
            say(script.pop(0)[1])
        if camera.poll() is not None:
            raise SystemExit(f"the camera ended by itself with {camera.returncode}")
        sizes.append(size_of(camera.pid, at_s))
        time.sleep(0.5)
    return sizes


def _judge(sizes: Sequence[Size], document: dict, code: int, settle_s: float) -> bool:
    end_s = sizes[-1].at_s
    settled = [size for size in sizes if settle_s <= size.at_s < settle_s + LAST_S]
    last = [size for size in sizes if size.at_s >= end_s - LAST_S]
    (record,) = document["records"]
    faults = [fault["kind"] for fault in record["camera"]["faults"]]
    counts = record["camera"]["counts"]
    middle = {
        name: tuple(median(getattr(size, name) for size in part) for part in (settled, last))
        for name in ("rss_bytes", "threads", "descriptors")
    }
    growth = middle["rss_bytes"][1] - middle["rss_bytes"][0]
    ages = record["latency"]["frame_to_label_ms"]
    checks = [
        ("growth of memory, MB", f"{growth / 1e6:+.2f}", growth <= GROWTH_BYTES),
        *(
            (name, "{:g} -> {:g}".format(*middle[name]), middle[name][0] == middle[name][1])
            for name in ("threads", "descriptors")
        ),
        ("faults", ", ".join(faults), set(WANTED_FAULTS) <= set(faults)),
        ("exit code", str(code), code == 0),
        ("frames", f"{record['camera']['labelled']} labelled, {counts['dropped']} dropped", True),
        ("frame to label, ms", f"p50 {ages['p50']:.2f}, max {ages['max']:.1f}", True),
    ]
    print(
        render(
            ("", f"after {settle_s:g} s -> at {end_s:.0f} s", ""),
            [(name, value, "met" if good else "MISSED") for name, value, good in checks],
        )
    )
    return all(good for _, _, good in checks)


def main() -> int:
    """Run what is asked for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    costs = commands.add_parser("cost")
    costs.add_argument("bundle", type=Path)
    costs.add_argument("--seconds", type=float, default=20.0)
    soaks = commands.add_parser("soak")
    soaks.add_argument("--minutes", type=float, default=10.0)
    soaks.add_argument("--settle", type=float, default=60.0)
    shadows = commands.add_parser("shadow")
    shadows.add_argument("bundle", type=Path)
    shadows.add_argument("--blocks", type=int, default=10)
    shadows.add_argument("--seconds", type=float, default=8.0)
    shadows.add_argument("--threads", type=int, default=1)
    shadows.add_argument("--share", type=float, default=0.1)
    given = parser.parse_args()
    if given.command == "shadow":
        settings = {
            name: getattr(given, name) for name in ("blocks", "seconds", "threads", "share")
        }
        shadow(load_bundle(given.bundle), **settings)
        return 0
    if given.command == "cost":
        return int(not cost(load_bundle(given.bundle), given.seconds))
    return int(not soak(given.minutes, given.settle))


if __name__ == "__main__":
    sys.exit(main())
