"""A frame as JPEG: without its label for the page, which writes it itself, or with it."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

# Ours first: it silences OpenCV, and says what to install where it is missing.
from edgenet.stream.drawing import shrink, with_label
from edgenet.stream.frame import UInt8Array  # isort: split

import cv2

LONGEST_SIDE = 1280
"""A larger picture is shrunk: the network sees 224 pixels, a phone hardly more than these."""
QUALITY = 80


class Kind(str, Enum):
    """Which picture somebody wants."""

    CLEAN = "clean"
    LABELLED = "labelled"


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """JPEG files of one frame, and what they took."""

    jpegs: Mapping[Kind, bytes]
    times: Mapping[str, int]
    """`encode_ns` of one of them, shrinking included, and `draw_ns` where a label was drawn."""


def use_one_thread() -> None:
    """Leave the other cores to the run."""
    cv2.setNumThreads(1)


def encode(bgr: UInt8Array, result: Mapping[str, Any], kinds: Collection[Kind]) -> Encoded:
    """Return the kinds of pictures that are asked for; `bgr` is not changed."""
    began = time.perf_counter_ns()
    small = shrink(bgr, longest_side=LONGEST_SIDE)
    shrunk = time.perf_counter_ns()
    jpegs: dict[Kind, bytes] = {}
    times: dict[str, int] = {}
    for kind in kinds:
        picture = small
        if kind is Kind.LABELLED:
            before = time.perf_counter_ns()
            picture = with_label(small, result)
            times["draw_ns"] = time.perf_counter_ns() - before
        before = time.perf_counter_ns()
        _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        times["encode_ns"] = time.perf_counter_ns() - before + shrunk - began
        jpegs[kind] = data.tobytes()
    return Encoded(jpegs=jpegs, times=times)
