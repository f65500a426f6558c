"""Fashion-MNIST (Zalando SE, MIT): the 10,000 test images, and 200 training images for INT8."""

from __future__ import annotations

from functools import partial
from importlib.resources import as_file, files

import numpy as np

from edgenet.data.idx import read_idx
from edgenet.data.sample import Dataset, Sample
from edgenet.preprocess import UInt8Array

CLASSES = 10


def test_set() -> Dataset:
    """Return the published test set, labels as indices 0 to 9."""
    labels = _read("t10k-labels-idx1-ubyte.gz")
    return _dataset(
        "fashion-mnist", _read("t10k-images-idx3-ubyte.gz"), [(str(label),) for label in labels]
    )


def calibration_set() -> Dataset:
    """Return 20 training images a class; none of them is in the test set."""
    images = _read("calibration-images-idx3-ubyte.gz")
    return _dataset("fashion-mnist training sample", images, [()] * len(images))


def _dataset(name: str, images: UInt8Array, labels: list[tuple[str, ...]]) -> Dataset:
    return Dataset(
        name=name,
        classes=CLASSES,
        samples=tuple(
            Sample(
                name=f"{name} {index}",
                read=partial(_as_rgb, image),
                labels=accepted,
                origin=f"{name} {index}",
            )
            for index, (image, accepted) in enumerate(zip(images, labels, strict=True))
        ),
    )


def _as_rgb(image: UInt8Array) -> UInt8Array:
    """Return (28, 28, 3) from (28, 28) grey."""
    return np.repeat(image[..., None], 3, axis=2)


def _read(name: str) -> UInt8Array:
    with as_file(files("edgenet.calibration") / "fashion_mnist" / name) as path:
        return read_idx(path)
