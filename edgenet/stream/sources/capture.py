"""What OpenCV's captures have in common: reading back what they really deliver."""

from __future__ import annotations

import math

import cv2

from edgenet.stream.frame import Delivered


def delivered_by(capture: cv2.VideoCapture) -> Delivered:
    """Return what an open capture says of itself."""
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return Delivered(
        width=int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
        height=int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        frames_per_second=fps if math.isfinite(fps) and 0 < fps < 1000 else None,
        format=_fourcc(int(capture.get(cv2.CAP_PROP_FOURCC))),
    )


def _fourcc(code: int) -> str | None:
    text = "".join(chr(code >> shift & 255) for shift in (0, 8, 16, 24))
    return text if text.isprintable() and text.strip() else None
