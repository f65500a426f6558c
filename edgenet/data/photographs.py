"""Photographs: the labelled evaluation set, and the embedded calibration set.

The labelled ones are cut-outs from Debian's `tuxpaint-stamps-default`. Their licence (GPL) keeps
them out of this project: they are read where the package puts them and laid on a neutral backdrop.
"""

from __future__ import annotations

import csv
from functools import cache, partial
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np

from edgenet.data.sample import Dataset, Sample
from edgenet.errors import BadImage, MissingData
from edgenet.preprocess import UInt8Array, read_picture, resize

STAMPS = Path("/usr/share/tuxpaint/stamps")
PACKAGE = "tuxpaint-stamps-default"

CANVAS = 256
"""Side of the picture made of a cut-out, in pixels."""
LONGER_SIDE = 200
"""What a cut-out's longer side is scaled to, in pixels."""
BACKDROP_SEED = 0
IMAGENET_CLASSES = 1001
"""Google's labels: background, then ImageNet-1k."""


def labelled() -> Dataset:
    """Return the labelled cut-outs; raises `MissingData` with the install command."""
    if not STAMPS.is_dir():
        raise MissingData(
            f"the labelled photographs are not installed ({STAMPS}); "
            f"install them with: apt-get install {PACKAGE}"
        )
    table = files("edgenet.calibration") / "photographs.csv"
    rows = csv.DictReader(table.read_text("utf-8").splitlines())
    return Dataset(
        name="photographs",
        classes=IMAGENET_CLASSES,
        samples=tuple(
            Sample(
                name=row["file"],
                read=partial(_read_cutout, STAMPS / row["file"]),
                labels=tuple(row["label"].split("|")),
                origin=f"photographs.csv {row['file']}",
            )
            for row in rows
        ),
    )


def calibration_set() -> Dataset:
    """Return the embedded calibration photographs; sources are in calibration/images.csv."""
    root = Path(str(files("edgenet.calibration"))) / "images"
    return Dataset(
        name="edgenet photographs",
        samples=tuple(
            Sample(name=file.name, read=partial(read_picture, file), labels=(), origin=str(file))
            for file in sorted(root.glob("*.jpg"))
        ),
    )


def _read_cutout(path: Path) -> UInt8Array:
    """Return (256, 256, 3) uint8 RGB: the cut-out centred on the backdrop."""
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise BadImage(f"{path}: cannot be read ({error.strerror})") from error
    stored = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if stored is None or stored.ndim != 3 or stored.shape[2] != 4 or stored.dtype != np.uint8:
        raise BadImage(f"{path}: is not an 8-bit picture with transparency")
    rows, columns = (np.flatnonzero((stored[:, :, 3] > 0).any(axis=axis)) for axis in (1, 0))
    cut = stored[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    alpha = cut[:, :, 3:].astype(np.uint32)
    # Colours are weighted by their coverage before scaling, so that no fringe bleeds in.
    weighted = np.dstack([(cut[:, :, 2::-1] * alpha + 127) // 255, alpha]).astype(np.uint8)
    scale = LONGER_SIDE / max(cut.shape[:2])
    height, width = (max(1, round(side * scale)) for side in cut.shape[:2])
    small = resize(weighted, (width, height)).astype(np.uint32)
    canvas = _backdrop().astype(np.uint32)
    top, left = (CANVAS - height) // 2, (CANVAS - width) // 2
    under = canvas[top : top + height, left : left + width]
    over = small[:, :, :3] + (under * (255 - small[:, :, 3:]) + 127) // 255
    canvas[top : top + height, left : left + width] = np.minimum(over, 255)
    return canvas.astype(np.uint8)


@cache
def _backdrop() -> UInt8Array:
    """Return a soft vertical gradient with a little noise, (256, 256, 3) uint8."""
    gradient = np.linspace(215, 165, CANVAS)[:, None, None]
    noise = np.random.default_rng(BACKDROP_SEED).integers(-4, 5, (CANVAS, CANVAS, 1))
    return np.broadcast_to(gradient + noise, (CANVAS, CANVAS, 3)).astype(np.uint8)
