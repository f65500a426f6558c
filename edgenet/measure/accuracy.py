"""Accuracy: how often the label is right, with an interval that says how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgenet.runtimes import Float32Array

Z_95 = 1.959963984540054
"""Standard normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True, kw_only=True)
class Proportion:
    """Right answers out of `n`, as a percentage with its 95 % Wilson score interval."""

    right: int
    n: int

    @property
    def percent(self) -> float:
        """Return the share of right answers in percent."""
        return 100 * self.right / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % Wilson score interval (Wilson 1927), low and high in percent."""
        share, z2 = self.right / self.n, Z_95**2
        centre = (share + z2 / (2 * self.n)) / (1 + z2 / self.n)
        half = (
            Z_95
            * math.sqrt(share * (1 - share) / self.n + z2 / (4 * self.n**2))
            / (1 + z2 / self.n)
        )
        return 100 * max(centre - half, 0.0), 100 * min(centre + half, 1.0)


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Top-1 and top-5 of one artefact over one data set."""

    top1: Proportion
    top5: Proportion


def top_indices(logits: Float32Array, count: int) -> tuple[int, ...]:
    """Return the indices of the `count` largest of (classes,) logits, largest first.

    Equal logits keep the order of their index, so that the answer does not depend on the machine.
    """
    # In few calls, and only what can be among them is sorted: a camera asks this thirty times a
    # second, after pauses in which the caches were lost to others.
    least = len(logits) - count
    if least > 0:
        candidates = (logits >= np.partition(logits, least)[least]).nonzero()[0].tolist()
        if len(candidates) >= count:  # fewer where some are not numbers
            values = logits[candidates].tolist()
            best = sorted(zip(values, candidates, strict=True), key=lambda pair: -pair[0])
            return tuple(index for _, index in best[:count])
    return tuple(np.argsort(-logits, kind="stable")[:count].tolist())


def score(tops: Sequence[tuple[int, ...]], accepted: Sequence[frozenset[int]]) -> Accuracy:
    """Return the accuracy of predictions (best first) against the labels accepted for each image.

    Raises `ValueError` for an empty set: an accuracy of nothing is not 0.
    """
    if not tops or len(tops) != len(accepted):
        raise ValueError(f"{len(tops)} predictions for {len(accepted)} labelled images")
    pairs = list(zip(tops, accepted, strict=True))
    return Accuracy(
        top1=Proportion(right=sum(top[0] in right for top, right in pairs), n=len(pairs)),
        top5=Proportion(right=sum(bool({*top[:5]} & right) for top, right in pairs), n=len(pairs)),
    )
