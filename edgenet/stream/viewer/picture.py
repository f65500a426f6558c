"""A frame as JPEG: without its label for the page, which writes it itself, or with it."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

# Ours first: it silences OpenCV, and says what to install where it is missing.
from edgenet.preprocess import UInt8Array  # isort: split

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
    small = shrink(bgr)
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


def shrink(bgr: UInt8Array) -> UInt8Array:
    """Return the picture with no side above `LONGEST_SIDE`, itself where that is so already."""
    height, width = bgr.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    if scale >= 1:
        return bgr
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(bgr, size, interpolation=cv2.INTER_AREA), np.uint8)


def with_label(bgr: UInt8Array, result: Mapping[str, Any]) -> UInt8Array:
    """Return a copy with the best label and how sure it is in a dark strip at the bottom."""
    picture: UInt8Array = bgr.copy()
    height, width = picture.shape[:2]
    strip = max(24, height // 12)
    picture[-strip:] //= 4
    scale = strip / 40
    cv2.putText(
        picture,
        _text(result, most=max(8, int(width / (18 * scale)))),
        (strip // 3, height - strip // 3),
        cv2.FONT_HERSHEY_SIMPLEX,
        scale,
        (255, 255, 255),
        max(1, round(2 * scale)),
        cv2.LINE_AA,
    )
    return picture


def _text(result: Mapping[str, Any], *, most: int) -> str:
    """Return the label in the letters that OpenCV's font has, shortened to `most` of them."""
    best = result["guesses"][0]
    sure = "" if best["probability"] is None else f"  {100 * best['probability']:.0f} %"
    plain = unicodedata.normalize("NFKD", best["label"]).encode("ascii", "ignore").decode()
    room = max(1, most - len(sure))
    return (plain if len(plain) <= room else plain[: room - 2] + "..") + sure
