"""Ranges: which values of each tensor its 8 bits are to hold.

- minmax: all that the calibration set showed.
- percentile: all but the same share of the largest and the smallest.
- mse: the cut with the least squared error, what it clips and how coarse its steps are together.
- entropy: the cut whose 8-bit histogram tells most about the tensor's own (Migacz, 8-bit inference
  with TensorRT, GTC 2017).

All but the first read a histogram of every tensor, which takes a second look at the images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from edgenet.graph import Graph
from edgenet.preprocess import UInt8Array
from edgenet.quantize.execute import execute
from edgenet.quantize.recipe import Recipe
from edgenet.quantize.simulate import STEPS
from edgenet.quantize.statistics import ChannelStatistics, Float64Array

BINS = 2048
LEAST_SHARE = 0.3
"""The narrowest cut that is tried, in shares of the whole range."""
CUTS = 64
"""How many are tried."""

Range = tuple[float, float]


def find_ranges(
    recipe: Recipe,
    graph: Graph,
    statistics: Mapping[str, ChannelStatistics],
    headroom: Mapping[str, float],
    images: Sequence[UInt8Array],
    *,
    on_image: Callable[[], None] = lambda: None,
) -> dict[str, Range]:
    """Return lowest and highest value of each tensor's 8 bits.

    `headroom` widens the upper end of tensors that need it. `statistics` are those of `graph` over
    `images`, (1, H, W, 3) uint8 RGB.
    """
    whole = {
        name: (float(seen.low.min()), float(seen.high.max())) for name, seen in statistics.items()
    }
    found = whole
    if recipe.ranges != "minmax":
        histograms = _histograms(graph, whole, images, on_image)
        cut = {
            "percentile": lambda histogram, span: _percentile(histogram, span, recipe.percentile),
            "mse": _least_error,
            "entropy": _least_divergence,
        }[recipe.ranges]
        found = {name: cut(histograms[name], span) for name, span in whole.items()}
        # A logit that is cut is a label that is wrong; of other outputs nobody knows.
        found.update({name: whole[name] for name in graph.outputs})
    return {name: (low, high * headroom.get(name, 1.0)) for name, (low, high) in found.items()}


def _histograms(
    graph: Graph,
    spans: Mapping[str, Range],
    images: Sequence[UInt8Array],
    on_image: Callable[[], None],
) -> dict[str, Float64Array]:
    """Return how often values fall into each of `BINS` equal parts of a tensor's span."""
    totals = {name: torch.zeros(BINS, dtype=torch.float64) for name in spans}

    def watch(name: str, x: Tensor) -> None:
        low, high = spans[name]
        if high > low:
            totals[name] += torch.histc(x.float(), BINS, low, high).double()

    for image in images:
        execute(graph, torch.from_numpy(image), watch)
        on_image()
    return {name: total.numpy() for name, total in totals.items()}


def _percentile(histogram: Float64Array, span: Range, percent: float) -> Range:
    total = histogram.sum()
    if not total:
        return span
    tail = (1 - percent / 100) / 2 * total
    edges = np.linspace(*span, BINS + 1)
    below = np.cumsum(histogram)
    first = int(np.searchsorted(below, tail, side="right"))
    last = int(np.searchsorted(below, total - tail, side="left"))
    return float(edges[min(first, BINS - 1)]), float(edges[min(last, BINS - 1) + 1])


def _candidates(span: Range) -> list[Range]:
    """Return cuts of a span, the whole first; its ends keep their share of it."""
    return [(span[0] * share, span[1] * share) for share in np.linspace(1, LEAST_SHARE, CUTS)]


def _centres(span: Range) -> Float64Array:
    edges = np.linspace(*span, BINS + 1)
    centres: Float64Array = (edges[:-1] + edges[1:]) / 2
    return centres


def _least_error(histogram: Float64Array, span: Range) -> Range:
    values = _centres(span)

    def error(cut: Range) -> float:
        beyond = values - values.clip(*cut)
        step = (max(cut[1], 0.0) - min(cut[0], 0.0)) / STEPS
        inside = histogram[beyond == 0].sum() * step**2 / 12
        return float((histogram * beyond**2).sum() + inside)

    return min(_candidates(span), key=error)


def _least_divergence(histogram: Float64Array, span: Range) -> Range:
    values = _centres(span)
    # What is exactly zero after a ReLU is held exactly by any cut and would drown the rest.
    histogram = np.where(np.abs(values) <= (span[1] - span[0]) / BINS, 0.0, histogram)
    total = histogram.sum()
    if not total:
        return span

    def divergence(cut: Range) -> float:
        clipped = values.clip(*cut)
        step = max((max(cut[1], 0.0) - min(cut[0], 0.0)) / STEPS, 1e-30)
        level = np.rint(clipped / step).astype(np.int64)
        level -= level.min()
        inside = values == clipped
        # What lies beyond the cut counts at its ends in the tensor's histogram and nowhere in the
        # 8-bit one: that is what clipping costs.
        reference = histogram * inside
        ends = np.flatnonzero(inside)
        reference[ends[0]] += histogram[: ends[0]].sum()
        reference[ends[-1]] += histogram[ends[-1] + 1 :].sum()
        alive = (histogram > 0) & inside
        mass = np.bincount(level[alive], histogram[alive], minlength=level.max() + 1)
        count = np.bincount(level[alive], minlength=level.max() + 1)
        coarse = np.where(alive, mass[level] / np.maximum(count[level], 1), 0.0)
        p, q = reference / total, coarse / max(coarse.sum(), 1e-30)
        both = p > 0
        return float((p[both] * np.log(p[both] / np.maximum(q[both], 1e-12))).sum())

    return min(_candidates(span), key=divergence)
