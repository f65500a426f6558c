"""How close to the machine's limit: its peaks, and the least time that each layer could take.

A layer cannot be faster than its mult-adds at the best rate that this machine was seen to reach,
nor than its bytes at the best bandwidth: the larger of both is its bound, and the bound over the
time that it took is the fraction reached (the roofline of Williams, Waterman and Patterson 2009).
Rates are the best that any installed runtime reaches on a large product, bandwidth is that of
numpy's copies of arrays of the same size: what stays in a cache is held against the cache.

It knows no kernel: one that needs fewer mult-adds than the plain sum (Winograd's convolution) may
pass its bound, and is then said to, without a fraction.
"""

from __future__ import annotations

import tempfile
import threading
import time
import zipfile
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from edgenet.bundle import LayerWork
from edgenet.errors import EdgenetError
from edgenet.measure.launch import Launch
from edgenet.measure.layers import BETWEEN, LayerTimes
from edgenet.measure.timing import QUICK

ARCHIVE = Path(str(files("edgenet.measure") / "product_networks.zip"))
"""Written by tools/make_product_networks.py."""
CHANNELS = 1024
SIDE = 32
PRODUCT_MULT_ADDS = 2 * SIDE**2 * CHANNELS**2 + SIDE**2 * CHANNELS * 3 + CHANNELS * 8
ENDINGS = {"onnxruntime": ".onnx", "openvino": ".xml", "litert": ".tflite"}
PRECISIONS = ("float32", "int8")
QUICK_SHARE = 5
"""Percentile of a product's runs that the peak is taken from: the machine at its best."""

COPIED_BYTES = tuple(1 << power for power in range(16, 28))
"""Sizes of the arrays that are copied: 64 KiB to 128 MiB."""
COPY_SECONDS = 0.05
"""Of copies at each size, and at least `LEAST_COPIES`."""
LEAST_COPIES = 8

MOST_FRACTION = 1.05
"""A peak that a layer passes by more is wrong, and no fraction of it is told."""
BYTES = {"float32": 4, "float16": 4, "bfloat16": 2, "int8": 1}
"""Of a value where it is computed on; float16 weights are widened on loading."""


def product_file(runtime: str, precision: str) -> str:
    """Return the name of a network's file in the archive."""
    return f"product_{precision}{ENDINGS[runtime]}"


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


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The least time that one layer could take, and how near it came."""

    layer: str
    bound_ms: float
    by: str
    """`compute` or `memory`, whichever is the larger."""
    fraction: float | None
    """Of the bound's speed; None where the bound was passed, so that the peak must be wrong."""


def measure_peaks(threads: int) -> Peaks:
    """Return the peaks with `threads`; takes about 3 s for each installed runtime and precision."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(ARCHIVE) as archive:
            archive.extractall(folder)
        rates = {
            precision: max(found, key=lambda rate: rate.mult_adds_per_second)
            for precision in PRECISIONS
            if (found := list(_rates(Path(folder), precision, threads)))
        }
    return Peaks(threads=threads, rates=rates, bandwidth=tuple(_bandwidths(threads)))


def _rates(folder: Path, precision: str, threads: int) -> Iterator[Rate]:
    images = folder / "images.npy"
    np.save(images, np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), np.uint8))
    for runtime in ENDINGS:
        path = folder / product_file(runtime, precision)
        try:
            with Launch(runtime, path, threads=threads, images=images) as launch:
                launch.open()
                launch.warm_up(QUICK)
                samples = launch.back_to_back(runs=20, seconds=1.0)
        except EdgenetError:
            continue  # not installed, or refused here: no rate comes from it
        best_ns = float(np.percentile(samples, QUICK_SHARE))
        yield Rate(mult_adds_per_second=PRODUCT_MULT_ADDS / best_ns * 1e9, runtime=runtime)


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


def bounds(times: LayerTimes, layers: Sequence[LayerWork], peaks: Peaks) -> tuple[Bound, ...]:
    """Return the bound of every layer that was timed, as it computes here."""
    work = {layer.name: layer for layer in layers}
    weights_bytes = sum(
        work[time.layer].weights * BYTES.get(time.precision, 4)
        for time in times.layers
        if time.layer != BETWEEN
    )
    return tuple(
        _bound(
            work[time.layer],
            time.precision,
            time.duration_ms,
            weights_bytes=weights_bytes,
            peaks=peaks,
        )
        for time in times.layers
        if time.layer != BETWEEN
    )


def _bound(
    layer: LayerWork, precision: str, duration_ms: float, *, weights_bytes: float, peaks: Peaks
) -> Bound:
    value = BYTES.get(precision, 4)
    rate = peaks.rates.get(precision) or peaks.rates["float32"]
    compute = layer.mult_adds / rate.mult_adds_per_second
    values = (layer.read + layer.written) * value
    # Its inputs were just made and lie near; all the weights go by between two runs of a layer.
    memory = peaks.seconds_for_bytes(values, values) + peaks.seconds_for_bytes(
        layer.weights * value, weights_bytes
    )
    bound_ms = 1e3 * max(compute, memory)
    fraction = bound_ms / duration_ms if duration_ms > 0 else float("inf")
    return Bound(
        layer=layer.name,
        bound_ms=bound_ms,
        by="compute" if compute >= memory else "memory",
        fraction=fraction if fraction <= MOST_FRACTION else None,
    )
