"""How often the label of a live stream is right, and whether a late stream is seen to be late.

    python tools/bench/live.py accuracy BUNDLE [--bitrate 2000] [--size 640x480] [--limit N]
    python tools/bench/live.py delay BUNDLE [--ms 300] [--pairs 8] [--seconds 6]

- accuracy: the labelled photographs in H.264 over RTSP, once for each float32 and INT8 artefact,
  with what `edgenet camera --truth` runs. Beside it the same pictures fed directly, and as they are
  shown but without a codec. Differences are over the same pictures, with Tango's intervals.
- delay: `edgenet camera --truth` on a playlist, by turns directly and through a proxy that holds
  back what the server sends. Draw to label must rise by the delay, within 20 ms; the inference must
  stay as it is; the record must say that frame to label, which begins at the arrival, tells nothing
  of it, and that figure must not move. Student's t intervals over pairs of runs. The last two are
  judged by the quickest tenth of a run: where other work keeps the cores busy, medians tell of it.

The exit code is 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from statistics import mean, median, stdev
from urllib.parse import urlsplit, urlunsplit

import cv2
import numpy as np

from edgenet import runtimes
from edgenet.board.detect import detect
from edgenet.board.machine import Machine
from edgenet.bundle import Artifact, Bundle, Precision
from edgenet.data.dataset import open_dataset
from edgenet.manifest import load_bundle
from edgenet.measure.accuracy import Proportion, top_indices
from edgenet.measure.statistics import PairedDifference, paired_ratio, student_t
from edgenet.report.table import render
from edgenet.stream.loading import Loaded
from edgenet.stream.marker import Canvas, Layout
from edgenet.stream.pipeline import network_input
from edgenet.stream.playlist import playlist_of
from edgenet.stream.reader import Fault, Opened
from edgenet.stream.result import Result
from edgenet.stream.run import LiveRun
from edgenet.stream.truth import Running, Truth, TruthReport
from edgenet.stream.watch import LiveTruth, Plan, watch

EDGENET = (sys.executable, "-m", "edgenet")
PROXY = Path(__file__).parents[2] / "tests/stand_ins/delaying_proxy.py"
DATA = "photographs"
DELAY_TARGET_MS = 20.0
UNMOVED_MS = 3.0
"""Of frame to label: a hundredth of the delay."""
UNMOVED_INFERENCE = 0.1
"""As a share; other work on the machine scatters medians of a few seconds by half as much."""


class Quiet:
    """Tells nothing but what goes wrong."""

    def begun(self, loaded: Loaded, source: Opened) -> None:
        """Nothing to tell."""

    def went_on(self, live: LiveRun, result: Result | None, running: Running | None) -> None:
        """Nothing to tell."""

    def failed(self, fault: Fault) -> None:
        """Tell it: there should be none."""
        print(fault.message, file=sys.stderr)


@contextmanager
def playlist(*options: str) -> Iterator[str]:
    """Serve the photographs in a process of its own; give the URL."""
    process = subprocess.Popen(
        [*EDGENET, "playlist", DATA, "--listen", "127.0.0.1:0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def accuracy(bundle: Bundle, options: argparse.Namespace) -> bool:
    """Print the figures of every artefact; return whether each was measured on every picture."""
    width, height = map(int, options.size.split("x"))
    layout = Layout(width=width, height=height)
    shown = ["--serve", "rtsp", "--bitrate", str(options.bitrate), "--size", options.size]
    shown += ["--seconds", str(options.seconds)]
    if options.limit:
        shown += ["--limit", str(options.limit)]
    rows, counts, whole = [], [], True
    for artifact in bundle.artifacts:
        if artifact.precision is Precision.FLOAT16 or artifact.variant:
            continue
        with playlist(*shown) as url:
            report = _live(bundle, artifact, url)
        rows.append(_accuracy_row(bundle, artifact, layout, report))
        counts.append((artifact.label, report))
        expected = options.limit or report.pictures_in_playlist
        whole = whole and len(report.pictures) == expected
    print(
        f"{DATA}, H.264 at {options.bitrate} kbit/s over RTSP, {options.size}, 30/s, "
        f"{options.seconds:g} s each; {platform.machine()}, OpenCV {cv2.__version__}"
    )
    head = ("artefact", "n", "live top-1 % (95 %)", "directly", "no codec")
    print(render((*head, "camera, points", "of it codec", "quantisation"), rows))
    for label, report in counts:
        frames, latency = report.frames, report.draw_to_label
        print(
            f"{label}: {frames.total} frames, {frames.scored} scored, {frames.guarded} next to a "
            f"change, {frames.unlabelled} unlabelled; draw to label "
            + ("-" if latency is None or latency.p50 is None else f"p50 {latency.p50:.0f} ms")
        )
    return whole


def _live(bundle: Bundle, artifact: Artifact, url: str) -> TruthReport:
    truth = LiveTruth(Truth(playlist_of(open_dataset(DATA, labelled=True)), bundle))
    plan = Plan(source=url, preprocessing=bundle.preprocessing, truth=truth)
    target = detect(Machine()).target
    run = watch(bundle, [artifact], plan, target=target, stopped=lambda: False, told=Quiet())
    if run.failure is not None:
        raise run.failure
    assert run.truth is not None
    return run.truth


def _accuracy_row(
    bundle: Bundle, artifact: Artifact, layout: Layout, report: TruthReport
) -> tuple[str, ...]:
    assert report.losses is not None
    live = [picture.top[0] in picture.accepted for picture in report.pictures]
    clean = _without_codec(bundle, artifact, layout, report)
    assert report.live is not None
    assert report.direct is not None
    quantisation = report.losses.quantisation
    return (
        artifact.label,
        str(len(live)),
        _percent(report.live.top1),
        f"{report.direct.top1.percent:.2f}",
        f"{Proportion(right=sum(clean), n=len(clean)).percent:.2f}",
        _points(report.losses.camera),
        _points(_difference(live, clean)),
        "-" if quantisation is None else _points(quantisation),
    )


def _without_codec(
    bundle: Bundle, artifact: Artifact, layout: Layout, report: TruthReport
) -> list[bool]:
    """Return whether the best class of each picture is right when it is only shown."""
    samples = open_dataset(DATA, labelled=True).samples
    canvas, right = Canvas(layout), []
    with closing(runtimes.load(artifact.runtime, bundle.path(artifact))) as session:
        for picture in report.pictures:
            pixels = samples[picture.sample_id].read()
            frame, _, _ = canvas.lay(pixels)
            width, height = layout.fit(pixels.shape[1], pixels.shape[0])
            x, y = (layout.width - width) // 2, (layout.height - height) // 2
            image = network_input(frame[y : y + height, x : x + width], bundle.preprocessing)
            right.append(top_indices(session.run(image)["logits"][0], 1)[0] in picture.accepted)
    return right


def _difference(new: Sequence[bool], base: Sequence[bool]) -> PairedDifference:
    pairs = list(zip(new, base, strict=True))
    return PairedDifference(
        n=len(pairs),
        lost=sum(before and not after for after, before in pairs),
        gained=sum(after and not before for after, before in pairs),
    )


def _percent(found: Proportion) -> str:
    low, high = found.interval
    return f"{found.percent:.2f} ({low:.1f} to {high:.1f})"


def _points(found: PairedDifference) -> str:
    low, high = found.interval
    return f"{found.points + 0.0:+.2f} ({low:+.2f} to {high:+.2f}), -{found.lost} +{found.gained}"


@contextmanager
def delayed(url: str, delay_ms: float) -> Iterator[str]:
    """Give the URL of the same stream behind a proxy that delays it."""
    address = urlsplit(url)
    process = subprocess.Popen(
        [sys.executable, PROXY, str(address.port), "--ms", str(delay_ms)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        port = process.stdout.readline().strip()
        yield urlunsplit(address._replace(netloc=f"127.0.0.1:{port}"))
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def camera_record(bundle: Path, url: str, seconds: float) -> dict:
    """Return the record of one run of the command."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                *(*EDGENET, "camera", str(bundle), "--source", url, "--truth", DATA, "--json"),
                *("--duration", str(seconds), "-o", f"{folder}/record.json"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(done.stderr)
    record: dict = json.loads(done.stdout)["records"][0]
    return record


def delay(bundle: Path, options: argparse.Namespace) -> bool:
    """Print what a delayed stream shows; return whether every target is met."""
    records: Records = {"directly": [], "delayed": []}
    with (
        playlist("--serve", options.serve, "--loop", "--seconds", "0.4") as url,
        delayed(url, options.ms) as late,
    ):
        # The first client sees two seconds without a picture; it is none of the pairs.
        camera_record(bundle, url, options.seconds)
        for pair in range(options.pairs):
            sides = [("directly", url), ("delayed", late)]
            for side, where in sides if pair % 2 else sides[::-1]:
                records[side].append(camera_record(bundle, where, options.seconds))
    (begins,) = {
        record["latency"]["frame_to_label_ms"]["begins"]
        for side in records.values()
        for record in side
    }
    rows = [
        _rise("draw to label p50, ms", records, _drawn_p50, (options.ms, DELAY_TARGET_MS)),
        _rise("frame to label p50, ms", records, partial(_stage, "frame_to_label", 50)),
        _rise("  quickest tenth", records, partial(_stage, "frame_to_label", 10), (0, UNMOVED_MS)),
        _rise("inference p50, ms", records, partial(_stage, "inference", 50)),
        _ratio("  quickest tenth", records, partial(_stage, "inference", 10)),
    ]
    print(
        f"{options.serve}, {options.pairs} pairs of runs of {options.seconds:g} s; "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    head = ("", "directly", f"delayed by {options.ms:g} ms", "rise (95 %)", "target")
    print(render(head, rows))
    print(f"the record says of frame to label: begins at {begins}")
    return not any("MISSED" in row[-1] for row in rows) and "not known" in begins


Records = dict[str, list[dict]]
Figure = Callable[[dict], float]
"""Of one run's record."""


def _rise(
    name: str, records: Records, figure: Figure, target: tuple[float, float] | None = None
) -> tuple[str, ...]:
    """Return the row of a figure, and of its rise over the pairs; the target is value and slack."""
    sides = [[figure(record) for record in side] for side in records.values()]
    rises = [after - before for before, after in zip(*sides, strict=True)]
    half = student_t(len(rises) - 1) * stdev(rises) / math.sqrt(len(rises))
    low, high = mean(rises) - half, mean(rises) + half
    judged = ""
    if target is not None:
        wanted, slack = target
        good = wanted - slack <= low and high <= wanted + slack
        judged = f"{wanted:+g} +- {slack:g}: {'met' if good else 'MISSED'}"
    medians = (f"{median(side):.2f}" for side in sides)
    return name, *medians, f"{mean(rises):+.2f} ({low:+.2f} to {high:+.2f})", judged


def _ratio(name: str, records: Records, figure: Figure) -> tuple[str, ...]:
    """Return the row of a figure that must stay, and of its ratio over the pairs."""
    sides = [[figure(record) for record in side] for side in records.values()]
    found = paired_ratio([after / before for before, after in zip(*sides, strict=True)])
    good = found.low >= 1 - UNMOVED_INFERENCE and found.high <= 1 + UNMOVED_INFERENCE
    return (
        name,
        *(f"{median(side):.2f}" for side in sides),
        f"x {found.value:.3f} ({found.low:.3f} to {found.high:.3f})",
        f"x 1 +- {UNMOVED_INFERENCE:g}: {'met' if good else 'MISSED'}",
    )


def _drawn_p50(record: dict) -> float:
    return float(record["truth"]["draw_to_label_ms"]["p50"])


def _stage(stage: str, percent: float, record: dict) -> float:
    return float(np.percentile(record["samples_ns"][stage], percent)) / 1e6


def main() -> int:
    """Run what is asked for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    right = commands.add_parser("accuracy")
    right.add_argument("bundle", type=Path)
    right.add_argument("--bitrate", type=int, default=2000)
    right.add_argument("--size", default="640x480")
    right.add_argument("--seconds", type=float, default=0.4)
    right.add_argument("--limit", type=int)
    late = commands.add_parser("delay")
    late.add_argument("bundle", type=Path)
    late.add_argument("--ms", type=float, default=300.0)
    late.add_argument("--serve", choices=("mjpeg", "rtsp"), default="mjpeg")
    late.add_argument("--pairs", type=int, default=8)
    late.add_argument("--seconds", type=float, default=6.0)
    given = parser.parse_args()
    if given.command == "accuracy":
        return int(not accuracy(load_bundle(given.bundle), given))
    return int(not delay(given.bundle, given))


if __name__ == "__main__":
    sys.exit(main())
