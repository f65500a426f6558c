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


Run = Callable[[UInt8Array], Float32Array]
Medians = npt.NDArray[np.float64]
"""Median of each block in ms, (launches, blocks, contestants)."""


def open_contestant(contestant: Contestant, *, threads: int) -> Run:
    """Return a function from (1, H, W, 3) uint8 RGB to (1, classes) logits.

    Ours and theirs are loaded alike, with the options that edgenet gives their runtime. A rival's
    only output may have another name than ours.
    """
    session = runtimes.load(contestant.runtime, contestant.path, threads=threads)
    return lambda image: next(iter(session.run(image).values()))


def measure(contestants: Sequence[Contestant], image: UInt8Array, plan: Plan) -> Medians:
    """Return the block medians of contestants that share a runtime."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        launches = [
            pool.apply(_launch, (tuple(contestants), image, plan, seed))
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
    contestants: Sequence[Contestant], image: UInt8Array, plan: Plan, seed: int
) -> list[list[float]]:
    """Return the median of each block in ms, blocks by contestants, from this process."""
    sessions = [open_contestant(each, threads=plan.threads) for each in contestants]
    for run in sessions:
        _warm_up(run, image)
    order = np.random.default_rng(seed)
    blocks = []
    for _ in range(plan.blocks):
        medians = [0.0] * len(sessions)
        for index in order.permutation(len(sessions)):
            medians[index] = _block_ms(sessions[index], image, plan.runs)
        blocks.append(medians)
    return blocks


def _warm_up(run: Run, image: UInt8Array) -> None:
    started, runs = time.monotonic(), 0
    while runs < WARM_UP_RUNS or time.monotonic() - started < WARM_UP_S:
        run(image)
        runs += 1


def _block_ms(run: Run, image: UInt8Array, runs: int) -> float:
    taken_ns = []
    for _ in range(runs):
        started = time.perf_counter_ns()
        run(image)
        taken_ns.append(time.perf_counter_ns() - started)
    return statistics.median(taken_ns) / 1e6
