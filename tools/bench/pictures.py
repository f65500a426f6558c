"""The pictures of the bench: the labelled photographs, and a thousand harder ones without labels.

Harder pictures are made from files that Debian packages install, so that none of them is copied
into the project: half are real cut-outs pasted small on photographs, half are crops of photographs.
`cutouts.csv` and `scenes.csv` list them; drawings were left out by eye. It does not know what any
harder picture shows: many have no clear answer, so they measure agreement and not accuracy.

    python tools/bench/pictures.py        writes harder.npz and labelled.npz into the cache
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np

from edgenet.data import photographs
from edgenet.errors import BadData, BadImage
from edgenet.preprocess import Preprocessing, UInt8Array, decode, prepare, resize

HERE = Path(__file__).parent
CACHE = Path("/tmp/edgenet-bench")
"""Outside the repository: the pictures are not ours to redistribute."""
SIDE = 224
"""Side of every picture that `harder` makes, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How small things are, smallest and largest: the smaller, the fewer have a clear answer."""

    cutout: tuple[float, float] = (0.2, 0.7)
    """Longer side of a pasted cut-out, as a share of the picture's."""
    crop: tuple[float, float] = (0.3, 1.0)
    """Side of a crop, as a share of the photograph's shorter side."""


SIZES = Sizes()


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """The labelled photographs as the network sees them."""

    images: UInt8Array
    """(n, side, side, 3) RGB."""
    accepted: tuple[frozenset[int], ...]
    """Accepted indices of each, counted with the background class as 0."""


def labelled(side: int = SIDE) -> Labelled:
    """Return the labelled photographs; raises `BadData` where their package is missing."""
    samples = photographs.labelled().samples
    preprocessing = Preprocessing(resolution=side)
    return Labelled(
        images=np.concatenate([prepare(sample.read(), preprocessing) for sample in samples]),
        accepted=tuple(frozenset(map(int, sample.labels)) for sample in samples),
    )


def calibration(side: int = SIDE) -> UInt8Array:
    """Return (n, side, side, 3): the embedded calibration photographs, all of them."""
    samples = photographs.calibration_set().samples
    preprocessing = Preprocessing(resolution=side)
    return np.concatenate([prepare(sample.read(), preprocessing) for sample in samples])


def harder(count: int = 1000, *, seed: int = 0, sizes: Sizes = SIZES) -> UInt8Array:
    """Return (count, 224, 224, 3) uint8 RGB, the same for a seed; kept in the cache.

    Raises `BadData` naming the package for a source that is not installed or is another version,
    and for one that the calibration set uses as well.
    """
    made_by = hashlib.sha256(f"{_sources_sha256()} {sizes}".encode()).hexdigest()[:12]
    kept = CACHE / f"harder-{made_by}-{seed}-{count}.npz"
    if kept.is_file():
        with np.load(kept) as stored:
            return np.asarray(stored["images"], np.uint8)
    images = np.stack(list(_make(count, seed, sizes)))
    _save(kept, images=images)
    return images


def _make(count: int, seed: int, sizes: Sizes) -> Iterator[UInt8Array]:
    """Yield cut-outs on photographs and bare crops by turns."""
    rng = np.random.default_rng(seed)
    scenes = [_read_scene(row) for row in _scenes()]
    cutouts = _cutouts()
    # Every source is used before one is used again, however small the count.
    scene_order = _cycle(rng, len(scenes), count)
    cutout_order = _cycle(rng, len(cutouts), count // 2)
    for index in range(count):
        picture = _crop(rng, scenes[scene_order[index]], sizes)
        if index % 2:
            _paste(rng, picture, _read_cutout(cutouts[cutout_order[index // 2]]), sizes)
        yield picture


def _cycle(rng: np.random.Generator, sources: int, count: int) -> list[int]:
    rounds = -(-count // sources)
    return [int(i) for _ in range(rounds) for i in rng.permutation(sources)][:count]


def _crop(rng: np.random.Generator, scene: UInt8Array, sizes: Sizes) -> UInt8Array:
    """Return a random square of the photograph at 224 x 224, mirrored half of the time."""
    height, width = scene.shape[:2]
    shorter = min(height, width)
    side = max(round(rng.uniform(*sizes.crop) * shorter), min(SIDE, shorter))
    top = int(rng.integers(height - side + 1))
    left = int(rng.integers(width - side + 1))
    square = scene[top : top + side, left : left + side]
    if rng.integers(2):
        square = square[:, ::-1]
    return np.array(resize(np.ascontiguousarray(square), (SIDE, SIDE)))


def _paste(rng: np.random.Generator, picture: UInt8Array, cutout: UInt8Array, sizes: Sizes) -> None:
    """Lay a (H, W, 4) cut-out with weighted colours on `picture`, at a random size and place."""
    scale = rng.uniform(*sizes.cutout) * SIDE / max(cutout.shape[:2])
    height, width = (max(1, round(side * scale)) for side in cutout.shape[:2])
    small = resize(cutout, (width, height)).astype(np.uint32)
    top = int(rng.integers(SIDE - height + 1))
    left = int(rng.integers(SIDE - width + 1))
    under = picture[top : top + height, left : left + width].astype(np.uint32)
    over = small[:, :, :3] + (under * (255 - small[:, :, 3:]) + 127) // 255
    picture[top : top + height, left : left + width] = np.minimum(over, 255)


def _read_cutout(path: Path) -> UInt8Array:
    """Return (H, W, 4): the visible part, its colours weighted by their coverage."""
    stored = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.ndim != 3 or stored.shape[2] != 4 or stored.dtype != np.uint8:
        raise BadImage(f"{path}: is not an 8-bit picture with transparency")
    rows, columns = (np.flatnonzero((stored[:, :, 3] > 0).any(axis=axis)) for axis in (1, 0))
    cut = stored[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    alpha = cut[:, :, 3:].astype(np.uint32)
    return np.dstack([(cut[:, :, 2::-1] * alpha + 127) // 255, alpha]).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class _Scene:
    package: str
    file: Path
    sha256: str


def _scenes() -> Sequence[_Scene]:
    """Return the photographs of `scenes.csv`; refuses one that calibration images come from."""
    scenes = [
        _Scene(package=row["package"], file=Path("/") / row["file"], sha256=row["sha256"])
        for row in _rows((HERE / "scenes.csv").read_text("utf-8"))
    ]
    provenance = (files("edgenet.calibration") / "images.csv").read_text("utf-8")
    calibrated = {Path("/") / row["source_path"] for row in _rows(provenance)}
    for scene in scenes:
        if scene.file in calibrated:
            raise BadData(f"{scene.file}: is a source of the calibration set; take it off the list")
    return scenes


def _read_scene(scene: _Scene) -> UInt8Array:
    install = f"install it with: apt-get install {scene.package}"
    if not scene.file.is_file():
        raise BadData(f"{scene.file} is missing; {install}")
    data = scene.file.read_bytes()
    if hashlib.sha256(data).hexdigest() != scene.sha256:
        raise BadData(
            f"{scene.file} is not the file that scenes.csv lists: its package has another version "
            "here, so the figures would be of other pictures; correct its line to accept that"
        )
    return decode(data)


def _cutouts() -> Sequence[Path]:
    names = [row["file"] for row in _rows((HERE / "cutouts.csv").read_text("utf-8"))]
    names += [sample.name for sample in photographs.labelled().samples]
    return [photographs.STAMPS / name for name in sorted(names)]


def _rows(text: str) -> Sequence[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def _sources_sha256() -> str:
    """Return a hash over what decides the pictures: this recipe and its lists."""
    parts = [Path(__file__), HERE / "scenes.csv", HERE / "cutouts.csv"]
    return hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()


def _save(path: Path, **arrays: np.ndarray) -> None:
    """Write an .npz so that nobody ever sees half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"partial-{path.name}")
    np.savez(partial, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for flags
    partial.replace(path)


def main() -> None:
    """Write harder.npz ('images') and labelled.npz ('images', 'accepted') into the cache."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--count", type=int, default=1000, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    options = parser.parse_args()
    images = harder(options.count, seed=options.seed)
    _save(CACHE / "harder.npz", images=images)
    evaluation = labelled()
    accepted = np.array(["|".join(map(str, sorted(right))) for right in evaluation.accepted])
    _save(CACHE / "labelled.npz", images=evaluation.images, accepted=accepted)
    print(f"{CACHE}: {len(images)} harder and {len(evaluation.images)} labelled pictures")


if __name__ == "__main__":
    main()
