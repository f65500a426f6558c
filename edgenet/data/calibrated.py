"""The pictures that a bundle was calibrated on, where they come with edgenet. Runs on boards.

A bundle holds only their hashes: those of a user's own set stay where it was converted.
"""

from __future__ import annotations

from collections.abc import Callable

from edgenet.bundle import CalibrationIdentity, combined_sha256
from edgenet.data import fashion_mnist, photographs
from edgenet.data.sample import Dataset
from edgenet.errors import BadImage, MissingData
from edgenet.preprocess import UInt8Array, pixels_sha256

BUILT_IN: tuple[Callable[[], Dataset], ...] = (
    photographs.calibration_set,
    fashion_mnist.calibration_set,
)


def calibration_pictures(identity: CalibrationIdentity) -> tuple[UInt8Array, ...]:
    """Return the very pictures that `identity` names, each (H, W, 3) uint8 RGB.

    Raises `MissingData` where they are not in this edgenet.
    """
    drawn = next(
        (
            dataset.draw(identity.count, seed=identity.seed)
            for dataset in (open_set() for open_set in BUILT_IN)
            if dataset.name == identity.name
        ),
        None,
    )
    if drawn is None:
        raise MissingData(
            f"the calibration set ({identity.name}) is not on this machine: only edgenet's own is"
        )
    try:
        pictures = tuple(sample.read() for sample in drawn.samples)
    except BadImage as error:
        raise MissingData(f"the calibration set ({identity.name}) is not whole: {error}") from None
    if combined_sha256([pixels_sha256(picture) for picture in pictures]) != identity.sha256:
        raise MissingData(
            f"the calibration set ({identity.name}) is another one in this edgenet, or decodes to "
            "other pixels here"
        )
    return pictures
