"""The way of a frame: the same bits as every other way to the network, and times that add up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenet import runtimes
from edgenet.bundle import Precision
from edgenet.errors import BadImage
from edgenet.measure.classify import classify
from edgenet.preprocess import Preprocessing, prepare, prepare_bgr
from edgenet.stream.pipeline import Pipeline
from tests.stream.results import MS, HandClock, make_frame


@st.composite
def pictures(draw):
    """A picture of noise or of slopes, and a preprocessing whose crop fits into it."""
    height, width = draw(st.integers(16, 400)), draw(st.integers(16, 400))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    picture = rng.integers(0, 256, (height, width, 3), np.uint8)
    crop = None
    if draw(st.booleans()):
        x, y = draw(st.integers(0, width - 8)), draw(st.integers(0, height - 8))
        crop = (x, y, draw(st.integers(8, width - x)), draw(st.integers(8, height - y)))
    preprocessing = Preprocessing(
        resolution=draw(st.sampled_from([32, 64, 96, 224])),
        crop_fraction=draw(st.sampled_from([0.5, 0.875, 1.0])),
        crop=crop,
    )
    return picture, preprocessing


@settings(max_examples=150, deadline=None)
@given(pictures())
def test_blue_first_gives_the_same_bits(given_):
    rgb, preprocessing = given_
    bgr = np.ascontiguousarray(rgb[:, :, ::-1])
    found = prepare_bgr(bgr, preprocessing)
    assert np.array_equal(found, prepare(rgb, preprocessing))
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous


@pytest.mark.parametrize("width", [63, 64])
def test_a_view_of_a_frame_is_as_good_as_a_copy(width):
    whole = np.random.default_rng(1).integers(0, 256, (90, 130, 3), np.uint8)
    part = whole[7:71, 9 : 9 + width]
    preprocessing = Preprocessing(resolution=32)
    assert not part.flags.c_contiguous
    assert np.array_equal(prepare_bgr(part, preprocessing), prepare_bgr(part.copy(), preprocessing))


def test_the_label_of_a_frame_is_that_of_its_file(small_bundle, tmp_path):
    import cv2

    rgb = np.random.default_rng(3).integers(0, 256, (70, 90, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "picture.png"), rgb[:, :, ::-1])
    (artifact,) = small_bundle.select(("onnxruntime",), (Precision.FLOAT32,))
    (expected,) = classify(small_bundle, [artifact], [tmp_path / "picture.png"], count=5)
    session = runtimes.load("onnxruntime", small_bundle.path(artifact), threads=1)
    pipeline = Pipeline(session, small_bundle.preprocessing, small_bundle.labels)
    frame = make_frame(bgr=np.ascontiguousarray(rgb[:, :, ::-1]))
    found = pipeline.label(frame, taken_ns=0)
    session.close()
    assert found.guesses == expected.guesses
    assert found.frame is frame


class Slow:
    """A session that takes its time, on the test's clock."""

    device = version = ""

    def __init__(self, clock):
        self.clock = clock
        self.seen = []

    def run(self, image):
        self.seen.append(image)
        self.clock.ns += 5 * MS
        return {"logits": np.array([[1, 3, 2]], np.float32)}

    def close(self):
        pass


def test_stages_and_age():
    clock = HandClock()
    pipeline = Pipeline(
        Slow(clock), Preprocessing(resolution=32), ["dog", "cat", "boat"], now=clock
    )
    frame = make_frame(captured_ns=clock.ns - 30 * MS, arrived_ns=clock.ns - 10 * MS)
    result = pipeline.label(frame, taken_ns=clock.ns - 2 * MS)
    assert [guess.label for guess in result.guesses] == ["cat", "boat", "dog"]
    assert result.stages.wait_ns == 8 * MS
    assert result.stages.infer_ns == 5 * MS
    assert result.age_ms == 35


def test_only_the_part_is_seen():
    """Whatever stands in the rest of the frame, the network's input is the same."""
    part = np.random.default_rng(2).integers(0, 256, (40, 40, 3), np.uint8)
    session = Slow(HandClock())
    pipeline = Pipeline(session, Preprocessing(resolution=32), "abc")
    for border in (0, 255):
        bgr = np.full((60, 40, 3), border, np.uint8)
        bgr[20:] = part
        assert pipeline.label(make_frame(bgr=bgr), taken_ns=0, picture=bgr[20:]).frame.bgr is bgr
    assert np.array_equal(*session.seen)


def test_a_crop_that_does_not_fit_is_refused():
    pipeline = Pipeline(Slow(HandClock()), Preprocessing(resolution=32, crop=(0, 0, 100, 9)), "abc")
    with pytest.raises(BadImage, match="crop 0,0,100,9 does not fit into 8 x 8"):
        pipeline.label(make_frame(), taken_ns=0)
