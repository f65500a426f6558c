"""Calibration hygiene: is a calibration set fit to take INT8 ranges from, and kept apart?

`inspect_calibration` describes the set and warns; `check_count` and `check_disjoint` refuse. The
thresholds stay silent on the embedded photographs, Fashion-MNIST and plain cut-outs. Knows nothing
of networks: what the reference answers and which ranges it shows are handed in. Needs numpy only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgenet.data.sample import Sample
from edgenet.errors import BadData
from edgenet.preprocess import UInt8Array
from edgenet.wording import counted

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

FEWEST = 8
"""Images below which nothing is calibrated unless `--samples` asks for it."""
FEW = 64
"""Images below which a warning is given."""
LARGEST_SHARE = 0.5
"""Of the images in one class, before a warning."""
LARGEST_MEAN = 1.2
"""Of a channel's normalised mean, either way; plain sets lie within 1."""
DEVIATIONS = (0.2, 1.6)
"""Between which a channel's normalised deviation lies; plain sets lie in 0.36 ... 1.5."""
SURER = 3.0
"""Standard errors by which the reference must be surer of exchanged channels before a warning. On
photographs in the right order it is 7 less sure."""
LARGEST_SHIFT = 0.5
"""Of a tensor's range between two halves; 128 plain pictures show 0.35 at most."""


class ChannelRanges(Protocol):
    """What a tensor showed, channel by channel: edgenet.quantize.statistics.ChannelStatistics."""

    @property
    def low(self) -> Float64Array:
        """Return the lowest values, (channels,)."""

    @property
    def high(self) -> Float64Array:
        """Return the highest values, (channels,)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What the trained float reference says of the calibration images, (images, classes) each."""

    logits: Float32Array
    exchanged: Float32Array
    """The logits of the same images with red and blue exchanged."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How a calibration set is spread over classes."""

    classes: int
    largest_share: float
    """Of the images in the class that has most."""
    known_from: str
    """The set's own labels and sub-folders, or the reference's answers."""


@dataclass(frozen=True, kw_only=True)
class RangeShift:
    """The tensor whose range moves most between the two halves of a set."""

    tensor: str
    share: float
    """Of the range over both halves: how far its lower or upper end moves."""


@dataclass(frozen=True, kw_only=True)
class Hygiene:
    """A calibration set in figures, and what is doubtful about it."""

    images: int
    duplicates: int
    """Images whose pixels an earlier one has already."""
    spread: Spread | None
    """None where neither labels nor a trained reference tell."""
    channel_mean: tuple[float, ...]
    """Of the normalised inputs: red, green, blue."""
    channel_deviation: tuple[float, ...]
    exchanged_surer: float | None
    """By how many standard errors the reference is surer of red and blue exchanged; None where it
    was not asked or cannot tell (grey pictures)."""
    range_shift: RangeShift | None
    """None where the ranges of the two halves were not taken."""
    warnings: tuple[str, ...]
    """One line each."""


def inspect_calibration(
    images: Sequence[UInt8Array],
    hashes: Sequence[str],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    classes: Sequence[str] | None = None,
    answers: Answers | None = None,
    halves: tuple[Mapping[str, ChannelRanges], Mapping[str, ChannelRanges]] | None = None,
) -> Hygiene:
    """Return figures and warnings for a calibration set.

    `images` are what the network sees, (1, R, R, 3) uint8 RGB, `hashes` the sha256 of each decoded
    picture; `mean` and `std`, in byte steps, what the network's normalisation expects. `classes`
    names each image's class where the set tells (`classes_of`). `halves` are the ranges over every
    second image and over the others.
    """
    channel_mean, channel_deviation = _channels(images, mean, std)
    surer = _exchanged_surer(answers) if answers else None
    spread = _spread(classes, answers)
    shift = _range_shift(*halves) if halves else None
    duplicates = len(hashes) - len(set(hashes))
    warnings = (
        _few(len(images)),
        f"{duplicates} of {len(hashes)} calibration images {_are(duplicates, 'duplicate')}; leave "
        "out what is there twice"
        if duplicates
        else None,
        _one_sided(spread, answers),
        _unlike_pictures(channel_mean, channel_deviation),
        _exchanged(surer),
        _unsteady(shift),
    )
    return Hygiene(
        images=len(images),
        duplicates=duplicates,
        spread=spread,
        channel_mean=channel_mean,
        channel_deviation=channel_deviation,
        exchanged_surer=surer,
        range_shift=shift,
        warnings=tuple(warning for warning in warnings if warning),
    )


def check_count(count: int, *, asked: int | None, name: str) -> None:
    """Refuse a set of too few images; `asked` is what `--samples` says, None where it is not given.

    Raises `BadData` below 8 images, unless fewer were asked for on purpose and are there.
    """
    fewest = FEWEST if asked is None else min(FEWEST, asked)
    if count < fewest:
        raise BadData(
            f"{name}: {counted(count, 'calibration image')} {'is' if count == 1 else 'are'} too "
            f"few for INT8 ranges; give at least {FEWEST} (better {FEW} or more), or say "
            f"--samples {max(count, 1)} to mean it"
        )


def check_disjoint(calibration: Sequence[str], evaluation: Sequence[tuple[str, str]]) -> None:
    """Refuse to judge on what was calibrated on.

    `calibration` are sha256 of decoded pixels; `evaluation` has a name and such a hash for each
    picture. Raises `BadData` saying how many they share and naming the first.
    """
    seen = set(calibration)
    shared = [name for name, sha256 in evaluation if sha256 in seen]
    if shared:
        raise BadData(
            f"{len(shared)} of {len(evaluation)} evaluation images "
            f"{_are(len(shared), 'calibration image')} of this bundle too, the first is "
            f"{shared[0]}; take what is in both out of one of the two sets"
        )


def classes_of(samples: Sequence[Sample]) -> tuple[str, ...] | None:
    """Return each sample's class as the set tells it, by label or by sub-folder, else None."""
    if samples and all(sample.labels for sample in samples):
        return tuple(sample.labels[0] for sample in samples)
    folders = tuple(sample.name.rpartition("/")[0] for sample in samples)
    if all(folders) and len(set(folders)) > 1:
        return folders
    return None


def _channels(
    images: Sequence[UInt8Array], mean: Sequence[float], std: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation of each normalised channel over all pixels of all images."""
    count = sum(image.size // 3 for image in images)
    levels = np.arange(256)
    found_mean, found_deviation = [], []
    for channel in range(3):
        histogram = sum(np.bincount(image[..., channel].ravel(), minlength=256) for image in images)
        average = float((histogram * levels).sum()) / count
        variance = float((histogram * (levels - average) ** 2).sum()) / count
        found_mean.append((average - mean[channel]) / std[channel])
        found_deviation.append(math.sqrt(variance) / std[channel])
    return tuple(found_mean), tuple(found_deviation)


def _exchanged_surer(answers: Answers) -> float | None:
    """Return the paired t of how far the best logit stands out, exchanged against as given."""
    given, exchanged = (
        logits.astype(np.float64).max(axis=1) - logits.astype(np.float64).mean(axis=1)
        for logits in (answers.logits, answers.exchanged)
    )
    difference = exchanged - given
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference)) if len(given) > 1 else 0.0
    return float(difference.mean()) / error if error else None


def _spread(classes: Sequence[str] | None, answers: Answers | None) -> Spread | None:
    counts: Counter[str]
    if classes is not None:
        counts, source = Counter(classes), "its labels or sub-folders"
    elif answers is not None:
        counts = Counter(map(str, answers.logits.argmax(axis=1)))
        source = "the reference's answers"
    else:
        return None
    return Spread(
        classes=len(counts),
        largest_share=max(counts.values()) / counts.total(),
        known_from=source,
    )


def _range_shift(
    first: Mapping[str, ChannelRanges], second: Mapping[str, ChannelRanges]
) -> RangeShift:
    def share(name: str) -> float:
        lows = [float(half[name].low.min()) for half in (first, second)]
        highs = [float(half[name].high.max()) for half in (first, second)]
        width = max(highs) - min(lows)
        moved = max(abs(lows[0] - lows[1]), abs(highs[0] - highs[1]))
        return moved / width if width else 0.0

    worst = max(first, key=share)
    return RangeShift(tensor=worst, share=share(worst))


def _few(count: int) -> str | None:
    if count >= FEW:
        return None
    return f"only {counted(count, 'calibration image')}; {FEW} or more give ranges that hold"


def _one_sided(spread: Spread | None, answers: Answers | None) -> str | None:
    two_classes = answers is not None and answers.logits.shape[1] <= 2
    if spread is None or two_classes or spread.largest_share <= LARGEST_SHARE:
        return None
    return (
        f"{100 * spread.largest_share:.0f} % of the calibration images are of one class (by "
        f"{spread.known_from}); add pictures of the others"
    )


def _unlike_pictures(mean: Sequence[float], deviation: Sequence[float]) -> str | None:
    low, high = DEVIATIONS
    if all(abs(value) <= LARGEST_MEAN for value in mean) and all(
        low <= value <= high for value in deviation
    ):
        return None
    return (
        f"calibration images have normalised channel means {_numbers(mean)} and deviations "
        f"{_numbers(deviation)}, pictures lie within {LARGEST_MEAN:g} and {low:g} to {high:g}; "
        "are they normalised already, or the mean and deviation another network's?"
    )


def _exchanged(surer: float | None) -> str | None:
    if surer is None or surer <= SURER:
        return None
    return (
        f"the reference is surer of the calibration images with red and blue exchanged (by "
        f"{surer:.1f} standard errors); were they stored as BGR?"
    )


def _unsteady(shift: RangeShift | None) -> str | None:
    if shift is None or shift.share <= LARGEST_SHIFT:
        return None
    return (
        f"the range of {shift.tensor} moves by {100 * shift.share:.0f} % between the two halves of "
        "the calibration set; give more pictures, or more varied ones"
    )


def _are(count: int, noun: str) -> str:
    """Return "is a duplicate", "are duplicates"."""
    return f"is a {noun}" if count == 1 else f"are {noun}s"


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.2f}" for value in values)
