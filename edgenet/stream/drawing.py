"""A label in the pixels of its frame, for whoever shows pictures and no text beside them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np

# Ours first: it silences OpenCV, and says what to install where it is missing.
from edgenet.preprocess import UInt8Array  # isort: split

import cv2


def shrink(bgr: UInt8Array, *, longest_side: int) -> UInt8Array:
    """Return the picture with no side above `longest_side`, itself where that is so already."""
    height, width = bgr.shape[:2]
    scale = longest_side / max(height, width)
    if scale >= 1:
        return bgr
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(bgr, size, interpolation=cv2.INTER_AREA), np.uint8)


def with_label(bgr: UInt8Array, result: Mapping[str, Any]) -> UInt8Array:
    """Return a copy with the best label and how sure it is in a dark strip at the bottom."""
    height = bgr.shape[0]
    strip = max(24, height // 12)
    best = result["guesses"][0]
    sure = "" if best["probability"] is None else f"  {100 * best['probability']:.0f} %"
    name = _plain(best["label"]) or f"class {best['index']}"
    return _with_strip(bgr, slice(max(0, height - strip), height), name, sure)


def with_fault(bgr: UInt8Array, fault: str) -> UInt8Array:
    """Return a copy with what is wrong with its source in a dark strip at the top."""
    return _with_strip(bgr, slice(0, max(24, bgr.shape[0] // 16)), f"! {_plain(fault)}", "")


def _with_strip(bgr: UInt8Array, rows: slice, text: str, ending: str) -> UInt8Array:
    """Return a copy with a line of text on rows of it; the text is cut where there is no room."""
    picture: UInt8Array = bgr.copy()
    picture[rows] //= 4
    strip = rows.stop - rows.start
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, strip / 40
    thickness, margin = max(1, round(2 * scale)), strip // 3

    def width(line: str) -> int:
        return int(cv2.getTextSize(line, font, scale, thickness)[0][0])

    room = bgr.shape[1] - 2 * margin
    line = text + ending
    while len(text) > 1 and width(line) > room:
        text = text[:-1]
        line = f"{text}..{ending}"
    cv2.putText(
        picture,
        line,
        (margin, rows.stop - margin),
        font,
        scale,
        (255, 255, 255),
        thickness,
        cv2.LINE_AA,
    )
    return picture


def _plain(text: str) -> str:
    """Return a text in the letters that OpenCV's font has."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().strip()
