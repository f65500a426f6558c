"""Latency of several INT8 files of one runtime against each other, in interleaved blocks.

A launch is a fresh process that loads every contestant and lets them take turns, block by block and
in a drawn order, so that whatever the machine does meanwhile hits all of them. Two launches of one
file differ by more than their samples scatter; the interval of a ratio therefore resamples launches
first and blocks within them. It does not know which contestant ought to win.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rivals

from edgenet import runtimes
from edgenet.preprocess import UInt8Array
from edgenet.runtimes import Float32Array

WARM_UP_RUNS = 20
WARM_UP_S = 1.0
DRAWS = 4000


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One INT8 file on the runtime that it is made for."""

    name: str
    runtime: str
    path: Path
    size_bytes: int
    ours: bool
    """Takes the image as bytes; a rival takes it normalised, in float."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """One picture in both forms that contestants take it."""

    image: UInt8Array
    """(1, H, W, 3) RGB."""
    normalised: Float32Array
    """(1, C, H, W)."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is timed."""

    launches: int
    blocks: int
    """In each launch, of each contestant."""
    runs: int
    """In each block."""
    threads: int = 1


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times as long one contestant takes as another, with its 95 % interval."""

    value: float
    low: float
    high: float


Medians = npt.NDArray[np.float64]
"""Median of each block in ms, (launches, blocks, contestants)."""


def open_contestant(contestant: Contestant, *, threads: int) -> Callable[[Picture], Float32Array]:
    """Return a function from a picture to its (1, classes) logits."""
    if contestant.ours:
        session = runtimes.load(contestant.runtime, contestant.path, threads=threads)
        return lambda picture: session.run(picture.image)["logits"]
    run = rivals.load(contestant.runtime, contestant.path, threads=threads)
    return lambda picture: run(picture.normalised)


def measure(contestants: Sequence[Contestant], picture: Picture, plan: Plan) -> Medians:
    """Return the block medians of contestants that share a runtime."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        launches = [
            pool.apply(_launch, (tuple(contestants), picture, plan, seed))
            for seed in range(plan.launches)
        ]
    return np.array(launches)


def ratio(medians: Medians, contestant: int, baseline: int) -> Ratio:
    """Return the median ratio of blocks that ran side by side, and its bootstrap interval."""
    ratios = medians[:, :, contestant] / medians[:, :, baseline]
    launches, blocks = ratios.shape
    rng = np.random.default_rng(0)
    launch = rng.integers(launches, size=(DRAWS, launches, 1))
    block = rng.integers(blocks, size=(DRAWS, launches, blocks))
    drawn = np.median(ratios[launch, block].reshape(DRAWS, -1), axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Ratio(value=float(np.median(ratios)), low=float(low), high=float(high))


def _launch(
    contestants: Sequence[Contestant], picture: Picture, plan: Plan, seed: int
) -> list[list[float]]:
    """Return the median of each block in ms, blocks by contestants, from this process."""
    sessions = [open_contestant(each, threads=plan.threads) for each in contestants]
    for run in sessions:
        _warm_up(run, picture)
    order = np.random.default_rng(seed)
    blocks = []
    for _ in range(plan.blocks):
        medians = [0.0] * len(sessions)
        for index in order.permutation(len(sessions)):
            medians[index] = _block_ms(sessions[index], picture, plan.runs)
        blocks.append(medians)
    return blocks


def _warm_up(run: Callable[[Picture], Float32Array], picture: Picture) -> None:
    started, runs = time.monotonic(), 0
    while runs < WARM_UP_RUNS or time.monotonic() - started < WARM_UP_S:
        run(picture)
        runs += 1


def _block_ms(run: Callable[[Picture], Float32Array], picture: Picture, runs: int) -> float:
    taken_ns = []
    for _ in range(runs):
        started = time.perf_counter_ns()
        run(picture)
        taken_ns.append(time.perf_counter_ns() - started)
    return statistics.median(taken_ns) / 1e6
