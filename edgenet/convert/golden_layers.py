"""What each layer of an artefact makes of the golden pictures, and how far it may be off elsewhere.

One value a channel, its mean over all pictures and places, so that a single changed weight shows in
the channel that it belongs to and 11,000 channels are 45 kB. `edgenet verify` looks at them only to
name the layer where an answer begins to be another one. And where each layer's weights lie, with
their checksum: a changed weight that no picture shows (its channel may always be 0) is found too.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgenet.bundle import Artifact, LayerWork, Output, Precision
from edgenet.golden import ChannelMeans, GoldenLayer, StoredWeights, channel_means
from edgenet.graph import Graph, QuantizedGraph
from edgenet.preprocess import UInt8Array
from edgenet.quantize import simulate
from edgenet.runtimes import Float32Array

Weights = npt.NDArray[np.int8 | np.float16 | np.float32]

SHARE = {Precision.FLOAT32: 1e-4, Precision.FLOAT16: 2.0**-11, Precision.INT8: 1e-4}
"""Of the span of a layer's values, by which its means may be off at least. Sums in another order
move them by 1e-6 of it (measured on five processors), the flipped sign of a layer's largest weight
by 1e-3 and more."""

TIPPED_SHARE = 1e-4
"""Of the pictures' bytes, those that are moved by one step to see what rounding does: where a float
layer tips a byte over, later layers tip more. This many move every layer as much as another
processor does, or up to six times as much (measured)."""
TIPPINGS = 3
"""How often that is tried, with other bytes."""
TIMES = 2.0
"""How many times the most that was seen is allowed."""

LAYOUTS = ((0, 1, 2, 3), (0, 2, 3, 1), (1, 2, 3, 0))
"""Orders of (out, in, height, width) in files: ONNX and OpenVINO, TFLite, its depthwise layers."""

FLATTEN = "flatten"
"""The kind of layer that only turns a map into a row, which may be as long as the map is large."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LayersInFile:
    """What a file has of each layer, by the layer's name."""

    tensors: Mapping[str, str]
    """What that which it makes is called, in the order of execution."""
    weights: Mapping[str, Sequence[Weights]]
    """The forms in which its weights, (out, in, height, width) or (out, in), may be stored."""


def tensors_of(
    layers: Sequence[LayerWork],
    outputs: Sequence[Output],
    there: frozenset[str],
    names: Callable[[str], tuple[str, ...]],
) -> dict[str, str]:
    """Return by its name the tensor that each layer makes, in the order of execution.

    `there` are all tensors of a file; `names` gives what a layer's may be called in it, the most
    telling first. A layer that makes an output may leave under the output's name only.
    """
    left = {output.layer: output.name for output in outputs}
    found = {}
    for layer in layers:
        called = [*names(layer.name), *([left[layer.name]] if layer.name in left else [])]
        fitting = [name for name in called if name in there]
        if fitting and layer.kind != FLATTEN:
            found[layer.name] = fitting[0]
    return found


def float_weights(graph: Graph, precision: Precision) -> dict[str, list[Weights]]:
    """Return the weights of each layer as a file of that float precision stores them."""
    kind = np.float16 if precision is Precision.FLOAT16 else np.float32
    return {op.name: [op.weight.astype(kind)] for op in graph.weighted()}


def stored_weights(quantized: QuantizedGraph) -> dict[str, list[Weights]]:
    """Return the weights of each layer as a file of an INT8 form may store them.

    Bytes where it computes in them, else the floats that they stand for: in the symmetric form, and
    of a layer that gives out its sums where a runtime has no such layer.
    """
    found: dict[str, list[Weights]] = {}
    for op in quantized.graph.weighted():
        integers = quantized.layers.get(op.name)
        bytes_ = [] if integers is None or quantized.symmetric else [integers.values]
        found[op.name] = [*bytes_, simulate.real_weights(quantized, op).weight]
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerMade:
    """One layer, and what it makes of the golden pictures."""

    golden: GoldenLayer
    means: Float32Array
    """(channels,), as `ChannelMeans.means`."""


def measure_layers(
    artifact: Artifact,
    folder: Path,
    images: Sequence[UInt8Array],
    layers: LayersInFile,
    *,
    exact: bool,
    threads: int,
) -> tuple[LayerMade, ...]:
    """Return what each layer of an artefact in `folder` makes of the golden pictures.

    An `exact` artefact answers with the same bits everywhere, and so do its layers. Raises
    `RuntimeRefused` for a tensor that the runtime does not give out.
    """
    path, tensors = folder / artifact.files[0], list(layers.tensors.values())

    def means(shown: Sequence[UInt8Array]) -> Mapping[str, ChannelMeans]:
        return channel_means(artifact, path, shown, tensors, threads=threads)

    here = means(images)
    rounded = artifact.precision is Precision.INT8 and not exact
    others = [means(_tipped(images, seed)) for seed in range(TIPPINGS if rounded else 0)]
    data = (folder / artifact.files[-1]).read_bytes()
    found = []
    for layer, tensor in layers.tensors.items():
        made = here[tensor]
        moved = [float(np.abs(other[tensor].means - made.means).max()) for other in others]
        allowed = max([SHARE[artifact.precision] * made.span, *(TIMES * each for each in moved)])
        found.append(
            LayerMade(
                golden=GoldenLayer(
                    layer=layer,
                    tensor=tensor,
                    channels=len(made.means),
                    allowed=0.0 if exact else float(f"{allowed:.3g}"),
                    weights=_find(layers.weights.get(layer), data),
                ),
                means=made.means.astype(np.float32),
            )
        )
    return tuple(found)


def _find(weights: Sequence[Weights] | None, data: bytes) -> StoredWeights | None:
    """Return where in a file the weights of a layer lie; None where that is not certain.

    `weights` are the forms in which they may be there, the likeliest first.
    """
    for values in weights or ():
        for layout in LAYOUTS if values.ndim == len(LAYOUTS[0]) else [range(values.ndim)]:
            laid_out = np.ascontiguousarray(values.transpose(layout))
            span = _find_once(laid_out.tobytes(), data) or _find_rows(laid_out, data)
            if span:
                stored = data[span[0] : span[1]]
                return StoredWeights(
                    offset=span[0], size_bytes=len(stored), crc32=zlib.crc32(stored)
                )
    return None


def _find_once(wanted: bytes, data: bytes) -> tuple[int, int] | None:
    """Return where bytes begin and end in a file; None unless they are there once."""
    begin = data.find(wanted)
    if begin < 0 or data.find(wanted, begin + 1) >= 0:
        return None
    return begin, begin + len(wanted)


def _find_rows(values: Weights, data: bytes) -> tuple[int, int] | None:
    """Return where the rows of a matrix begin and end, each with some more behind it.

    A layer that is written as a larger one (`edgenet.quantize.windows`) has further columns.
    """
    if values.ndim != 2 or len(values) < 2:
        return None
    rows = [row.tobytes() for row in values]
    first, last = _find_once(rows[0], data), _find_once(rows[-1], data)
    if first is None or last is None:
        return None
    step, left = divmod(last[0] - first[0], len(rows) - 1)
    in_place = left == 0 and all(
        data.startswith(row, first[0] + step * number) for number, row in enumerate(rows)
    )
    return (first[0], last[1]) if in_place else None


def _tipped(images: Sequence[UInt8Array], seed: int) -> list[UInt8Array]:
    """Return the pictures with a few bytes one step up or down."""
    random = np.random.default_rng(seed)
    tipped = []
    for image in images:
        moves = (random.random(image.shape) < TIPPED_SHARE) * random.choice([-1, 1], image.shape)
        tipped.append(np.clip(image + moves, 0, 255).astype(np.uint8))
    return tipped
