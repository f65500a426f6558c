"""A time in the pixels survives what pictures go through."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenet.stream.stamp import draw_stamp, read_stamp


def picture(width=640):
    return np.random.default_rng(1).integers(0, 256, (96, width, 3), np.uint8)


@given(st.integers(0, 2**64 - 1), st.sampled_from([160, 320, 640, 641, 1280]))
def test_what_was_written_is_read(time_ns, width):
    bgr = picture(width)
    draw_stamp(bgr, time_ns)
    assert read_stamp(bgr) == time_ns


@pytest.mark.parametrize("quality", [30, 80])
def test_through_jpeg(quality):
    for time_ns in range(0, 2**62, 2**57 + 12345):
        bgr = picture()
        draw_stamp(bgr, time_ns)
        _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert read_stamp(cv2.imdecode(data, cv2.IMREAD_COLOR)) == time_ns


def test_what_is_none_is_not_read():
    assert read_stamp(picture()) is None
    assert read_stamp(np.zeros((8, 640, 3), np.uint8)) is None
    with pytest.raises(ValueError, match="160 pixels"):
        read_stamp(picture(100))
