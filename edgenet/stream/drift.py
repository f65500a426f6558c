"""Drift: whether a stream still looks like what the network was calibrated on.

A camera shows one scene for hours, and any one scene is narrower than a calibration set. So the
mean over the newest frames is held against single calibration pictures: it is an alarm when it lies
outside of the central 98 % of these. That finds a dark lens, a blurred one and a network that has
become unsure; what is foreign but as bright and as sharp goes unseen.
Needs numpy and OpenCV.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from edgenet.preprocess import UInt8Array
from edgenet.runtimes import Float32Array
from edgenet.wording import counted

CENTRAL = (1, 99)
"""Percentiles of single calibration pictures that are still usual. With the ImageNet network and
edgenet's photographs one calibration picture of eleven alone would give an alarm, and any of them
would that is blurred by two pixels or has a quarter of its light."""
FEWEST = 30
"""Frames, or calibration pictures, below which nothing is said."""
EACH_CLASS = 5
"""Pictures that a class must have on average before a histogram of classes says anything."""
ROUNDING = 1e-9
"""The mean of equal values is not always the value."""
MOST_CHANGED = 0.5
"""Of the histograms' distance: half of all frames would have to be of other classes. Chance alone
makes a quarter of it, at `EACH_CLASS` pictures of each class on either side."""
CONFIDENCE, BRIGHTNESS, SHARPNESS, CLASSES = "confidence", "brightness", "sharpness", "classes"
UNTRAINED = "the weights are random"


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one input is like, and the answer to it."""

    confidence: float
    """The largest softmax."""
    brightness: float
    """Mean of the grey levels, 0 to 255."""
    sharpness: float
    """Variance of the Laplacian of the grey levels."""
    best: int
    """The best class."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One property of the newest frames against the calibration set."""

    name: str
    value: float | None
    """The mean over the newest frames; of `classes` the distance of the histograms: the share of
    frames that would have to be of other classes. None where there is nothing to say it of."""
    calibration: float | None
    """The mean over the calibration pictures; None of `classes`, and where they are not known."""
    usual: tuple[float, float] | None
    """Outside of it is an alarm; None where there can be no alarm."""
    grown: int | None = None
    """Of `classes`: the class whose share has grown most."""
    reason: str | None = None
    """Why there can be no alarm."""

    @property
    def alarm(self) -> bool:
        """Tell whether it is out of the usual."""
        if self.value is None or self.usual is None:
            return False
        slack = ROUNDING * max(map(abs, self.usual))
        return not self.usual[0] - slack <= self.value <= self.usual[1] + slack


def look_at(image: UInt8Array, logits: Float32Array) -> Look:
    """Return what an input, (1, H, W, 3) uint8 RGB, is like, and its (classes,) logits."""
    grey = cv2.cvtColor(image[0], cv2.COLOR_RGB2GRAY)
    best = int(logits.argmax())
    weights = np.exp(logits.astype(np.float64) - logits[best])
    return Look(
        confidence=float(1 / weights.sum()),
        brightness=float(grey.mean()),
        sharpness=float(cv2.Laplacian(grey, cv2.CV_64F).var()),
        best=best,
    )


def drift(
    newest: Sequence[Look],
    calibration: Sequence[Look],
    *,
    classes: int,
    missing: str | None = None,
    trained: bool = True,
) -> tuple[Measure, ...]:
    """Return each measure of the newest frames; `missing` is why there are no calibration pictures.

    What a network with random weights says of a picture means nothing, so that its confidence and
    classes give no alarm.
    """
    if missing is None and len(calibration) < FEWEST:
        missing = f"{counted(len(calibration), 'calibration picture')} known, it takes {FEWEST}"
    found = []
    for name in (CONFIDENCE, BRIGHTNESS, SHARPNESS):
        reason = UNTRAINED if name == CONFIDENCE and not trained else missing
        found.append(_of_values(name, newest, calibration, reason))
    found.append(_of_classes(newest, calibration, classes, missing if trained else UNTRAINED))
    return tuple(found)


def _of_values(
    name: str, newest: Sequence[Look], calibration: Sequence[Look], missing: str | None
) -> Measure:
    values = [float(getattr(look, name)) for look in newest]
    theirs = [float(getattr(look, name)) for look in calibration]
    reason = missing or _too_few(len(values), FEWEST)
    low, high = np.percentile(theirs, CENTRAL) if theirs else (0.0, 0.0)
    return Measure(
        name=name,
        value=float(np.mean(values)) if values else None,
        calibration=float(np.mean(theirs)) if theirs else None,
        usual=None if reason else (float(low), float(high)),
        reason=reason,
    )


def _of_classes(
    newest: Sequence[Look], calibration: Sequence[Look], classes: int, missing: str | None
) -> Measure:
    wanted = max(FEWEST, EACH_CLASS * classes)
    reason = missing or (
        f"{len(calibration)} calibration pictures do not tell how often each of {classes} classes "
        "comes"
        if len(calibration) < wanted
        else _too_few(len(newest), wanted)
    )
    if not newest or not calibration:
        return Measure(name=CLASSES, value=None, calibration=None, usual=None, reason=reason)
    shares, theirs = (
        np.bincount([look.best for look in looks], minlength=classes) / len(looks)
        for looks in (newest, calibration)
    )
    return Measure(
        name=CLASSES,
        value=float(np.abs(shares - theirs).sum() / 2),
        calibration=None,
        usual=None if reason else (0.0, MOST_CHANGED),
        grown=int((shares - theirs).argmax()),
        reason=reason,
    )


def _too_few(there: int, wanted: int) -> str | None:
    return f"{counted(there, 'frame')} so far, it takes {wanted}" if there < wanted else None
