"""The marker: what stands beside a labelled picture so that a camera knows which one it sees.

A frame of a playlist has a band at its left and one at its right, eight cells of a grid wide. In
the four corners is an ArUco marker to find the frame by; between them, 176 black or white modules
say which picture it is, how long it has been there and when the frame was drawn. The picture has
the area between the bands. Next to it each band is white, and the area begins at a multiple of 16
pixels: no block of a JPEG holds pixels of both, so what the marker says changes no pixel of the
picture there.

`edgenet.stream.strip_reader` reads it. Needs numpy and OpenCV; runs on boards.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import astuple, dataclass, fields
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edgenet.errors import UsageError
from edgenet.preprocess import UInt8Array, resize

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.intp]

VERSION = 1
BITS = {
    "version": 4,
    "width": 12,
    "height": 12,
    "index": 20,
    "playlist": 24,
    "pixels": 12,
    "clock_ms": 40,
    "since": 4,
    "until": 4,
    "machine": 12,
}
"""The fields of a `Marker`, in their order; a checksum of 32 bits follows."""
CHECKSUM_BYTES = 4
PAYLOAD_BYTES = sum(BITS.values()) // 8
WHITENING = np.frombuffer(hashlib.sha256(b"edgenet marker").digest(), np.uint8)[
    : PAYLOAD_BYTES + CHECKSUM_BYTES
]
"""Turns about half of the bits over, so that no field of zeros is one black patch."""
NO_PICTURE = (1 << BITS["index"]) - 1
"""Index while the playlist has not begun, or could not read a picture."""
OVER = NO_PICTURE - 1
"""Index when the playlist is over."""
MOST_PICTURES = OVER
LONGEST_COUNT = (1 << BITS["since"]) - 1
"""Frames since or until a change beyond which nothing is counted."""
FRACTION = 1 << BITS["width"]
"""Sides of the picture are counted in this many parts of the frame's."""

COLUMNS = 80
"""Cells across a frame."""
BAND = 8
"""Cells across a band, its white edges included; also the side of a corner with its own."""
MODULES_ACROSS, MODULES_DOWN = 4, 22
"""Modules of one band; they have six cells of its width."""
FEWEST_ROWS, MOST_ROWS = 34, 240
"""Cells down a frame: the modules would be too flat, and the ArUco numbers do not reach."""
SMALLEST_WIDTH, LARGEST_WIDTH = 320, 4096
"""Of a frame; beyond, a side of the picture could not be told to the pixel."""
BLACK, GREY, WHITE = 24, 128, 232
"""Away from the ends of the range, where an encoder or a screen may clip."""
BLOCK = 16
"""Pixels: the side of the largest block that JPEG treats as one."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, kw_only=True)
class Marker:
    """What the modules of one frame say; each value fits into its `BITS`."""

    version: int = VERSION
    width: int
    """Of the picture, in `FRACTION` parts of the frame's."""
    height: int
    index: int
    """Of the picture in its playlist, or `NO_PICTURE`, or `OVER`."""
    playlist: int
    """The playlist's identity."""
    pixels: int
    """The start of the hash of the picture as it was read: whether both sides mean the same."""
    clock_ms: int
    """Of `time.monotonic_ns` when the frame was drawn."""
    since: int
    """Frames that this picture has been shown for, this one not counted."""
    until: int
    """Frames of this picture that are still to come."""
    machine: int
    """Whose clock it is; 0 where the frame was drawn for later and the clock says nothing."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where everything is in a frame of a given size; positions in cells, (x, y)."""

    width: int
    height: int

    def __post_init__(self) -> None:
        fits = SMALLEST_WIDTH <= self.width <= LARGEST_WIDTH
        if not fits or self.width % 4 or self.height % 4:
            raise UsageError(
                f"size {self.width}x{self.height}: both must be multiples of 4 and the width "
                f"{SMALLEST_WIDTH} to {LARGEST_WIDTH}, such as 640x480 or 1280x720"
            )
        if not FEWEST_ROWS <= self.rows <= MOST_ROWS:
            raise UsageError(
                f"size {self.width}x{self.height}: is too {'flat' if self.rows < 80 else 'tall'} "
                "for the marker; give one nearer to a square, such as 1280x720"
            )

    @property
    def rows(self) -> int:
        """Return how many cells stand one below the other; they are squares, or nearly."""
        return round(COLUMNS * self.height / self.width)

    @property
    def area(self) -> tuple[int, int]:
        """Return the first column of pixels between the bands, and the one behind the last."""
        left = -(-self.width * BAND // (COLUMNS * BLOCK)) * BLOCK
        return left, self.width - left

    def fit(self, width: int, height: int) -> tuple[int, int]:
        """Return the size of a picture in the area, in pixels that are multiples of 4."""
        left, right = self.area
        scale = min((right - left) / width, self.height / height)
        across, down = (max(4, 4 * round(side * scale / 4)) for side in (width, height))
        return min(across, (right - left) // 4 * 4), min(down, self.height)


def aruco_dictionary() -> cv2.aruco.Dictionary:
    """Return the ArUco markers that the corners are of."""
    return cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_1000)


def corner_number(rows: int, corner: int) -> int:
    """Return the ArUco number of a corner (0 to 3, clockwise from the upper left).

    It tells the shape of the frame, without which no square can be found in a film of it.
    """
    return 4 * rows + corner


def corner_origin(rows: int, corner: int) -> tuple[int, int]:
    """Return the upper left of a corner's black square, in cells."""
    far = COLUMNS - BAND + 1, rows - BAND + 1
    return (1, far[0], far[0], 1)[corner], (1, 1, far[1], far[1])[corner]


@cache
def module_edges(rows: int) -> tuple[FloatArray, FloatArray]:
    """Return where each module of both bands begins and ends, (modules, 2) in cells, x and y.

    They are in the order of the bits: row by row, the left band's before the right's.
    """
    across, down = 6 / MODULES_ACROSS, (rows - 2 * BAND) / MODULES_DOWN
    starts_x = np.concatenate(
        [start + across * np.arange(MODULES_ACROSS) for start in (1, COLUMNS - BAND + 1)]
    )
    starts_y = BAND + down * np.arange(MODULES_DOWN)
    y, x = np.meshgrid(starts_y, starts_x, indexing="ij")
    x, y = x.ravel(), y.ravel()
    return np.stack([x, x + across], axis=1), np.stack([y, y + down], axis=1)


def encode(marker: Marker) -> npt.NDArray[np.bool_]:
    """Return the modules that say it, (176,), True for white."""
    number = 0
    for field, value in zip(fields(marker), astuple(marker), strict=True):
        bits = BITS[field.name]
        if not 0 <= value < 1 << bits:
            raise ValueError(f"{field.name} {value} does not fit into {bits} bits")
        number = number << bits | value
    payload = number.to_bytes(PAYLOAD_BYTES, "big")
    word = payload + zlib.crc32(payload).to_bytes(CHECKSUM_BYTES, "big")
    return np.unpackbits(np.frombuffer(word, np.uint8) ^ WHITENING).astype(bool)


def decode(modules: npt.NDArray[np.bool_]) -> Marker | None:
    """Return what (176,) modules say; None where they contradict themselves."""
    word = (np.packbits(modules) ^ WHITENING).tobytes()
    payload, checksum = word[:PAYLOAD_BYTES], word[PAYLOAD_BYTES:]
    if zlib.crc32(payload).to_bytes(CHECKSUM_BYTES, "big") != checksum:
        return None
    number, values = int.from_bytes(payload, "big"), {}
    for name in reversed(BITS):
        values[name] = number & ((1 << BITS[name]) - 1)
        number >>= BITS[name]
    return Marker(**values) if values["version"] == VERSION else None


def pixels_check(sha256: str) -> int:
    """Return what a marker says of a picture's pixels, whose sha256 is given."""
    return int(sha256[:3], 16)


def this_machine() -> int:
    """Return whose monotonic clock this is, by the boot that it counts from; 0 if unknown."""
    try:
        boot = BOOT_ID.read_bytes()
    except OSError:
        return 0
    number = int.from_bytes(hashlib.sha256(boot).digest()[:2], "big")
    return number % ((1 << BITS["machine"]) - 1) + 1


class Canvas:
    """A frame to draw on: a picture is laid on it once, then the marker as often as it changes."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._blank = _blank(layout)
        self._modules = _module_map(layout)

    def lay(self, picture: UInt8Array | None) -> tuple[UInt8Array, int, int]:
        """Return a frame (H, W, 3) BGR with an upright RGB picture on it, and the marker's size.

        That is the picture's width and height as a `Marker` says them. The whole picture is there,
        as large as fits; None leaves the area grey.
        """
        frame = self._blank.copy()
        if picture is None:
            return frame, 0, 0
        width, height = self.layout.fit(picture.shape[1], picture.shape[0])
        x, y = (self.layout.width - width) // 2, (self.layout.height - height) // 2
        frame[y : y + height, x : x + width] = resize(picture, (width, height))[:, :, ::-1]
        return (
            frame,
            round(width * FRACTION / self.layout.width),
            min(FRACTION - 1, round(height * FRACTION / self.layout.height)),
        )

    def mark(self, frame: UInt8Array, marker: Marker) -> None:
        """Draw `marker` onto a frame that `lay` returned."""
        rows, columns, module = self._modules
        frame[rows, columns] = np.where(encode(marker), WHITE, BLACK)[module][:, None]


def _blank(layout: Layout) -> UInt8Array:
    frame = np.full((layout.height, layout.width, 3), GREY, np.uint8)
    edges_x, edges_y = _edges(layout)
    for start in (0, COLUMNS - BAND):
        frame[:, edges_x[start] : edges_x[start + BAND]] = WHITE
    left, right = layout.area
    frame[:, edges_x[BAND] : left] = frame[:, right : edges_x[COLUMNS - BAND]] = WHITE
    for corner in range(4):
        x, y = corner_origin(layout.rows, corner)
        for row, column in np.argwhere(corner_pattern(layout.rows, corner) == 0):
            top, bottom = edges_y[y + row], edges_y[y + row + 1]
            frame[top:bottom, edges_x[x + column] : edges_x[x + column + 1]] = BLACK
    return frame


def corner_pattern(rows: int, corner: int) -> UInt8Array:
    """Return the cells of a corner's square, (6, 6), 0 for black and 255 for white."""
    number = corner_number(rows, corner)
    return np.asarray(cv2.aruco.generateImageMarker(aruco_dictionary(), number, 6), np.uint8)


def _edges(layout: Layout) -> tuple[IndexArray, IndexArray]:
    """Return the first pixel of each cell, and the one behind the last, across and down."""
    return (
        _pixels(np.arange(COLUMNS + 1), layout.width, COLUMNS),
        _pixels(np.arange(layout.rows + 1), layout.height, layout.rows),
    )


def _pixels(cells: FloatArray | IndexArray, side: int, count: int) -> IndexArray:
    return np.rint(cells * side / count).astype(np.intp)


def _module_map(layout: Layout) -> tuple[IndexArray, IndexArray, IndexArray]:
    """Return row and column of each pixel of the modules, and whose it is."""
    x, y = module_edges(layout.rows)
    across, down = _pixels(x, layout.width, COLUMNS), _pixels(y, layout.height, layout.rows)
    owner = np.full((layout.height, layout.width), -1, np.intp)
    for module, ((left, right), (top, bottom)) in enumerate(zip(across, down, strict=True)):
        owner[top:bottom, left:right] = module
    rows, columns = np.nonzero(owner >= 0)
    return rows, columns, owner[rows, columns]
