"""Golden vectors: a few pictures that travel in the bundle, and what the host's artefacts answered.

    golden/golden.json    the pixels' hashes; for each artefact its row, its tolerances and the host
    golden/logits.npy     float32 (artefacts, pictures, values), in the table's order; the values
                          are a classifier's logits, or all outputs of another network
    golden/0.jpg ...      the pictures

They pin the whole way from a file to the outputs, so that any machine can be held against the
host. `edgenet.convert.golden` writes them. Needs numpy and one OpenCV; runs on boards.
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

from edgenet.bundle import AGAIN, Bundle, GoldenFiles, Output
from edgenet.errors import BadImage, BrokenBundle
from edgenet.preprocess import Preprocessing, UInt8Array, prepare, read_picture
from edgenet.runtimes import Float32Array

FOLDER = "golden"
TABLE = f"{FOLDER}/golden.json"
LOGITS = f"{FOLDER}/logits.npy"
SCHEMA_VERSION = "1.1"


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far one output of an artefact may be from the host's on another machine."""

    largest: float
    """Largest absolute difference of a value; 0 asks for the same bits."""
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Expected:
    """What one artefact answered on the host."""

    sha256: str
    """Of the artefact that was run."""
    values: Float32Array
    """(pictures, values), the outputs one after the other."""
    tolerances: tuple[Tolerance, ...]
    """One for each output."""
    device: str
    version: str


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
                tolerances=tuple(
                    Tolerance(largest=float(entry["largest"]), reason=str(entry["reason"]))
                    # Version 1.0 had classifiers only, and one tolerance.
                    for entry in row.get("tolerances") or [row["tolerance"]]
                ),
                device=str(row["host"]["device"]),
                version=str(row["host"]["version"]),
            )
            for index, row in enumerate(rows)
        },
    )
