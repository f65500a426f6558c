"""One picture of a data set, and the set."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgenet.preprocess import UInt8Array


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A picture that can be read, and the labels that a fair judge accepts for it."""

    name: str
    read: Callable[[], UInt8Array]
    """Returns upright (H, W, 3) uint8 RGB; raises `BadImage`."""
    labels: tuple[str, ...]
    """Class names or indices as written in the data set; empty without labels."""
    origin: str
    """Where the sample was listed, for messages."""
    file: Path | None = None
    """The file of which `read` gives the pixels just as they are stored; None where it is made."""
    reference: npt.NDArray[np.float32] | None = field(default=None, compare=False)
    """The float reference's logits of it, (classes,), where the set brings them for one bundle."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Pictures in a fixed order."""

    name: str
    samples: tuple[Sample, ...]
    classes: int | None = None
    """How many classes its label indices count, where only such a bundle fits it."""

    def draw(self, count: int, *, seed: int) -> Dataset:
        """Return `count` samples chosen by `seed`, in the set's order; all if it has fewer."""
        if count >= len(self.samples):
            return self
        chosen = self.drawn(count, seed=seed)
        return replace(self, samples=tuple(self.samples[index] for index in chosen))

    def drawn(self, count: int, *, seed: int) -> tuple[int, ...]:
        """Return the places in the set of the samples that `draw` would choose."""
        everything = range(len(self.samples))
        few = min(count, len(self.samples))
        return tuple(sorted(random.Random(seed).sample(everything, few)))
