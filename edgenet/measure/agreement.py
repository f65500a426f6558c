"""Agreement: how close an artefact's answers are to the reference's on the same images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgenet.measure.accuracy import Proportion
from edgenet.runtimes import Float32Array


@dataclass(frozen=True, kw_only=True)
class Closeness:
    """One artefact's values against the reference's."""

    sqnr_db: float | None
    """Signal to quantisation noise of all values, in dB; None when they are bit-identical."""
    cosine: float | None
    """Between both, over all values; None where one is nothing but zeros."""
    max_difference: float
    """Largest absolute difference of a value."""
    rms_difference: float
    """Root of the mean squared difference of the values."""


@dataclass(frozen=True, kw_only=True)
class Agreement(Closeness):
    """One classifier's logits against the reference's."""

    top1: Proportion
    """Images on which both have the same best class; no labels are needed for it."""


def agreement(logits: Float32Array, reference: Float32Array) -> Agreement:
    """Return how (n, classes) logits agree with the reference's of the same shape."""
    found = closeness(logits, reference)
    same = logits.argmax(axis=1) == reference.argmax(axis=1)
    return Agreement(**vars(found), top1=Proportion(right=int(same.sum()), n=len(same)))


def closeness(found: Float32Array, reference: Float32Array) -> Closeness:
    """Return how close (n, values) are to the reference's of the same shape."""
    if found.shape != reference.shape or not len(found):
        raise ValueError(f"logits {found.shape} against reference {reference.shape}")
    ours, theirs = found.astype(np.float64), reference.astype(np.float64)
    difference = ours - theirs
    noise, signal = float((difference**2).sum()), float((theirs**2).sum())
    lengths = math.sqrt(float((ours**2).sum()) * signal)
    return Closeness(
        sqnr_db=10 * math.log10(signal / noise) if noise and signal else None,
        cosine=float((ours * theirs).sum()) / lengths if lengths else None,
        max_difference=float(np.abs(difference).max()),
        rms_difference=math.sqrt(noise / difference.size),
    )
