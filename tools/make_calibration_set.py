#!/usr/bin/env python3
"""Rebuild or check the photographs in ``calibration/images``.

``calibration/images.csv`` is the only table.  Each row names the package a
photograph comes from, the file in that package, and the part of it to use.
This script turns every row into a JPEG, or checks the JPEGs that are there.

    make_calibration_set.py --packages
    make_calibration_set.py --check
    make_calibration_set.py --check --source-root DIR
    make_calibration_set.py --source-root DIR

DIR holds the unpacked Debian packages and wheels, all in one tree.  Give it
several times if they are in several trees; ``/`` finds installed packages.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import struct
import sys
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Image = npt.NDArray[np.uint8]

COLUMNS = (
    "file",
    "sha256",
    "pixels_sha256",
    "source",
    "source_path",
    "author",
    "licence",
    "crop",
    "note",
)
SHORTER_SIDE = 256
JPEG_QUALITY = 88
BACKDROP = "backdrop "
ARCHIVE_SEPARATOR = ":/"
REPOSITORY = Path(__file__).resolve().parent.parent


class CalibrationSetError(Exception):
    """A row of the table cannot be used, or its source cannot be found."""


@dataclass(frozen=True)
class Row:
    """One line of ``images.csv``."""

    file: str
    sha256: str
    pixels_sha256: str
    source: str
    source_path: str
    author: str
    licence: str
    crop: str
    note: str

    def crop_box(self) -> tuple[int, int, int, int]:
        """Return x, y, width and height in pixels of the source image."""
        parts = self.crop.split()
        if len(parts) != 4:
            raise CalibrationSetError(f"{self.file}: crop must be 'x y w h', not {self.crop!r}")
        x, y, width, height = (int(part) for part in parts)
        return x, y, width, height


def read_table(path: Path) -> list[Row]:
    """Read the table, and refuse one whose header or names are not as expected."""
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise CalibrationSetError(f"{path}: the header must be {','.join(COLUMNS)}")
        rows = [Row(**{name: record[name] for name in COLUMNS}) for record in reader]
    names = [row.file for row in rows]
    if len(set(names)) != len(names):
        raise CalibrationSetError(f"{path}: a file name occurs twice")
    for name in names:
        if PurePosixPath(name).name != name:
            raise CalibrationSetError(f"{path}: {name!r} is not a plain file name")
    return rows


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows back with the same header, one line each."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([getattr(row, name) for name in COLUMNS] for row in rows)


def sha256(data: bytes) -> str:
    """Return the SHA-256 of the data in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def decode(data: bytes, label: str) -> Image:
    """Decode an image file to three channels in OpenCV's order (BGR)."""
    image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise CalibrationSetError(f"{label}: OpenCV cannot decode it")
    return np.asarray(image, dtype=np.uint8)


def pixels_sha256(jpeg: bytes, label: str) -> str:
    """Return the SHA-256 of the decoded pixels as RGB bytes, row by row."""
    rgb = decode(jpeg, label)[:, :, ::-1]
    return sha256(np.ascontiguousarray(rgb).tobytes())


def resource_entries(data: bytes, label: str) -> Iterator[tuple[str, bytes]]:
    """Yield the path and the content of every file in a Qt binary resource (.rcc)."""
    if data[:4] != b"qres":
        raise CalibrationSetError(f"{label}: not a Qt resource file")
    version, tree, contents, names = struct.unpack_from(">4I", data, 4)
    node_size = 14 if version < 2 else 22
    pending: list[tuple[int, str]] = [(0, "")]
    while pending:
        index, parent = pending.pop()
        node = tree + index * node_size
        name_offset, flags = struct.unpack_from(">IH", data, node)
        path = parent
        if index:
            start = names + name_offset
            (length,) = struct.unpack_from(">H", data, start)
            path += "/" + data[start + 6 : start + 6 + 2 * length].decode("utf-16-be")
        if flags & 2:
            count, first = struct.unpack_from(">2I", data, node + 6)
            pending.extend((child, path) for child in range(first, first + count))
            continue
        (offset,) = struct.unpack_from(">I", data, node + 10)
        (size,) = struct.unpack_from(">I", data, contents + offset)
        body = data[contents + offset + 4 : contents + offset + 4 + size]
        if flags & 1:
            body = zlib.decompress(body[4:])
        elif flags & 4:
            continue  # Zstandard: no photograph in the table is stored that way.
        yield path, body


@lru_cache(maxsize=2)
def resource_files(path: Path) -> dict[str, bytes]:
    """Return all files of a Qt binary resource by path."""
    return dict(resource_entries(path.read_bytes(), str(path)))


def read_source(row: Row, roots: Sequence[Path]) -> bytes:
    """Return the bytes of the source file that the row names."""
    outer, separator, inner = row.source_path.partition(ARCHIVE_SEPARATOR)
    for root in roots:
        path = root / outer
        if not path.is_file():
            continue
        if not separator:
            return path.read_bytes()
        try:
            return resource_files(path)["/" + inner]
        except KeyError:
            raise CalibrationSetError(f"{path}: has no /{inner}") from None
    raise CalibrationSetError(f"{row.file}: {outer} ({row.source}) is in none of the source roots")


def resize(image: Image, width: int, height: int) -> Image:
    """Shrink by area averaging; enlarge, where a source is small, bilinearly."""
    shrinking = width <= image.shape[1] and height <= image.shape[0]
    method = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), dtype=np.uint8)


def parse_backdrop(note: str, label: str) -> tuple[list[int], list[int], float]:
    """Read ``backdrop top=#rrggbb bottom=#rrggbb size=0.7``; return BGR colours."""
    try:
        fields = dict(part.split("=", 1) for part in note[len(BACKDROP) :].split())
        top, bottom = (
            list(bytes.fromhex(fields[key].removeprefix("#")))[::-1] for key in ("top", "bottom")
        )
        return top, bottom, float(fields["size"])
    except (KeyError, ValueError) as error:
        raise CalibrationSetError(f"{label}: cannot read the note {note!r}") from error


def put_on_backdrop(image: Image, note: str, label: str) -> Image:
    """Lay a photograph taken on white over a plain vertical gradient.

    White lets the gradient through and everything darker tints it, so soft
    shadows stay.  All arithmetic is on integers.
    """
    top, bottom, fraction = parse_backdrop(note, label)
    side = SHORTER_SIDE
    steps = np.arange(side, dtype=np.int64)[:, None]
    first, last = np.array(top, dtype=np.int64), np.array(bottom, dtype=np.int64)
    column = (first * (side - 1 - steps) + last * steps + (side - 1) // 2) // (side - 1)
    canvas = np.repeat(column[:, None, :], side, axis=1)

    height, width = image.shape[:2]
    longest = round(side * fraction)
    new_width = max(1, width * longest // max(width, height))
    new_height = max(1, height * longest // max(width, height))
    small = resize(image, new_width, new_height).astype(np.int64)
    x, y = (side - new_width) // 2, (side - new_height) // 2
    window = canvas[y : y + new_height, x : x + new_width]
    canvas[y : y + new_height, x : x + new_width] = (window * small + 127) // 255
    return canvas.astype(np.uint8)


def build(row: Row, roots: Sequence[Path]) -> bytes:
    """Make the JPEG of one row."""
    source = decode(read_source(row, roots), row.source_path)
    x, y, width, height = row.crop_box()
    if x < 0 or y < 0 or x + width > source.shape[1] or y + height > source.shape[0]:
        raise CalibrationSetError(f"{row.file}: the crop leaves the source image")
    image = np.ascontiguousarray(source[y : y + height, x : x + width])
    if row.note.startswith(BACKDROP):
        image = put_on_backdrop(image, row.note, row.file)
    else:
        shorter = min(width, height)
        image = resize(
            image,
            (width * SHORTER_SIDE + shorter // 2) // shorter,
            (height * SHORTER_SIDE + shorter // 2) // shorter,
        )
    done, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise CalibrationSetError(f"{row.file}: OpenCV cannot encode it")
    return bytes(encoded.tobytes())


def package_lines(rows: Sequence[Row]) -> list[str]:
    """Say which packages hold the sources, and how to fetch them."""
    sources = sorted({row.source for row in rows})
    debian = [item.removeprefix("deb:") for item in sources if item.startswith("deb:")]
    python = [item.removeprefix("pip:") for item in sources if item.startswith("pip:")]
    return [
        "Debian packages (apt-get download, then dpkg-deb -x FILE DIR):",
        *(f"  {item}" for item in debian),
        "Python wheels (pip download --no-deps, then unzip -d DIR):",
        *(f"  {item}" for item in python),
    ]


def check_file(row: Row, images: Path) -> list[str]:
    """Return what is wrong with the JPEG of one row."""
    path = images / row.file
    if not path.is_file():
        return [f"{row.file}: missing"]
    data = path.read_bytes()
    problems = []
    if sha256(data) != row.sha256:
        problems.append(f"{row.file}: its sha256 differs from the table's")
    if pixels_sha256(data, row.file) != row.pixels_sha256:
        problems.append(f"{row.file}: its decoded pixels differ from the table's")
    return problems


def check(rows: Sequence[Row], images: Path, roots: Sequence[Path]) -> int:
    """Check the JPEGs, and with source roots that they can be made again."""
    problems = [problem for row in rows for problem in check_file(row, images)]
    known = {row.file for row in rows}
    problems += [
        f"{path.name}: not in the table"
        for path in sorted(images.glob("*.jpg"))
        if path.name not in known
    ]
    if roots:
        problems += [
            f"{row.file}: rebuilding it gives other bytes"
            for row in rows
            if sha256(build(row, roots)) != row.sha256
        ]
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(rows)} images checked, {len(problems)} problems")
    return 1 if problems else 0


def rebuild(rows: Sequence[Row], table: Path, images: Path, roots: Sequence[Path]) -> int:
    """Write every JPEG and put its checksums into the table."""
    images.mkdir(parents=True, exist_ok=True)
    updated = []
    total = 0
    for row in rows:
        jpeg = build(row, roots)
        (images / row.file).write_bytes(jpeg)
        total += len(jpeg)
        fields = {name: getattr(row, name) for name in COLUMNS}
        fields |= {
            "sha256": sha256(jpeg),
            "pixels_sha256": pixels_sha256(jpeg, row.file),
        }
        updated.append(Row(**fields))
    write_table(table, updated)
    changed = sum(old != new for old, new in zip(rows, updated, strict=True))
    print(f"{len(rows)} images written, {total} bytes, {changed} rows with new checksums")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description="Rebuild or check the photographs in calibration/images."
    )
    parser.add_argument("--table", type=Path, default=REPOSITORY / "calibration" / "images.csv")
    parser.add_argument("--images", type=Path, default=REPOSITORY / "calibration" / "images")
    parser.add_argument(
        "--source-root",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="where the packages are unpacked; may be given several times",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="check and write nothing")
    mode.add_argument("--packages", action="store_true", help="list the source packages")
    options = parser.parse_args(arguments)
    try:
        rows = read_table(options.table)
        if options.packages:
            print("\n".join(package_lines(rows)))
            return 0
        if options.check:
            return check(rows, options.images, options.source_root)
        if not options.source_root:
            parser.error("--source-root is needed to rebuild; --packages tells what to unpack")
        return rebuild(rows, options.table, options.images, options.source_root)
    except CalibrationSetError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
