"""What captures have in common: reading back what they really deliver, and when it was taken."""

from __future__ import annotations

import math

import cv2

from edgenet.stream.frame import Clock, Delivered

OLDEST_S = 5.0
"""A picture whose clock says more did not lie about so long: that is another clock."""


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


def capture_time(stamp_ns: int, here_ns: int, clock: Clock) -> tuple[int, Clock]:
    """Return when a picture was taken and who says so: a stamp of `clock` if it can be true.

    Drivers stamp with the monotonic clock, or with another, or not at all.
    """
    if 0 < stamp_ns <= here_ns < stamp_ns + OLDEST_S * 1e9:
        return stamp_ns, clock
    return here_ns, Clock.ARRIVAL
