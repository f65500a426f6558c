"""Reads the marker of `edgenet.stream.marker` off a frame and cuts it away.

The frame is found once by its corners, which takes tens of milliseconds; from then on only the
centres of the cells are looked at, which takes a fraction of one. A frame that is seen whole is cut
without touching a pixel. One that is filmed off a screen is straightened.

What cannot be read, or contradicts itself, is no reading: never a wrong one. It needs numpy and
OpenCV and knows no playlist.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edgenet.preprocess import UInt8Array
from edgenet.stream.marker import (
    COLUMNS,
    FRACTION,
    NO_PICTURE,
    OVER,
    FloatArray,
    IndexArray,
    Marker,
    aruco_dictionary,
    corner_origin,
    corner_pattern,
    decode,
    module_edges,
)

FEWEST_CORNERS = 3
SNAP = 0.006
"""Share of the frame's width by which its corners may miss the picture's and still be them."""
LEAST_CONTRAST = 20
"""Levels between black and white, below which nothing is read."""
GIVE_UP = 3
"""Frames in a row that could not be read, after which the corners are looked for again."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 4.0
"""Between searches that find nothing, each wait twice the one before: a search takes longer than
many a network, and a picture without any marker must not slow the run down."""

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """What the marker of one frame says, and the rest of the frame."""

    marker: Marker
    picture: UInt8Array
    """(H, W, 3) BGR without the marker: a view of the frame, or straightened out of it."""

    @property
    def sample_id(self) -> int | None:
        """Return which picture of its playlist it is; None where none is shown."""
        return None if self.marker.index in (NO_PICTURE, OVER) else self.marker.index

    @property
    def over(self) -> bool:
        """Tell whether the playlist says that it is over."""
        return self.marker.index == OVER

    @property
    def drawn_ns(self) -> int:
        """Return when the frame was drawn, to the millisecond, on the playlist's own clock."""
        return self.marker.clock_ms * 1_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class _Place:
    """Where a frame was found, as indices into the pictures of the source."""

    shape: tuple[int, ...]
    rows: int
    to_pixels: Matrix | None
    """From cells to pixels; None where the frame is all of the picture."""
    modules: tuple[IndexArray, IndexArray]
    """Rows and columns of pixels, (modules, samples) each."""
    levels: tuple[IndexArray, IndexArray]
    """Rows and columns of the cells of all corners, (4, 36) each."""
    is_white: npt.NDArray[np.bool_]
    """Of those cells, (4, 36)."""
    nearness: FloatArray
    """How much each corner counts at each module, (modules, 4)."""


class StripReader:
    """Reads one frame after the other of one source."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        """`now` returns monotonic seconds."""
        self._now = now
        self._place: _Place | None = None
        self._missed = 0
        self._next_search_s = float("-inf")
        self._wait_s = FIRST_WAIT_S
        self.searches = 0
        """How often the corners were looked for."""
        self.times_ns = array("q")
        """What each reading took at a place that was known; without the cutting out."""

    def read(self, bgr: UInt8Array) -> Reading | None:
        """Return what the marker of (H, W, 3) BGR says; None without one that can be read."""
        if self._place is None or self._place.shape != bgr.shape:
            self._place = self._search(bgr)
        if self._place is None:
            return None
        reading = self._read(bgr, self._place)
        if reading is not None:
            self._missed = 0
            return reading
        self._missed += 1
        if self._missed >= GIVE_UP and (moved := self._search(bgr)) is not None:
            self._place = moved
            return self._read(bgr, moved)
        return None

    def _search(self, bgr: UInt8Array) -> _Place | None:
        if self._now() < self._next_search_s:
            return None
        self.searches += 1
        place = find(bgr)
        self._next_search_s = self._now() + self._wait_s
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S) if place is None else FIRST_WAIT_S
        return place

    def _read(self, bgr: UInt8Array, place: _Place) -> Reading | None:
        began = time.perf_counter_ns()
        marker = _sample(bgr, place)
        self.times_ns.append(time.perf_counter_ns() - began)
        if marker is None:
            return None
        return Reading(marker=marker, picture=_cut(bgr, place, marker))


def find(bgr: UInt8Array) -> _Place | None:
    """Return where a frame with a marker is in (H, W, 3) BGR; None where three corners lack."""
    parameters = cv2.aruco.DetectorParameters()
    parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    # The corners say themselves how the frame stands, so that no two of them may disagree.
    detector = cv2.aruco.ArucoDetector(aruco_dictionary(), parameters)
    squares, numbers, _ = detector.detectMarkers(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY))
    by_rows: dict[int, dict[int, FloatArray]] = {}
    for square, number in zip(squares, [] if numbers is None else numbers.ravel(), strict=True):
        rows, corner = divmod(int(number), 4)
        by_rows.setdefault(rows, {})[corner] = square.reshape(4, 2).astype(np.float64)
    if not by_rows:
        return None
    rows, found = max(by_rows.items(), key=lambda item: len(item[1]))
    if len(found) < FEWEST_CORNERS:
        return None
    cells = np.concatenate([_square(rows, corner) for corner in found])
    fitted, _ = cv2.findHomography(cells, np.concatenate(list(found.values())))
    if fitted is None:
        return None
    to_pixels = np.asarray(fitted, np.float64)
    whole = _whole(bgr.shape, rows)
    outline = np.array([[0, 0], [COLUMNS, 0], [COLUMNS, rows], [0, rows]], np.float64)
    missed = np.abs(_project(outline, to_pixels) - _project(outline, whole)).max()
    if missed <= SNAP * bgr.shape[1]:
        return _place(bgr.shape, rows, whole, snapped=True)
    return _place(bgr.shape, rows, to_pixels, snapped=False)


def _square(rows: int, corner: int) -> FloatArray:
    x, y = corner_origin(rows, corner)
    return np.array([[x, y], [x + 6, y], [x + 6, y + 6], [x, y + 6]], np.float64)


def _whole(shape: tuple[int, ...], rows: int) -> Matrix:
    """Return cells to pixels of a frame that fills the picture; pixels count from their centres."""
    across, down = shape[1] / COLUMNS, shape[0] / rows
    return np.array([[across, 0, -0.5], [0, down, -0.5], [0, 0, 1]])


def _project(points: FloatArray, matrix: Matrix) -> FloatArray:
    """Return (n, 2) points through a 3 x 3 matrix."""
    found = points @ matrix[:, :2].T + matrix[:, 2]
    return np.asarray(found[:, :2] / found[:, 2:])


def _place(shape: tuple[int, ...], rows: int, matrix: Matrix, *, snapped: bool) -> _Place:
    x, y = module_edges(rows)
    centres = np.stack([x.mean(axis=1), y.mean(axis=1)], axis=1)
    sides = np.stack([x[:, 1] - x[:, 0], y[:, 1] - y[:, 0]], axis=1)
    # Nine points in the inner half of each module: noise and ringing average out.
    steps = np.stack(np.meshgrid([-0.25, 0, 0.25], [-0.25, 0, 0.25]), axis=-1).reshape(9, 2)
    points = (centres[:, None] + steps[None] * sides[:, None]).reshape(-1, 2)
    corners = [
        np.add(corner_origin(rows, corner), 0.5) + np.argwhere(np.ones((6, 6)))[:, ::-1]
        for corner in range(4)
    ]
    right, low = (centres / (COLUMNS, rows)).T
    return _Place(
        shape=shape,
        rows=rows,
        to_pixels=None if snapped else matrix,
        modules=_indices(points, matrix, shape, (len(centres), len(steps))),
        levels=_indices(np.concatenate(corners), matrix, shape, (4, 36)),
        is_white=np.array([corner_pattern(rows, corner).ravel() > 0 for corner in range(4)]),
        nearness=np.stack(
            [(1 - right) * (1 - low), right * (1 - low), right * low, (1 - right) * low], axis=1
        ),
    )


def _indices(
    points: FloatArray, matrix: Matrix, shape: tuple[int, ...], form: tuple[int, int]
) -> tuple[IndexArray, IndexArray]:
    pixels = np.rint(_project(points, matrix)).astype(np.intp)
    columns, rows = (
        pixels[:, axis].clip(0, limit - 1) for axis, limit in ((0, shape[1]), (1, shape[0]))
    )
    return rows.reshape(form), columns.reshape(form)


def _sample(bgr: UInt8Array, place: _Place) -> Marker | None:
    """Return what the modules say, by the black and white of the corners near each of them.

    Green alone is looked at: it is most of the brightness, and the marker has no colours.
    """
    green = bgr[:, :, 1]
    levels = green[place.levels].astype(np.float64)
    white = (levels * place.is_white).sum(axis=1) / place.is_white.sum(axis=1)
    black = (levels * ~place.is_white).sum(axis=1) / (~place.is_white).sum(axis=1)
    clear = white - black >= LEAST_CONTRAST
    if clear.sum() < FEWEST_CORNERS:
        return None
    middle = np.where(clear, (white + black) / 2, ((white + black) / 2)[clear].mean())
    threshold = place.nearness @ middle
    return decode(green[place.modules].mean(axis=1) > threshold)


def _cut(bgr: UInt8Array, place: _Place, marker: Marker) -> UInt8Array:
    """Return the picture alone; all between the bands where none is shown."""
    if not marker.width or not marker.height:
        marker_width, marker_height = FRACTION * 3 // 4, FRACTION
    else:
        marker_width, marker_height = marker.width, marker.height
    if marker_height == FRACTION - 1:  # all of the frame, which is one more than a marker can say
        marker_height = FRACTION
    if place.to_pixels is None:
        height, width = bgr.shape[:2]
        across = round(marker_width * width / FRACTION)
        down = round(marker_height * height / FRACTION)
        x, y = (width - across) // 2, (height - down) // 2
        return bgr[y : y + down, x : x + across]
    centre = np.array([COLUMNS, place.rows]) / 2
    half = np.array([marker_width * COLUMNS, marker_height * place.rows]) / FRACTION / 2
    corners = centre + half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    seen = _project(corners, place.to_pixels)
    top, right, bottom, left = np.linalg.norm(np.roll(seen, -1, axis=0) - seen, axis=1)
    width, height = max(1, round((top + bottom) / 2)), max(1, round((left + right) / 2))
    flat = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64) - 0.5
    matrix = cv2.getPerspectiveTransform(seen.astype(np.float32), flat.astype(np.float32))
    return np.asarray(
        cv2.warpPerspective(
            bgr, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        ),
        np.uint8,
    )
