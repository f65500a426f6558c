"""A time in the pixels of a picture: 80 cells of black or white along its upper edge.

Whoever draws a picture writes when; whoever gets it, through whatever encoder and network, sees
how old it is. For benches and tests: it is inside the picture, where a network would see it.
"""

from __future__ import annotations

import zlib

import numpy as np

from edgenet.stream.frame import UInt8Array

COLUMNS, ROWS = 40, 2
NARROWEST = 160
"""Cells of four pixels; below that no encoder would leave them legible."""


def draw_stamp(bgr: UInt8Array, time_ns: int) -> None:
    """Write a time into the upper edge of a (H, W, 3) picture, in place."""
    side = _cell(bgr)
    value = time_ns & (2**64 - 1)
    data = value.to_bytes(8, "big") + _check(value).to_bytes(2, "big")
    bits = np.unpackbits(np.frombuffer(data, np.uint8)).reshape(ROWS, COLUMNS)
    cells = np.where(bits, np.uint8(235), np.uint8(16))
    bgr[: ROWS * side, : COLUMNS * side] = cells.repeat(side, 0).repeat(side, 1)[:, :, None]


def read_stamp(bgr: UInt8Array) -> int | None:
    """Return the time that was written into a picture; None where it cannot be read."""
    side = _cell(bgr)
    if bgr.shape[0] < ROWS * side:
        return None
    edge = bgr[: ROWS * side, : COLUMNS * side, 1].reshape(ROWS, side, COLUMNS, side)
    middle = slice(side // 4, side - side // 4)
    bits = edge[:, middle, :, middle].mean((1, 3)) > 125
    data = np.packbits(bits).tobytes()
    value = int.from_bytes(data[:8], "big")
    return value if _check(value) == int.from_bytes(data[8:], "big") else None


def _cell(bgr: UInt8Array) -> int:
    width = int(bgr.shape[1])
    if width < NARROWEST:
        raise ValueError(f"a stamp needs {NARROWEST} pixels of width, not {width}")
    return width // COLUMNS


def _check(value: int) -> int:
    return zlib.crc32(value.to_bytes(8, "big")) & 0xFFFF
