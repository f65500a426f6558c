"""This machine's peaks: the best rates of multiply-adds, and of moving memory.

Rates are the best that any installed runtime reaches on a product of a few milliseconds, so short
that some of its runs go by undisturbed also on a machine that others use. There are two shapes, as
not every kernel likes the same, and the runtimes take turns. Bandwidth is that of numpy's copies of
arrays of many sizes: what stays in a cache is held against the cache.
"""

from __future__ import annotations

import tempfile
import threading
import time
import zipfile
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import files
from itertools import product
from pathlib import Path

import numpy as np

from edgenet.errors import RuntimeRefused
from edgenet.measure.launch import Launch

ARCHIVE = Path(str(files("edgenet.measure") / "product_networks.zip"))
"""Written by tools/make_product_networks.py."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """A network that is little but one kind of product."""

    name: str
    side: int
    """Of its input, in pixels."""
    mult_adds: int

    def file(self, runtime: str, precision: str) -> str:
        """Return the name of an artefact in the archive."""
        return f"{self.name}_{precision}{ENDINGS[runtime]}"


PRODUCTS = (
    Product(name="pointwise", side=14, mult_adds=205_826_048),
    Product(name="square", side=28, mult_adds=231_513_088),
)
ENDINGS = {"onnxruntime": ".onnx", "openvino": ".xml", "litert": ".tflite"}
PRECISIONS = ("float32", "int8")
TRIES = 2
"""Of each product, with all others between."""
LEAST_RUNS = 5
TRY_SECONDS = 0.1

COPIED_BYTES = tuple(1 << power for power in range(16, 27))
"""Sizes of the arrays that are copied: 64 KiB to 64 MiB."""
COPY_SECONDS = 0.05
"""Of copies at each size, and at least `LEAST_COPIES`."""
LEAST_COPIES = 8


@dataclass(frozen=True, kw_only=True)
class Rate:
    """The best rate of multiply-adds in one precision."""

    mult_adds_per_second: float
    runtime: str
    """Which reached it."""


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """What this machine was seen to reach with a number of threads."""

    threads: int
    rates: Mapping[str, Rate]
    """By precision; one that no installed runtime computes in is missing."""
    bandwidth: tuple[tuple[int, float], ...]
    """Bytes in work and bytes a second, read and written, in rising order of the former."""

    def seconds_for_bytes(self, moved: float, working_set: float) -> float:
        """Return the least time for bytes that lie within so many."""
        sizes = [size for size, _ in self.bandwidth]
        place = min(bisect_left(sizes, working_set), len(sizes) - 1)
        return moved / self.bandwidth[place][1]

    def or_better(self, other: Peaks) -> Peaks:
        """Return the best of both, which were measured with as many threads."""
        return Peaks(
            threads=self.threads,
            rates={
                precision: max(
                    (peaks.rates[precision] for peaks in (self, other) if precision in peaks.rates),
                    key=lambda rate: rate.mult_adds_per_second,
                )
                for precision in PRECISIONS
                if precision in {*self.rates, *other.rates}
            },
            bandwidth=tuple(
                (size, max(mine, theirs))
                for (size, mine), (_, theirs) in zip(self.bandwidth, other.bandwidth, strict=True)
            ),
        )


def measure_peaks(threads: int) -> Peaks:
    """Return the peaks with `threads`; takes about 2 s for each installed runtime."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(ARCHIVE) as archive:
            archive.extractall(folder)
        found = list(_rates(Path(folder), threads))
    # Of those with one key the last counts: the fastest.
    best = dict(sorted(found, key=lambda entry: entry[1].mult_adds_per_second))
    return Peaks(threads=threads, rates=best, bandwidth=tuple(_bandwidths(threads)))


def _rates(folder: Path, threads: int) -> Iterator[tuple[str, Rate]]:
    """Yield the rate of each try that succeeds, with its precision."""
    images = {each: folder / f"{each.name}.npy" for each in PRODUCTS}
    for each, path in images.items():
        noise = np.random.default_rng(0).integers(0, 256, (1, each.side, each.side, 3), np.uint8)
        np.save(path, noise)
    with ExitStack() as stack:
        launches = {
            runtime: stack.enter_context(
                Launch(runtime, folder, threads=threads, images=images[PRODUCTS[0]])
            )
            for runtime in ENDINGS
        }
        for _, each, precision in product(range(TRIES), PRODUCTS, PRECISIONS):
            for runtime, launch in launches.items():
                try:
                    launch.exchange(folder / each.file(runtime, precision), images[each])
                    samples_ns = launch.back_to_back(runs=LEAST_RUNS, seconds=TRY_SECONDS)
                except RuntimeRefused:
                    continue  # not installed, or refused here: no rate comes from it
                if launch.interrupted:
                    raise KeyboardInterrupt
                rate = each.mult_adds / min(samples_ns) * 1e9
                yield precision, Rate(mult_adds_per_second=rate, runtime=runtime)


def _bandwidths(threads: int) -> Iterator[tuple[int, float]]:
    """Yield bytes in work and bytes a second; a larger array is never credited with more."""
    fastest = [(2 * size, _copy_rate(size, threads)) for size in COPIED_BYTES]
    for index, (size, _) in enumerate(fastest):
        yield size, max(rate for _, rate in fastest[index:])


def _copy_rate(size: int, threads: int) -> float:
    """Return bytes read and written a second while `threads` copy `size` bytes between them."""
    each = size // threads
    # Both are written once: a page that is touched for the first time costs more than its copy.
    pairs = [(np.ones(each, np.uint8), np.ones(each, np.uint8)) for _ in range(threads)]
    rates = [0.0] * threads

    def copy(index: int) -> None:
        source, target = pairs[index]
        until = time.perf_counter() + COPY_SECONDS
        taken: list[float] = []
        while (began := time.perf_counter()) < until or len(taken) < LEAST_COPIES:
            np.copyto(target, source)
            taken.append(time.perf_counter() - began)
        rates[index] = 2 * each / min(taken)

    workers = [threading.Thread(target=copy, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(rates)
