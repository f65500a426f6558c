"""Draw the Fashion-MNIST calibration sample: 20 training images a class, and copy the test set.

Needs Debian's `dataset-fashion-mnist` (Zalando SE, MIT). Writes calibration/fashion_mnist/.

    python tools/make_fashion_mnist_sample.py
"""

from __future__ import annotations

import gzip
import shutil
import struct
from pathlib import Path

import numpy as np

from edgenet.data.idx import read_idx

SOURCE = Path("/usr/share/datasets/fashion-mnist")
TARGET = Path(__file__).parents[1] / "calibration" / "fashion_mnist"
PER_CLASS = 20
SEED = 0


def main() -> None:
    """Write the sample and the copies."""
    images = read_idx(SOURCE / "train-images-idx3-ubyte.gz")
    labels = read_idx(SOURCE / "train-labels-idx1-ubyte.gz")
    draw = np.random.default_rng(SEED)
    chosen = np.sort(
        np.concatenate(
            [
                draw.choice(np.flatnonzero(labels == label), PER_CLASS, replace=False)
                for label in np.unique(labels)
            ]
        )
    )
    TARGET.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">BBBB3I", 0, 0, 8, 3, len(chosen), *images.shape[1:])
    (TARGET / "calibration-images-idx3-ubyte.gz").write_bytes(
        gzip.compress(header + images[chosen].tobytes(), mtime=0)
    )
    for kind in ("images-idx3", "labels-idx1"):
        shutil.copy(SOURCE / f"t10k-{kind}-ubyte.gz", TARGET)


if __name__ == "__main__":
    main()
