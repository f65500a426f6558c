"""Write the networks that a machine's peak is measured on: little else than products.

    python tools/make_product_networks.py

One has four pointwise convolutions of 512 by 512 channels on 14 x 14 pixels, the other two 3 x 3
convolutions of 128 by 128 channels on 28 x 28: two hundred million mult-adds each. The weights
follow a short pattern, so that they pack into little; no kernel takes a short cut for that. The
archive holds a file of each runtime in float32 and int8, as `convert` writes them.
"""

from __future__ import annotations

import importlib
import math
import tempfile
import zipfile
from dataclasses import dataclass
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
    Operator,
    infer_shapes,
    mult_adds,
)
from edgenet.measure.peaks import ARCHIVE, PRODUCTS, Product
from edgenet.preprocess import Preprocessing
from edgenet.quantize.encode import encode
from edgenet.runtimes import Float32Array

CLASSES = 8
EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The convolutions of one network."""

    channels: int
    kernel: int
    count: int


SHAPES = {
    "pointwise": Shape(channels=512, kernel=1, count=4),
    "square": Shape(channels=128, kernel=3, count=2),
}


def pattern(*shape: int) -> Float32Array:
    """Return weights of -1 to 1 that repeat every 16 values, over the values that are summed up."""
    return np.resize(np.linspace(-1, 1, 16), shape).astype(np.float32) / math.prod(shape[1:])


def convolution(name: str, source: str, weight: Float32Array) -> Convolution:
    """Return a convolution that keeps the size of what it gets, with ReLU."""
    side = weight.shape[2] // 2
    return Convolution(
        name=name,
        input=source,
        weight=weight,
        bias=np.full(weight.shape[0], 0.5, np.float32),
        stride=(1, 1),
        pad=(side, side, side, side),
        groups=1,
        activation="relu",
    )


def network(product: Product, shape: Shape) -> Graph:
    """Return a network, its values within 0 ... 1 behind every layer."""
    width, kernel = shape.channels, shape.kernel
    operators: list[Operator] = [
        Normalise(
            name="normalised",
            input=IMAGE,
            mean=np.full(3, 127.5, np.float32),
            std=np.full(3, 127.5, np.float32),
        ),
        convolution("spread", "normalised", pattern(width, 3, 1, 1)),
    ]
    for index in range(shape.count):
        weight = pattern(width, width, kernel, kernel)
        operators.append(convolution(f"product_{index}", operators[-1].name, weight))
    operators += [
        GlobalAveragePool(name="pool", input=operators[-1].name),
        FullyConnected(
            name="fc",
            input="pool",
            weight=pattern(CLASSES, width),
            bias=np.zeros(CLASSES, np.float32),
        ),
    ]
    made = tuple(operators)
    shapes = infer_shapes(made, (3, product.side, product.side))
    return Graph(name=product.name, operators=made, shapes=shapes)


def write(product: Product, folder: Path) -> None:
    """Write the network of a product for each runtime, in float32 and int8."""
    graph = network(product, SHAPES[product.name])
    work = sum(mult_adds(graph, op) for op in graph.operators)
    if work != product.mult_adds:
        raise SystemExit(f"mult_adds of {product.name} in peaks.PRODUCTS should be {work}")
    quantized = encode(graph, {op.name: (-1.0, 1.0) for op in graph.operators}, float_output=True)
    description = Description(
        name=product.name,
        version=__version__,
        licence="Apache-2.0",
        labels=tuple(map(str, range(CLASSES))),
        preprocessing=Preprocessing(resolution=product.side),
    )
    for target in WRITERS:
        if target.variant or target.precision is Precision.FLOAT16:
            continue
        precision = target.precision.value
        writer = importlib.import_module(f"edgenet.convert.{target.writer}")
        getattr(writer, f"write_{precision}")(
            quantized if target.precision is Precision.INT8 else graph,
            folder / product.file(target.runtime, precision),
            description=description,
        )


def main() -> None:
    """Write the archive into the package."""
    with (
        tempfile.TemporaryDirectory() as folder,
        zipfile.ZipFile(ARCHIVE, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
    ):
        for product in PRODUCTS:
            write(product, Path(folder))
        for file in sorted(Path(folder).iterdir()):
            # The same bytes whenever it is run.
            archive.writestr(
                zipfile.ZipInfo(file.name, EPOCH), file.read_bytes(), zipfile.ZIP_DEFLATED
            )
    print(f"{ARCHIVE}: {ARCHIVE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
