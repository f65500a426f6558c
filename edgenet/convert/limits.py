"""What INT8 may lose: who judges it, before the work whether that can be, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from edgenet.bundle import DECIBEL, POINTS, LimitResult
from edgenet.convert.calibration import (
    FEWEST_TO_HOLD_OUT,
    CalibrationImages,
    Progress,
    labelled_images,
)
from edgenet.convert.source import Source
from edgenet.data.hygiene import check_disjoint
from edgenet.data.labels import accepted_in
from edgenet.data.sample import Dataset
from edgenet.errors import BadData, UsageError
from edgenet.graph import QuantizedGraph
from edgenet.quantize.form import Form, Jury, Limit, jury
from edgenet.quantize.recipe import Recipe
from edgenet.wording import counted

MEASURES_KEPT = 4
"""How many forms' measures are remembered: of those that are made last, one is kept."""


@dataclass(frozen=True, kw_only=True)
class Int8Options:
    """What is asked of the INT8 form."""

    recipe: Recipe
    full_integer: bool = False
    """Nothing in float, for accelerators that have no other arithmetic."""
    min_sqnr_db: float | None = None
    """Least SQNR of the outputs on the held-out quarter of the calibration set."""
    max_drop_points: float | None = None
    """Most points of top-1 accuracy lost on `labelled`."""
    labelled: Dataset | None = None


@dataclass(frozen=True, kw_only=True)
class JudgedLimit(Limit):
    """A limit with whom it is judged by, so that the manifest can tell what came of it."""

    judges: Jury

    def result_of(self, form: Form) -> LimitResult:
        """Return what `form` reached."""
        reached = self.measure(form.quantized)
        # A limit counts up towards the better: points that may be lost are below 0 there.
        sign = 1 if self.unit == DECIBEL else -1
        return LimitResult(
            option=self.name,
            unit=self.unit,
            asked=abs(self.allowed),
            reached=sign * reached + 0.0 if np.isfinite(reached) else None,
            judged_on=self.judges.on,
            images=len(self.judges.images),
        )


def check_labelled(source: Source, int8: Int8Options) -> None:
    """Raise before the work what a limit for accuracy could not be judged by."""
    if int8.max_drop_points is None:
        return
    if not source.graph.is_classifier:
        names = ", ".join(source.graph.outputs.values())
        raise BadData(
            f"{source.name}: is no classifier (its outputs are {names}), and --max-drop needs one; "
            "use --min-sqnr"
        )
    if not source.model.trained:
        raise UsageError(
            "--max-drop: the weights are random, so their accuracy means nothing; use --min-sqnr, "
            "or give trained weights"
        )
    accepted_in(_labelled(int8), source.labels)


def check_held_out(images: CalibrationImages, int8: Int8Options) -> None:
    """Raise before the work that no image was left to judge on."""
    if int8.min_sqnr_db is not None and not images.held_out:
        raise BadData(
            "--min-sqnr judges on a quarter of the calibration set, which has "
            f"{counted(len(images.inputs), 'image')}; give {FEWEST_TO_HOLD_OUT} images or more"
        )


def make_limits(
    source: Source,
    images: CalibrationImages,
    int8: Int8Options,
    judges: Jury,
    progress: Progress,
) -> list[JudgedLimit]:
    """Return the limits; what they measure of a form is remembered, as it is asked repeatedly."""
    limits = []
    if int8.min_sqnr_db is not None:

        @lru_cache(MEASURES_KEPT)
        def sqnr_db(form: QuantizedGraph) -> float:
            return _decibel(judges.agreement(form).sqnr_db)

        limits.append(
            JudgedLimit(
                name="--min-sqnr",
                unit=DECIBEL,
                allowed=int8.min_sqnr_db,
                measure=sqnr_db,
                judges=judges,
            )
        )
    if int8.max_drop_points is not None:
        labelled = _labelled_jury(source, images, int8, progress)

        @lru_cache(MEASURES_KEPT)
        def gain(form: QuantizedGraph) -> float:
            return -labelled.drop(form)

        limits.append(
            JudgedLimit(
                name="--max-drop",
                unit=POINTS,
                allowed=-int8.max_drop_points,
                measure=gain,
                judges=labelled,
            )
        )
    return limits


def _labelled_jury(
    source: Source, images: CalibrationImages, int8: Int8Options, progress: Progress
) -> Jury:
    dataset = _labelled(int8)
    accepted = accepted_in(dataset, source.labels)
    inputs, labels, named = labelled_images(dataset, source, accepted, progress)
    check_disjoint(images.sha256, named)
    return jury(dataset.name, source.graph, inputs, labels)


def _labelled(int8: Int8Options) -> Dataset:
    if int8.labelled is None:
        raise UsageError("--max-drop needs labelled pictures: give --data, or use --min-sqnr")
    return int8.labelled


def _decibel(sqnr_db: float | None) -> float:
    """Return an SQNR as a number: bit-identical outputs have no noise."""
    return float("inf") if sqnr_db is None else sqnr_db
