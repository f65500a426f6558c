"""What the harness itself adds to a latency, and what others measure of the same file.

    python tools/bench/harness.py BUNDLE [BUNDLE ...] [--rounds 5] [--seconds 3]

- loop: `run` of a session, as `profile` times it, against the runtime's own call in a bare loop;
  the same loaded model in the same process, a few runs of each in turn.
- others: a launch as `profile` makes it against OpenVINO's `benchmark_app` and LiteRT's
  `litert-benchmark`, turn by turn, with the same file, threads, precision and input type.
- floor: the `null` runtime, with and without the sensors being read beside it.

Ratios within one run of this; medians, and beside them the quickest runs: where other work keeps
the cores busy, medians tell of that work, the quickest of the programs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from statistics import median

import numpy as np

from edgenet import runtimes
from edgenet.board.detect import detect
from edgenet.board.machine import Machine
from edgenet.board.sampling import board_sampler
from edgenet.bundle import Artifact, Bundle, Precision
from edgenet.manifest import load_bundle
from edgenet.measure.launch import Launch
from edgenet.measure.profile import null_artifact
from edgenet.measure.timing import QUICK, back_to_back
from edgenet.report.table import render
from edgenet.runtimes import UInt8Array

BLOCK_RUNS = 5
BLOCKS = 150
PRECISIONS = (Precision.FLOAT32, Precision.INT8)
DRAWS = 1000


def bare_loop(runtime: str, session: object, image: UInt8Array) -> Callable[[], object]:
    """Return the call that one would write by hand on the model that `session` has loaded."""
    if runtime == "onnxruntime":
        loaded = session._session  # type: ignore[attr-defined]
        return lambda: loaded.run(None, {"image": image})
    if runtime == "openvino":
        request = session._request  # type: ignore[attr-defined]
        return lambda: request.infer([image], share_inputs=True)
    interpreter = session._interpreter  # type: ignore[attr-defined]
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]

    def run() -> object:
        interpreter.set_tensor(source, image)
        interpreter.invoke()
        return interpreter.get_tensor(target)

    return run


def loop_rows(bundle: Bundle) -> list[tuple[str, ...]]:
    """Return ours against the bare loop for each runtime and precision."""
    return [
        _loop_row(bundle, artifact)
        for runtime in ("onnxruntime", "openvino", "litert")
        for artifact in bundle.select((runtime,), PRECISIONS)
    ]


def _loop_row(bundle: Bundle, artifact: Artifact) -> tuple[str, ...]:
    side = bundle.model.resolution
    image = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    with closing(runtimes.load(artifact.runtime, bundle.path(artifact))) as session:
        ours = lambda: session.run(image)  # noqa: E731
        bare = bare_loop(artifact.runtime, session, image)
        blocks: list[tuple[Sequence[int], Sequence[int]]] = []
        for index in range(BLOCKS + 10):
            pair = (ours, bare) if index % 2 else (bare, ours)
            taken = {run: back_to_back(run, runs=BLOCK_RUNS, seconds=0) for run in pair}
            blocks.append((taken[ours], taken[bare]))
    samples = np.array(blocks[10:], dtype=float) / 1e6  # (blocks, ours and bare, runs)
    value, low, high = _ratio(samples, 50)
    quick, *_ = _ratio(samples, 10)
    mine, theirs = np.percentile(samples, 50, axis=(0, 2))
    return (
        f"{bundle.name} {artifact.label}",
        f"{mine:.4g}",
        f"{theirs:.4g}",
        f"{value:.3f} ({low:.3f} to {high:.3f})",
        f"{quick:.3f}",
    )


def _ratio(samples: np.ndarray, percent: float) -> tuple[float, float, float]:
    """Return the ratio of a percentile of ours to that of the other, with its interval."""

    def ratio(blocks: np.ndarray) -> float:
        mine, theirs = np.percentile(blocks, percent, axis=(0, 2))
        return float(mine / theirs)

    drawn = np.random.default_rng(0).integers(len(samples), size=(DRAWS, len(samples)))
    low, high = np.percentile([ratio(samples[rows]) for rows in drawn], [2.5, 97.5])
    return ratio(samples), float(low), float(high)


Figures = tuple[float, float]
"""Median and quickest run in ms."""


def launched_ms(bundle: Bundle, artifact: Artifact, images: Path, seconds: float) -> Figures:
    """Return what `profile` finds in one launch."""
    path = bundle.path(artifact)
    with Launch(artifact.runtime, path, threads=1, images=images) as launch:
        launch.open()
        launch.warm_up(QUICK)
        samples = launch.back_to_back(runs=50, seconds=seconds)
    return median(samples) / 1e6, min(samples) / 1e6


def benchmark_app_ms(path: Path, folder: Path, seconds: float) -> Figures:
    """Return what OpenVINO's own tool finds."""
    line = [
        "-m",
        path,
        "-d",
        "CPU",
        "-hint",
        "none",
        "-nstreams",
        1,
        "-nthreads",
        1,
        "-api",
        "sync",
    ]
    line += ["-ip", "u8", "-infer_precision", "f32", "-t", max(1, round(seconds)), "-json_stats"]
    line += ["-report_type", "no_counters", "-report_folder", folder]
    _run(["benchmark_app", *line])
    found = json.loads((folder / "benchmark_report.json").read_text())["execution_results"]
    return float(found["latency (ms)"]), float(found["min latency"])


def litert_benchmark_ms(path: Path, folder: Path, seconds: float, *, run_ms: float) -> Figures:
    """Return what LiteRT's own tool finds, over about as many seconds."""
    runs = max(50, round(1000 * seconds / run_ms))
    report = folder / "litert.json"
    line = ["--model", path, "--num_threads", 1, "--num_runs", runs, "--warmup_runs", runs // 4]
    _run(["litert-benchmark", *line, "--result_json", report])
    found = json.loads(report.read_text())["latency"]
    return float(found["median_ms"]), float(found["min_ms"])


def _run(line: Sequence[object]) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        [str(word) for word in line],
        check=True,
        capture_output=True,
        env={**os.environ, "PATH": path},
    )


def other_rows(bundle: Bundle, rounds: int, seconds: float) -> list[tuple[str, ...]]:
    """Return ours against the runtimes' own tools, turn by turn."""
    rows = []
    side = bundle.model.resolution
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = folder / "images.npy"
        np.save(images, np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8))
        for runtime, tool in (("openvino", "benchmark_app"), ("litert", "litert-benchmark")):
            for artifact in bundle.select((runtime,), PRECISIONS):
                path, mine, theirs = bundle.path(artifact), [], []
                for _ in range(rounds):
                    mine.append(launched_ms(bundle, artifact, images, seconds))
                    theirs.append(
                        benchmark_app_ms(path, folder, seconds)
                        if runtime == "openvino"
                        else litert_benchmark_ms(path, folder, seconds, run_ms=mine[-1][0])
                    )
                rows.append(_other_row(f"{bundle.name} {artifact.label}, {tool}", mine, theirs))
    return rows


def _other_row(name: str, mine: Sequence[Figures], theirs: Sequence[Figures]) -> tuple[str, ...]:
    medians = [median(figures[0] for figures in side) for side in (mine, theirs)]
    quickest = [min(figures[1] for figures in side) for side in (mine, theirs)]
    return (
        name,
        *(f"{value:.4g}" for value in medians),
        f"{medians[0] / medians[1]:.3f}",
        *(f"{value:.4g}" for value in quickest),
        f"{quickest[0] / quickest[1]:.3f}",
    )


def floor_rows(bundle: Bundle, rounds: int, seconds: float) -> list[tuple[str, ...]]:
    """Return the null runtime's p50 without and with the sensors read beside it, in turn."""
    machine = Machine()
    target = detect(machine).target
    artifact, side = null_artifact(bundle), bundle.model.resolution
    taken: dict[str, list[float]] = {"alone": [], "with the sensors read": []}
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images.npy"
        np.save(images, np.zeros((1, side, side, 3), np.uint8))
        for _ in range(rounds):
            for name, values in taken.items():
                beside = nullcontext() if name == "alone" else board_sampler(machine, target)
                with beside:
                    values.append(launched_ms(bundle, artifact, images, seconds)[0])
    alone = median(taken["alone"])
    return [
        (name, f"{1000 * median(values):.3f}", f"{median(values) / alone:.3f}")
        for name, values in taken.items()
    ]


def main() -> None:
    """Measure and print three tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    bundles = [load_bundle(path) for path in given.bundles]
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    began = time.monotonic()
    print("\nour run against a bare loop, one process, blocks in turn; ms")
    rows = [row for bundle in bundles for row in loop_rows(bundle)]
    print(render(("", "ours p50", "bare p50", "ratio of p50 (95 %)", "ratio of p10"), rows))
    print(f"\nour launch against others' tools, {given.rounds} turns each; ms")
    rows = [row for each in bundles for row in other_rows(each, given.rounds, given.seconds)]
    headers = ("", "ours p50", "theirs", "ratio", "ours quickest", "theirs", "ratio")
    print(render(headers, rows))
    print("\nnull, p50 in microseconds")
    rows = floor_rows(bundles[0], given.rounds, given.seconds)
    print(render(("", "p50", "ratio"), rows))
    print(f"\nload after: {os.getloadavg()[0]:.1f}; took {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
