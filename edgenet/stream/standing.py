"""How an artefact's answers stand against the float reference's, as sums that grow frame by frame.

The sums do not grow with the run: a camera runs for weeks.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from edgenet.measure.accuracy import Proportion, top_indices
from edgenet.runtimes import Float32Array

TOP = 5


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What is known of the frames that both have answered."""

    frames: int = 0
    same: int = 0
    """Frames with the same best class."""
    shared: int = 0
    """Classes that are among the five best of both, added up over the frames."""
    signal: float = 0.0
    noise: float = 0.0
    """Squares of the reference's logits, and of the differences from them, added up."""
    labelled: int = 0
    """Frames of which it is known what is right; the rest is of these alone."""
    labelled_same: int = 0
    right: int = 0
    reference_right: int = 0
    classes_shown: int = TOP
    """How many of the best are held against each other: five where there are so many."""

    @property
    def top1(self) -> Proportion | None:
        """Return on how many frames both have the same best class; None without frames."""
        return Proportion(right=self.same, n=self.frames) if self.frames else None

    @property
    def top5_overlap(self) -> float | None:
        """Return the mean share of the reference's five best that are among the artefact's."""
        return self.shared / (self.classes_shown * self.frames) if self.frames else None

    @property
    def sqnr_db(self) -> float | None:
        """Return signal to quantisation noise of all logits; None where no bit differs."""
        if not self.noise or not self.signal:
            return None
        return 10 * math.log10(self.signal / self.noise)

    @property
    def reference_accuracy(self) -> Proportion | None:
        """Return the accuracy of the reference on labelled frames; None without any."""
        return Proportion(right=self.reference_right, n=self.labelled) if self.labelled else None

    @property
    def accuracy(self) -> Proportion | None:
        """Return the accuracy of the artefact on the same frames; None without any."""
        return Proportion(right=self.right, n=self.labelled) if self.labelled else None

    @property
    def bound(self) -> tuple[float, float] | None:
        """Return between which percentages the artefact's accuracy must lie, by agreement alone.

        Where both give the same class, both are right or both are wrong: with an agreement a it is
        no further than 1 - a from the reference's. None where that is not known.
        """
        if not self.labelled:
            return None
        share, apart = self.reference_right / self.labelled, 1 - self.labelled_same / self.labelled
        return 100 * max(share - apart, 0.0), 100 * min(share + apart, 1.0)

    def with_frame(
        self,
        logits: Float32Array,
        reference: Float32Array,
        accepted: Collection[int] | None,
    ) -> Standing:
        """Return it with one more frame, of (classes,) logits each and, if known, what is right."""
        count = min(TOP, len(logits))
        ours, theirs = top_indices(logits, count), top_indices(reference, count)
        same = ours[0] == theirs[0]
        wide = reference.astype(np.float64)
        grown = replace(
            self,
            frames=self.frames + 1,
            same=self.same + same,
            shared=self.shared + len(set(ours) & set(theirs)),
            signal=self.signal + float((wide**2).sum()),
            noise=self.noise + float(((logits - wide) ** 2).sum()),
            classes_shown=count,
        )
        if accepted is None:
            return grown
        return replace(
            grown,
            labelled=self.labelled + 1,
            labelled_same=self.labelled_same + same,
            right=self.right + (ours[0] in accepted),
            reference_right=self.reference_right + (theirs[0] in accepted),
        )
