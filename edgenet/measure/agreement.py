"""Agreement: how close an artefact's logits are to the reference's on the same images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgenet.measure.accuracy import Proportion
from edgenet.runtimes import Float32Array


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """One artefact against the reference."""

    top1: Proportion
    """Images on which both have the same best class; no labels are needed for it."""
    sqnr_db: float | None
    """Signal to quantisation noise of all logits, in dB; None when they are bit-identical."""
    max_difference: float
    """Largest absolute difference of a logit."""
    rms_difference: float
    """Root of the mean squared difference of the logits."""


def agreement(logits: Float32Array, reference: Float32Array) -> Agreement:
    """Return how (n, classes) logits agree with the reference's of the same shape."""
    if logits.shape != reference.shape or not len(logits):
        raise ValueError(f"logits {logits.shape} against reference {reference.shape}")
    difference = logits.astype(np.float64) - reference
    noise = float((difference**2).sum())
    signal = float((reference.astype(np.float64) ** 2).sum())
    same = logits.argmax(axis=1) == reference.argmax(axis=1)
    return Agreement(
        top1=Proportion(right=int(same.sum()), n=len(same)),
        sqnr_db=10 * math.log10(signal / noise) if noise and signal else None,
        max_difference=float(np.abs(difference).max()),
        rms_difference=math.sqrt(noise / difference.size),
    )
