"""Where an artefact that is not as on the host begins to differ: the first layer that does.

A layer differs when its weights in the file do, or when it makes something else of the golden
pictures. For the latter they run once more, with every layer's tensor given out.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgenet.bundle import Artifact, Bundle
from edgenet.errors import RuntimeRefused
from edgenet.golden import Expected, GoldenLayer, GoldenVectors, channel_means, read_layer_means
from edgenet.preprocess import UInt8Array
from edgenet.runtimes import Float32Array

UNSEEN = "no golden picture shows a difference"


@dataclass(frozen=True, kw_only=True)
class Means:
    """How far what a layer makes is from the host's."""

    channel: int
    """Which is furthest off."""
    difference: float | None
    """Of its mean over all golden pictures and places; None where that is not finite."""
    allowed: float


@dataclass(frozen=True, kw_only=True)
class FirstLayer:
    """The first layer, in the order of execution, that differs from the host's."""

    layer: str
    means: Means | str
    """Or why they tell nothing."""
    same_weights: bool | None
    """Whether the file has those weights for it that the host ran; None where that is not known."""


def same_weights(bundle: Bundle, artifact: Artifact, expected: Expected) -> Mapping[str, bool]:
    """Return by layer whether an artefact's file has the weights that the host ran.

    Without layers whose weights are not known, as in a file of another length than the host's.
    """
    data = (bundle.root / artifact.files[-1]).read_bytes()
    if isinstance(expected.layers, str) or len(data) != expected.file_size_bytes:
        return {}
    return {
        layer.layer: zlib.crc32(data[stored.offset :][: stored.size_bytes]) == stored.crc32
        for layer in expected.layers
        if (stored := layer.weights) is not None
    }


def first_layer(
    bundle: Bundle,
    golden: GoldenVectors,
    artifact: Artifact,
    images: Sequence[UInt8Array],
    *,
    version: str,
    threads: int,
) -> FirstLayer | str:
    """Return where an artefact begins to differ on the golden pictures, or why that is not known.

    `images` must be what the network saw on the host, (1, R, R, 3) uint8 each; `version` is the
    package that computes here. One that rounds otherwise than the host's is off in every layer:
    only weights are compared then.
    """
    expected = golden.expected[artifact.label]
    if isinstance(expected.layers, str):
        return expected.layers
    weights = same_weights(bundle, artifact, expected)
    if expected.rounds_otherwise(version):
        otherwise = f"{version.split()[0]} rounds otherwise than the host's in every layer"
        changed = [layer for layer, same in weights.items() if not same]
        return (
            FirstLayer(layer=changed[0], means=otherwise, same_weights=False)
            if changed
            else otherwise
        )
    tensors = [layer.tensor for layer in expected.layers]
    try:
        found = channel_means(artifact, bundle.path(artifact), images, tensors, threads=threads)
    except (RuntimeRefused, ValueError) as error:
        return f"what its layers make cannot be seen ({error})"
    there = read_layer_means(bundle, golden)[artifact.label]
    here = [found[tensor].means.astype(np.float32) for tensor in tensors]
    for layer, before, now in zip(expected.layers, there, here, strict=True):
        if first := _compare(layer, before, now, weights.get(layer.layer)):
            return first
    return "every layer is as near to the host's as it must be"


def _compare(
    layer: GoldenLayer, there: Float32Array, here: Float32Array, same: bool | None
) -> FirstLayer | None:
    """Return in what a layer differs from the host's; None where it does not."""
    means = _means(layer, there, here)
    if means is None and same is not False:
        return None
    return FirstLayer(layer=layer.layer, means=means or UNSEEN, same_weights=same)


def _means(layer: GoldenLayer, there: Float32Array, here: Float32Array) -> Means | None:
    if here.shape != there.shape:
        return Means(channel=0, difference=None, allowed=layer.allowed)
    apart = np.nan_to_num(np.abs(here.astype(np.float64) - there), nan=np.inf)
    channel = int(apart.argmax())
    largest = float(apart[channel])
    if largest <= layer.allowed:
        return None
    finite = largest if np.isfinite(largest) else None
    return Means(channel=channel, difference=finite, allowed=layer.allowed)
