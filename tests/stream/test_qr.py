"""The QR code in the terminal, read as a phone reads it."""

import sys

import cv2
import numpy as np
import pytest

from edgenet.errors import MissingExtra
from edgenet.stream.viewer.qr import qr_code

URL = "http://192.168.178.123:8080/?token=Dr4FfbOlN4x3v_Q7a-3gNQ"
HALVES = {"\N{FULL BLOCK}": (1, 1), "\N{UPPER HALF BLOCK}": (1, 0), "\N{LOWER HALF BLOCK}": (0, 1)}


def picture_of(lines):
    """Return what a dark terminal shows: two rows of modules a line, blocks are light."""
    rows = []
    for line in lines:
        halves = [HALVES.get(letter, (0, 0)) for letter in line]
        rows += [[upper for upper, _ in halves], [lower for _, lower in halves]]
    modules = np.array(rows, np.uint8) * 255
    return np.kron(modules, np.ones((8, 8), np.uint8))


def test_it_is_read_back():
    lines = qr_code(URL, coloured=False).splitlines()
    assert len(lines) <= 24, "the terminal of a serial line"
    text, _, _ = cv2.QRCodeDetector().detectAndDecode(picture_of(lines))
    assert text == URL


def test_colours_do_not_change_what_is_read():
    plain = qr_code(URL, coloured=False).splitlines()
    coloured = qr_code(URL, coloured=True).splitlines()
    assert [line.removeprefix("\033[97;40m").removesuffix("\033[0m") for line in coloured] == plain


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "segno", None)
    with pytest.raises(MissingExtra, match=r"edgenet\[viewer\]"):
        qr_code(URL, coloured=False)
