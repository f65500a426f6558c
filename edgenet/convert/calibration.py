"""The calibration images of a conversion: drawn, read, looked over, a quarter of them held out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from edgenet.bundle import CalibrationIdentity, combined_sha256
from edgenet.convert.source import Source
from edgenet.data.hygiene import Answers, check_count, classes_of, inspect_calibration
from edgenet.data.sample import Dataset, Sample
from edgenet.errors import BadData, BadImage
from edgenet.preprocess import UInt8Array, pixels_sha256, prepare
from edgenet.quantize import execute
from edgenet.quantize.statistics import ChannelStatistics

SAMPLES = 128
"""Images drawn where nobody says how many."""
HELD_OUT = 4
"""One image in so many is kept from the calibration, to judge what came of it."""
FEWEST_TO_HOLD_OUT = 8
ASKED = 32
"""Images that the reference is asked about: for hygiene and to choose golden pictures."""


class Progress(Protocol):
    """Where the work says how far it is, and what is doubtful."""

    def step(self, description: str, *, total: int = 1) -> Callable[[], None]:
        """Begin a step of `total` parts; the function returned marks one as done."""

    def warn(self, message: str) -> None:
        """Show a message that does not stop the conversion."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Which images to take the INT8 numbers from."""

    dataset: Dataset
    samples: int | None
    """How many were asked for; None for as many as usual."""
    seed: int


@dataclass(frozen=True, kw_only=True, eq=False)
class CalibrationImages:
    """The images that were drawn and could be read."""

    samples: tuple[Sample, ...]
    inputs: tuple[UInt8Array, ...]
    """What the network sees of each, (1, H, W, 3) uint8 RGB."""
    sha256: tuple[str, ...]
    """Of each picture as decoded."""

    @property
    def held_out(self) -> tuple[UInt8Array, ...]:
        """Return every fourth image, none of a handful."""
        return self.inputs[HELD_OUT - 1 :: HELD_OUT] if self._enough else ()

    @property
    def calibrating(self) -> tuple[UInt8Array, ...]:
        """Return the others."""
        if not self._enough:
            return self.inputs
        return tuple(x for i, x in enumerate(self.inputs) if i % HELD_OUT != HELD_OUT - 1)

    @property
    def _enough(self) -> bool:
        return len(self.inputs) >= FEWEST_TO_HOLD_OUT

    def asked(self) -> tuple[int, ...]:
        """Return which images the reference is asked about, from all over the set."""
        return _spread(range(len(self.inputs)))

    def not_calibrated_on(self) -> tuple[int, ...]:
        """Return as many that were held out, so that INT8 may be judged on them; else `asked`."""
        if not self._enough:
            return self.asked()
        return _spread(range(HELD_OUT - 1, len(self.inputs), HELD_OUT))


def _spread(indices: Sequence[int]) -> tuple[int, ...]:
    """Return `ASKED` of them from all over, or all."""
    count = min(ASKED, len(indices))
    return tuple(indices[place * len(indices) // count] for place in range(count))


def read_images(
    calibration: Calibration, source: Source, progress: Progress, *, strict: bool
) -> CalibrationImages:
    """Read the images that were drawn; one that is no picture is left out with a warning.

    With `strict` the set must be large enough to calibrate on.
    """
    dataset = calibration.dataset
    drawn = dataset.draw(calibration.samples or SAMPLES, seed=calibration.seed)
    done = progress.step("read calibration images", total=len(drawn.samples))
    samples, inputs, hashes = [], [], []
    for sample in drawn.samples:
        try:
            picture = sample.read()
            inputs.append(prepare(picture, source.preprocessing))
        except BadImage as error:
            progress.warn(f"left out of the calibration: {error}")
            continue
        finally:
            done()
        samples.append(sample)
        hashes.append(pixels_sha256(picture))
    if not inputs:
        raise BadData(f"{dataset.name}: no calibration image can be read")
    if strict:
        check_count(len(inputs), asked=calibration.samples, name=dataset.name)
    return CalibrationImages(samples=tuple(samples), inputs=tuple(inputs), sha256=tuple(hashes))


def look_over(
    images: CalibrationImages,
    source: Source,
    halves: tuple[Mapping[str, ChannelStatistics], Mapping[str, ChannelStatistics]],
    progress: Progress,
) -> dict[str, Any]:
    """Return the set's figures for `quantization.json`, after warning of what is doubtful."""
    done = progress.step("look the calibration set over")
    asked = [images.inputs[index] for index in images.asked()]
    answers = (
        Answers(
            logits=execute.answers(source.graph, asked),
            exchanged=execute.answers(
                source.graph, [np.ascontiguousarray(image[..., ::-1]) for image in asked]
            ),
        )
        if source.model.trained and source.graph.is_classifier
        else None
    )
    hygiene = inspect_calibration(
        images.inputs,
        images.sha256,
        mean=source.mean,
        std=source.std,
        classes=classes_of(images.samples),
        answers=answers,
        halves=halves,
    )
    done()
    for warning in hygiene.warnings:
        progress.warn(warning)
    return {**asdict(hygiene), "held_out": len(images.held_out)}


def identity(
    calibration: Calibration, images: CalibrationImages, method: str
) -> CalibrationIdentity:
    """Return how the manifest names the set."""
    return CalibrationIdentity(
        name=calibration.dataset.name,
        count=len(images.inputs),
        seed=calibration.seed,
        sha256=combined_sha256(images.sha256),
        method=method,
        images=images.sha256,
    )


def labelled_images(
    dataset: Dataset, source: Source, accepted: Sequence[frozenset[int]], progress: Progress
) -> tuple[list[UInt8Array], list[frozenset[int]], list[tuple[str, str]]]:
    """Return a labelled set as the network sees it, its labels, and each name with its sha256."""
    done = progress.step("read labelled images", total=len(dataset.samples))
    inputs, labels, named = [], [], []
    for sample, right in zip(dataset.samples, accepted, strict=True):
        try:
            picture = sample.read()
            inputs.append(prepare(picture, source.preprocessing))
        except BadImage as error:
            progress.warn(f"left out: {error}")
            continue
        finally:
            done()
        labels.append(right)
        named.append((sample.name, pixels_sha256(picture)))
    if not inputs:
        raise BadData(f"{dataset.name}: none of its files is a picture")
    return inputs, labels, named
