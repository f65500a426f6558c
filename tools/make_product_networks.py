"""Write the networks that a machine's peak is measured on: two large products, little else.

    python tools/make_product_networks.py

Two pointwise convolutions of 1,024 by 1,024 channels on 32 x 32 pixels make 99.9 % of the
mult-adds. The weights follow a short pattern, so that 40 MB pack into 100 kB; no kernel takes a
short cut for that. The archive holds a file of each runtime in float32 and int8, as `convert`
writes them.
"""

from __future__ import annotations

import importlib
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from edgenet import __version__
from edgenet.bundle import Precision
from edgenet.convert.description import Description
from edgenet.convert.pipeline import WRITERS
from edgenet.graph import (
    IMAGE,
    Convolution,
    FullyConnected,
    GlobalAveragePool,
    Graph,
    Normalise,
    infer_shapes,
    mult_adds,
)
from edgenet.measure.roofline import ARCHIVE, CHANNELS, PRODUCT_MULT_ADDS, SIDE, product_file
from edgenet.preprocess import Preprocessing
from edgenet.quantize.encode import encode

CLASSES = 8
EPOCH = (1980, 1, 1, 0, 0, 0)


def pattern(rows: int, columns: int) -> np.ndarray:
    """Return weights of -1 to 1 that repeat every 16 values."""
    return np.resize(np.linspace(-1, 1, 16), (rows, columns)).astype(np.float32) / columns


def pointwise(name: str, source: str, size: tuple[int, int]) -> Convolution:
    """Return a 1 x 1 convolution from `size[1]` to `size[0]` channels, with ReLU."""
    return Convolution(
        name=name,
        input=source,
        weight=pattern(*size)[:, :, None, None],
        bias=np.full(size[0], 0.5, np.float32),
        stride=(1, 1),
        pad=(0, 0, 0, 0),
        groups=1,
        activation="relu",
    )


def network() -> Graph:
    """Return the network, its values within 0 ... 1 behind every layer."""
    operators = (
        Normalise(
            name="normalised",
            input=IMAGE,
            mean=np.full(3, 127.5, np.float32),
            std=np.full(3, 127.5, np.float32),
        ),
        pointwise("spread", "normalised", (CHANNELS, 3)),
        pointwise("product_1", "spread", (CHANNELS, CHANNELS)),
        pointwise("product_2", "product_1", (CHANNELS, CHANNELS)),
        GlobalAveragePool(name="pool", input="product_2"),
        FullyConnected(
            name="fc",
            input="pool",
            weight=pattern(CLASSES, CHANNELS),
            bias=np.zeros(CLASSES, np.float32),
        ),
    )
    return Graph(
        name="product", operators=operators, shapes=infer_shapes(operators, (3, SIDE, SIDE))
    )


def main() -> None:
    """Write the archive into the package."""
    graph = network()
    work = sum(mult_adds(graph, op) for op in graph.operators)
    if work != PRODUCT_MULT_ADDS:
        raise SystemExit(f"roofline.PRODUCT_MULT_ADDS should be {work}")
    quantized = encode(graph, {op.name: (-1.0, 1.0) for op in graph.operators}, float_output=True)
    description = Description(
        name="product",
        version=__version__,
        licence="Apache-2.0",
        labels=tuple(map(str, range(CLASSES))),
        preprocessing=Preprocessing(resolution=SIDE),
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        zipfile.ZipFile(ARCHIVE, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
    ):
        for target in WRITERS:
            if target.variant or target.precision is Precision.FLOAT16:
                continue
            name = product_file(target.runtime, target.precision.value)
            writer = importlib.import_module(f"edgenet.convert.{target.writer}")
            getattr(writer, f"write_{target.precision.value}")(
                quantized if target.precision is Precision.INT8 else graph,
                Path(folder) / name,
                description=description,
            )
        for file in sorted(Path(folder).iterdir()):
            # The same bytes whenever it is run.
            archive.writestr(
                zipfile.ZipInfo(file.name, EPOCH), file.read_bytes(), zipfile.ZIP_DEFLATED
            )
    print(f"{ARCHIVE}: {ARCHIVE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
