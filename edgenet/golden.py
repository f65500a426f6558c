"""Golden vectors: a few pictures that travel in the bundle, and what the host's artefacts answered.

    golden/golden.json    the pixels' hashes; for each artefact its row, its tolerances and the host
    golden/logits.npy     float32 (artefacts, pictures, values), in the table's order; the values
                          are a classifier's logits, or all outputs of another network
    golden/layers.npy     float32, the means of each layer's channels, artefact after artefact
    golden/0.jpg ...      the pictures

They pin the whole way from a file to the outputs, so that any machine can be held against the
host; the layers' values are for saying where an answer that is another one begins to be.
`edgenet.convert.golden` writes them. Needs numpy and one OpenCV; runs on boards.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenet import runtimes
from edgenet.bundle import AGAIN, Artifact, Bundle, GoldenFiles, Output
from edgenet.errors import BadImage, BrokenBundle
from edgenet.preprocess import Preprocessing, UInt8Array, prepare, read_picture
from edgenet.runtimes import Float32Array

FOLDER = "golden"
TABLE = f"{FOLDER}/golden.json"
LOGITS = f"{FOLDER}/logits.npy"
LAYERS = f"{FOLDER}/layers.npy"
REFERENCE = f"{FOLDER}/reference.npy"
SCHEMA_VERSION = "1.3"
NO_LAYERS = "the bundle does not hold what each layer made on the host; convert again"


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far one output of an artefact may be from the host's on another machine."""

    largest: float
    """Largest absolute difference of a value; 0 asks for the same bits."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class StoredWeights:
    """Where a layer's weights lie in the last of an artefact's files."""

    offset: int
    size_bytes: int
    crc32: int
    """Of those bytes."""


@dataclass(frozen=True, kw_only=True)
class GoldenLayer:
    """One layer of an artefact, as it can be held against the host's."""

    layer: str
    tensor: str
    """What the file calls that which the layer makes."""
    channels: int
    allowed: float
    """How far the mean of a channel may be off on another machine."""
    weights: StoredWeights | None
    """None for a layer without, and where they could not be found in the file."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Expected:
    """What one artefact answered on the host."""

    sha256: str
    """Of the artefact that was run."""
    values: Float32Array
    """(pictures, values), the outputs one after the other."""
    tolerances: tuple[Tolerance, ...]
    """One for each output."""
    other_package: tuple[Tolerance, ...]
    """The same where the runtime's other package computes, which rounds otherwise; empty where
    that is not known, or makes no difference."""
    device: str
    version: str
    """The package and its version, as `Session.version`."""
    layers: tuple[GoldenLayer, ...] | str
    """In the order of execution; or why there are none."""
    file_size_bytes: int | None
    """Of the last of its files; None as long as there were no layers."""

    def rounds_otherwise(self, version: str) -> bool:
        """Tell whether the runtime of this package and version rounds otherwise than the host's."""
        return bool(self.other_package) and version.split()[0] != self.version.split()[0]

    def allowed(self, version: str) -> tuple[Tolerance, ...]:
        """Return how far each output may be off where this package and version computes."""
        return self.other_package if self.rounds_otherwise(version) else self.tolerances


@dataclass(frozen=True, kw_only=True, eq=False)
class ChannelMeans:
    """What one tensor of an artefact is on the golden pictures."""

    means: npt.NDArray[np.float64]
    """(channels,), each over all pictures and places; of bytes, in their steps."""
    span: float
    """The largest value less the smallest."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GoldenVectors:
    """The pictures of a bundle and what is expected of its artefacts."""

    files: tuple[str, ...]
    """Paths of the pictures inside the bundle."""
    prepared_sha256: tuple[str, ...]
    """Of the (1, R, R, 3) bytes that the preprocessing made of each on the host."""
    expected: Mapping[str, Expected]
    """By the artefact's label."""


def prepare_pictures(
    root: Path, files: Sequence[str], preprocessing: Preprocessing
) -> tuple[UInt8Array, ...]:
    """Return what the network sees, (1, R, R, 3) uint8, of each picture in a bundle's folder.

    Raises `BrokenBundle` for a picture that cannot be read.
    """
    try:
        return tuple(prepare(read_picture(root / file), preprocessing) for file in files)
    except BadImage as error:
        raise BrokenBundle(f"golden picture {error}; {AGAIN}") from None


def read_golden(bundle: Bundle) -> GoldenVectors:
    """Return the golden vectors of a bundle.

    Raises `BrokenBundle` when it has none, or has some that this edgenet cannot read.
    """
    files = bundle.golden
    if files is None:
        raise BrokenBundle(f"{bundle.root}: has no golden vectors to verify with; convert again")
    path = bundle.root / files.file
    try:
        table = json.loads(path.read_bytes())
        if table["schema_version"].partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
            raise BrokenBundle(
                f"{path}: schema version {table['schema_version']} is not the {SCHEMA_VERSION} "
                "that this edgenet reads; use the edgenet version that the manifest names"
            )
        values = np.load(bundle.root / files.logits, allow_pickle=False)
        return _parse(table, values, files, bundle.outputs)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, EOFError) as error:
        raise BrokenBundle(f"{path}: holds no golden vectors ({error!r}); {AGAIN}") from None


def read_reference(bundle: Bundle) -> Float32Array | None:
    """Return what the float reference answered to the golden pictures, (pictures, values).

    None where the bundle does not hold it. Raises `BrokenBundle` for what cannot be read.
    """
    files = bundle.golden
    if files is None or files.reference is None:
        return None
    path = bundle.root / files.reference
    wanted = (len(files.images), sum(math.prod(output.shape) for output in bundle.outputs))
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise BrokenBundle(f"{path}: holds no answers ({error!r}); {AGAIN}") from None
    if values.dtype != np.float32 or values.shape != wanted:
        raise BrokenBundle(
            f"{path}: values are {values.dtype} {values.shape}, not float32 {wanted}; {AGAIN}"
        )
    return np.asarray(values, np.float32)


def read_layer_means(
    bundle: Bundle, golden: GoldenVectors
) -> Mapping[str, tuple[Float32Array, ...]]:
    """Return by the artefact's label what each of its layers made on the host, (channels,) each.

    As `ChannelMeans.means`, in the order of `Expected.layers`. Raises `BrokenBundle` for what
    cannot be read.
    """
    files = bundle.golden
    assert files is not None and files.layers is not None, "layers are named only if they are there"
    path = bundle.root / files.layers
    named = {
        label: expected.layers
        for label, expected in golden.expected.items()
        if not isinstance(expected.layers, str)
    }
    counts = [layer.channels for layers in named.values() for layer in layers]
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise BrokenBundle(f"{path}: holds no layer values ({error!r}); {AGAIN}") from None
    if values.dtype != np.float32 or values.shape != (sum(counts),):
        raise BrokenBundle(
            f"{path}: values are {values.dtype} {values.shape}, not float32 ({sum(counts)},); "
            f"{AGAIN}"
        )
    parts = iter(np.split(values, np.cumsum(counts)[:-1]))
    return {label: tuple(next(parts) for _ in layers) for label, layers in named.items()}


def channel_means(
    artifact: Artifact,
    path: Path,
    images: Sequence[UInt8Array],
    tensors: Sequence[str],
    *,
    threads: int = 1,
) -> Mapping[str, ChannelMeans]:
    """Return the means of these tensors of the artefact at `path` over `images`, (1, R, R, 3) each.

    Raises what `edgenet.runtimes.trace` raises.
    """
    sums: dict[str, npt.NDArray[np.float64]] = {}
    ends: dict[str, tuple[float, float]] = {}
    for found in runtimes.trace(artifact.runtime, path, images, tensors, threads=threads):
        for name, values in found.items():
            places = values.reshape(-1, values.shape[-1])
            low, high = ends.get(name, (math.inf, -math.inf))
            ends[name] = min(low, float(values.min())), max(high, float(values.max()))
            sums[name] = sums.get(name, 0) + places.mean(axis=0, dtype=np.float64)
    return {
        name: ChannelMeans(means=total / len(images), span=ends[name][1] - ends[name][0])
        for name, total in sums.items()
    }


def split(values: npt.NDArray[Any], outputs: Sequence[Output]) -> list[npt.NDArray[Any]]:
    """Return (pictures, values) as one such array for each output."""
    ends = np.cumsum([math.prod(output.shape) for output in outputs])
    return np.split(values, ends[:-1], axis=1)


def _parse(
    table: dict[str, Any], values: Any, files: GoldenFiles, outputs: Sequence[Output]
) -> GoldenVectors:
    pictures, rows = table["images"], table["artifacts"]
    if tuple(picture["file"] for picture in pictures) != files.images:
        raise ValueError("its pictures are not the manifest's")
    wanted = (len(rows), len(pictures), sum(math.prod(output.shape) for output in outputs))
    if values.dtype != np.float32 or values.shape != wanted:
        raise ValueError(f"values are {values.dtype} {values.shape}, not float32 {wanted}")
    return GoldenVectors(
        files=files.images,
        prepared_sha256=tuple(str(picture["prepared_sha256"]) for picture in pictures),
        expected={
            str(row["artifact"]): Expected(
                sha256=str(row["sha256"]),
                values=values[index],
                # Version 1.0 had classifiers only, and one tolerance.
                tolerances=_parse_tolerances(row.get("tolerances") or [row["tolerance"]]),
                other_package=_parse_tolerances(row.get("other_package") or []),
                device=str(row["host"]["device"]),
                version=str(row["host"]["version"]),
                layers=_parse_layers(row, files),
                file_size_bytes=row.get("file_bytes"),
            )
            for index, row in enumerate(rows)
        },
    )


def _parse_tolerances(entries: Sequence[dict[str, Any]]) -> tuple[Tolerance, ...]:
    return tuple(
        Tolerance(largest=float(entry["largest"]), reason=str(entry["reason"])) for entry in entries
    )


def _parse_layers(row: dict[str, Any], files: GoldenFiles) -> tuple[GoldenLayer, ...] | str:
    if files.layers is None:
        return NO_LAYERS
    if row["layers"] is None:
        return str(row["layers_reason"])
    return tuple(
        GoldenLayer(
            layer=str(entry["layer"]),
            tensor=str(entry["tensor"]),
            channels=int(entry["channels"]),
            allowed=float(entry["allowed"]),
            weights=_parse_weights(entry["weights"]),
        )
        for entry in row["layers"]
    )


def _parse_weights(entry: dict[str, Any] | None) -> StoredWeights | None:
    if entry is None:
        return None
    return StoredWeights(
        offset=int(entry["offset"]), size_bytes=int(entry["bytes"]), crc32=int(entry["crc32"])
    )
