"""THE definition of how a picture file becomes the network's input: decode, crop, resize.

Calibration, evaluation and the camera all go through here, so that they feed the same pixels.
Every step is integer arithmetic that gives the same pixels on every processor: OpenCV's plain
bilinear and area resizes do not (x86 and ARM differ by one step in up to 19 % of the pixels),
INTER_LINEAR_EXACT does. Normalisation is not here: it is inside every artefact.

Needs numpy and one OpenCV; runs on boards.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenet.errors import BadData, BadImage, MissingExtra

# A damaged picture becomes one `BadImage`; OpenCV would print lines of its own beside it. It reads
# this when it is first imported, in every version.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
try:
    import cv2
except ImportError as error:  # pragma: no cover - covered by the bare-install test
    raise MissingExtra("OpenCV", "board") from error

UInt8Array = npt.NDArray[np.uint8]

JPEG_MAGIC = b"\xff\xd8"
EXIF_ORIENTATION = 0x0112

LARGEST_ASPECT = 100
"""A longer strip would take hundreds of megabytes before its centre is cut out."""

WHOLE_STEPS = (1, 2, 4, 8, 16)
"""Parts of a pixel whose multiples floating point and OpenCV's weights of 8 bits hold exactly."""

VERSION = 1
"""Changes whenever the pixels that come out of here change."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What to do with a picture before the network sees it; part of every bundle.

    The shorter side is resized to `resolution / crop_fraction`, then the centre
    `resolution x resolution` is cut out. `crop` (x, y, width, height in pixels of the upright
    picture) is cut out first where it is given.
    """

    resolution: int
    crop_fraction: float = 0.875
    crop: tuple[int, int, int, int] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.crop_fraction <= 1:
            raise BadData(f"crop fraction {self.crop_fraction} is not between 0 and 1")
        if self.crop is not None and (min(self.crop) < 0 or min(self.crop[2:]) < 1):
            raise BadData(f"crop {self.crop} is not x,y,width,height in pixels")

    def spec(self) -> dict[str, Any]:
        """Return the full specification as plain JSON values, fixed parts included."""
        return {
            "version": VERSION,
            "decode": "8-bit RGB, EXIF orientation obeyed, transparency over white",
            "halve": "2x2 rounded means while both sides are over twice their target",
            "resize": "INTER_LINEAR_EXACT, shorter side to round(resolution / crop_fraction)",
            **json.loads(json.dumps(asdict(self))),
        }

    def sha256(self) -> str:
        """Return the hash of the specification's canonical JSON; a mismatch is refused."""
        canonical = json.dumps(self.spec(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def preprocessing_from_spec(spec: dict[str, Any]) -> Preprocessing:
    """Return the preprocessing that `spec` describes; `BadData` if this edgenet does another."""
    crop = spec.get("crop")
    found = Preprocessing(
        resolution=spec["resolution"],
        crop_fraction=spec["crop_fraction"],
        crop=None if crop is None else (crop[0], crop[1], crop[2], crop[3]),
    )
    if found.spec() != spec:
        differing = sorted(
            key for key in {*spec, *found.spec()} if found.spec().get(key) != spec.get(key)
        )
        raise BadData(
            f"the preprocessing asked for differs from this edgenet's in: {', '.join(differing)}; "
            "use the edgenet version that the manifest names, or convert again"
        )
    return found


def read_picture(path: Path) -> UInt8Array:
    """Return the upright (H, W, 3) uint8 RGB picture in a file.

    Raises `BadImage` naming the file when it is missing, truncated or not a picture.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadImage(f"{path}: cannot be read ({error.strerror}); check the path") from error
    try:
        picture = decode(data)
        if max(picture.shape[:2]) > LARGEST_ASPECT * min(picture.shape[:2]):
            raise BadImage(
                f"is {picture.shape[1]} x {picture.shape[0]} pixels, a strip more than "
                f"{LARGEST_ASPECT} times as long as wide; crop it"
            )
        return picture
    except BadImage as error:
        raise BadImage(f"{path}: {error}") from None


def decode(data: bytes) -> UInt8Array:
    """Return (H, W, 3) uint8 RGB as a person sees it, from the bytes of a picture file.

    Greyscale and 16-bit pictures become 8-bit RGB, the EXIF orientation is obeyed, transparent
    pictures are laid over white. Raises `BadImage` for what is not one whole picture.
    """
    if not data:
        raise BadImage("is empty (0 bytes); replace it with a picture")
    _refuse_truncated(data)
    buffer = np.frombuffer(data, np.uint8)
    try:
        if not data.startswith(JPEG_MAGIC):
            stored = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
            if stored is not None and stored.ndim == 3 and stored.shape[2] == 4:
                return _over_white(stored, _orientation(data))
        picture = cv2.imdecode(buffer, cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise BadImage(f"does not decode ({error.err}); is it damaged?") from None
    if picture is None:
        raise BadImage("is not a picture that OpenCV can read; use JPEG or PNG")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def prepare(picture: UInt8Array, preprocessing: Preprocessing) -> UInt8Array:
    """Return (1, resolution, resolution, 3) from an upright (H, W, 3) uint8 RGB picture."""
    return _prepared(picture, preprocessing, cv2.COLOR_RGBA2RGB)[None]


def prepare_bgr(picture: UInt8Array, preprocessing: Preprocessing) -> UInt8Array:
    """Return what `prepare` makes of the same picture in RGB, from (H, W, 3) uint8 BGR.

    Every step treats the channels alike, so that swapping them at the end gives the same bits and
    costs nothing.
    """
    return _prepared(picture, preprocessing, cv2.COLOR_BGRA2RGB)[None]


def _prepared(picture: UInt8Array, preprocessing: Preprocessing, narrowing: int) -> UInt8Array:
    """Return (resolution, resolution, 3) from (H, W, 3).

    Between them are four channels, the last of no meaning, which `narrowing` of OpenCV's takes off:
    with three INTER_LINEAR_EXACT takes almost half as long again.
    """
    picture = _cropped(picture, preprocessing.crop)
    way = _way(picture.shape[0], picture.shape[1], preprocessing)
    wide = cv2.cvtColor(_halved(picture[way.needed], way.halvings), cv2.COLOR_BGR2BGRA)
    if way.factors is not None:
        fx, fy = way.factors
        wide = cv2.resize(wide, None, fx=fx, fy=fy, interpolation=cv2.INTER_LINEAR_EXACT)
    return np.asarray(cv2.cvtColor(wide[way.centre], narrowing), np.uint8)


@dataclass(frozen=True, kw_only=True)
class _Way:
    """How pictures of one size become the input."""

    needed: tuple[slice, slice]
    """Rows and columns that anything is made of."""
    halvings: int
    factors: tuple[float, float] | None
    """Of the last resize, x and y; None where there is none. Those of the whole picture: sizes of
    the part alone would give others."""
    centre: tuple[slice, slice]
    """Rows and columns to keep after it."""


@lru_cache(maxsize=64)
def _way(height: int, width: int, preprocessing: Preprocessing) -> _Way:
    """Return the way of a (height, width) picture, cropped already.

    What lies right of the centre and below it is not resized at all; above it, where that is
    possible. A camera asks for the same again and again.
    """
    resolution = preprocessing.resolution
    shorter = round(resolution / preprocessing.crop_fraction)
    scale = shorter / min(height, width)
    size = (max(shorter, round(width * scale)), max(shorter, round(height * scale)))
    left, top = (size[0] - resolution) // 2, (size[1] - resolution) // 2
    times, height, width = _halvings(height, width, size)
    rows = _rows_alone(height, size[1], top, resolution)
    if rows is not None:
        top = 0
    else:
        rows = slice(0, _first(height, size[1], top + resolution))
    columns = slice(0, _first(width, size[0], left + resolution))
    return _Way(
        needed=(
            slice(rows.start << times, rows.stop << times),
            slice(columns.start << times, columns.stop << times),
        ),
        halvings=times,
        factors=None if size == (width, height) else (size[0] / width, size[1] / height),
        centre=(slice(top, top + resolution), slice(left, left + resolution)),
    )


def _cropped(picture: UInt8Array, crop: tuple[int, int, int, int] | None) -> UInt8Array:
    if crop is None:
        return picture
    x, y, width, height = crop
    if x + width > picture.shape[1] or y + height > picture.shape[0]:
        raise BadImage(
            f"crop {x},{y},{width},{height} does not fit into "
            f"{picture.shape[1]} x {picture.shape[0]} pixels"
        )
    return picture[y : y + height, x : x + width]


def _rows_alone(source: int, target: int, start: int, count: int) -> slice | None:
    """Return the source rows that alone give target rows `start` to `start + count`, bit for bit.

    None unless they begin and end at whole rows and the step between rows is a few eighths or the
    like, which no rounding touches: then the weights within the part are those within the whole.
    Of 640 x 480 at 256 an eighth need not be resized.
    """
    step = target // math.gcd(source, target)
    if source < target or step not in WHOLE_STEPS or start % step or count % step:
        return None
    return slice(start * source // target, (start + count) * source // target)


def _first(source: int, target: int, count: int) -> int:
    """Return how many pixels of `source` make the first `count` of `target`, or a few more."""
    return min(source, -(-count * source // target) + 2)


def pixels_sha256(pixels: UInt8Array) -> str:
    """Return the identity of a picture: the sha256 of its RGB bytes, whatever file held them."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def resize(picture: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """Return `picture` (H, W, channels) at `size` (width, height), the same on every processor.

    While it is over twice too large, 2 x 2 pixels are averaged: at a ratio of exactly one half
    INTER_LINEAR_EXACT is that average, rounded, and vectorised. The rest is bilinear.
    """
    times, height, width = _halvings(picture.shape[0], picture.shape[1], size)
    picture = _halved(picture, times)
    return picture if size == (width, height) else _bilinear(picture, size)


def _halvings(height: int, width: int, size: tuple[int, int]) -> tuple[int, int, int]:
    """Return how often a picture is halved on its way to `size`, and what it is then."""
    times = 0
    while min(height / size[1], width / size[0]) > 2:
        times, height, width = times + 1, height // 2, width // 2
    return times, height, width


def _halved(picture: UInt8Array, times: int) -> UInt8Array:
    for _ in range(times):
        height, width = (side // 2 for side in picture.shape[:2])
        picture = _bilinear(picture[: 2 * height, : 2 * width], (width, height))
    return picture


def _bilinear(picture: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR_EXACT), np.uint8)


def _over_white(stored: npt.NDArray[Any], orientation: int) -> UInt8Array:
    """Lay an 8- or 16-bit BGRA picture over white and turn it upright."""
    if stored.dtype == np.uint16:
        stored = stored >> 8
    colour = stored[:, :, 2::-1].astype(np.uint32)
    alpha = stored[:, :, 3:].astype(np.uint32)
    picture = ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    if orientation >= 5:  # stored sideways: swap the axes first
        picture = picture.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    return np.ascontiguousarray(picture)


def _orientation(data: bytes) -> int:
    """Return the EXIF orientation (1 to 8) of a PNG or WebP; OpenCV drops it beside an alpha."""
    chunk = max(data.find(b"eXIf"), data.find(b"EXIF"))
    tiff = data[chunk + 4 : chunk + 32].find(b"II*\0") if chunk >= 0 else -1
    order = "<"
    if chunk >= 0 and tiff < 0:
        tiff, order = data[chunk + 4 : chunk + 32].find(b"MM\0*"), ">"
    if tiff < 0:
        return 1
    header = chunk + 4 + tiff
    try:
        (directory,) = struct.unpack_from(f"{order}I", data, header + 4)
        (entries,) = struct.unpack_from(f"{order}H", data, header + directory)
        for entry in range(entries):
            tag, _, _, value = struct.unpack_from(
                f"{order}HHIH", data, header + directory + 2 + 12 * entry
            )
            if tag == EXIF_ORIENTATION and 1 <= value <= 8:
                return int(value)
    except struct.error:
        pass  # a broken EXIF block says nothing about the picture
    return 1


def _refuse_truncated(data: bytes) -> None:
    """Raise `BadImage` for a JPEG or PNG without its end; OpenCV fills the rest with grey."""
    if data.startswith(JPEG_MAGIC):
        start_of_scan = _jpeg_start_of_scan(data)
        whole = start_of_scan >= 0 and data.find(b"\xff\xd9", start_of_scan) >= 0
    elif data.startswith(b"\x89PNG"):
        whole = b"IEND" in data[-64:]
    else:
        return
    if not whole:
        raise BadImage(f"is cut off after {len(data)} bytes; copy it again")


def _jpeg_start_of_scan(data: bytes) -> int:
    """Return the offset of the first scan, past every segment (thumbnails included), or -1."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        if data[at + 1] == 0xDA:
            return at
        (length,) = struct.unpack_from(">H", data, at + 2)
        at += 2 + length
    return -1
