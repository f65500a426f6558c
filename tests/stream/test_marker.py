"""What is drawn is what is read: through codecs, resizing and a camera's view of a screen."""

import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenet.data.photographs import calibration_set, labelled
from edgenet.errors import UsageError
from edgenet.preprocess import Preprocessing, prepare, resize
from edgenet.stream.marker import (
    BITS,
    COLUMNS,
    MODULES_DOWN,
    NO_PICTURE,
    OVER,
    Canvas,
    Layout,
    Marker,
    corner_origin,
    decode,
    encode,
    this_machine,
)
from edgenet.stream.strip_reader import StripReader

VGA, HD = Layout(width=640, height=480), Layout(width=1280, height=720)
SIZES = [(640, 480), (1280, 720), (640, 360), (320, 240), (480, 640), (800, 600), (1920, 1080)]
PREPROCESSING = Preprocessing(resolution=224)

values = {
    name: st.integers(0, 2**bits - 1)
    for name, bits in BITS.items()
    if name not in ("version", "width", "height")
}
said = st.fixed_dictionaries(values)


@pytest.fixture(scope="module")
def pictures():
    return [sample.read() for sample in calibration_set().samples[::9]]


def drawn(layout, picture, **fields):
    """Return a frame and the marker on it."""
    canvas = Canvas(layout)
    frame, width, height = canvas.lay(picture)
    defaults = dict.fromkeys(values, 5)
    marker = Marker(**{**defaults, **fields}, width=width, height=height)
    canvas.mark(frame, marker)
    return frame, marker


def jpeg(frame, quality):
    return cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)


def network_input(frame):
    reading = StripReader().read(frame)
    assert reading is not None
    return prepare(reading.picture, PREPROCESSING)[..., ::-1]


@given(said)
def test_modules_say_what_was_encoded(fields):
    marker = Marker(**fields, width=1, height=2)
    modules = encode(marker)
    assert modules.shape == (2 * 4 * MODULES_DOWN,)
    assert decode(modules) == marker


@given(said, st.sets(st.integers(0, 175), min_size=1, max_size=176))
def test_modules_turned_over_say_nothing(fields, turned):
    modules = encode(Marker(**fields, width=1, height=2))
    modules[list(turned)] ^= True
    assert decode(modules) is None


@given(st.binary(min_size=22, max_size=22))
def test_any_modules_say_nothing(word):
    """What a picture without a marker may look like."""
    assert decode(np.unpackbits(np.frombuffer(word, np.uint8)).astype(bool)) is None


def test_another_version_says_nothing():
    fields = dict.fromkeys(values, 5)
    assert decode(encode(Marker(**fields, width=1, height=2, version=2))) is None


def test_values_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="index 1048576 does not fit into 20 bits"):
        encode(Marker(**{**dict.fromkeys(values, 0), "index": 1 << 20}, width=1, height=2))


@pytest.mark.parametrize("size", SIZES)
def test_drawn_and_read(size, pictures):
    for picture in pictures[:4]:
        frame, marker = drawn(Layout(width=size[0], height=size[1]), picture)
        reading = StripReader().read(frame)
        assert reading.marker == marker
        width, height = Layout(width=size[0], height=size[1]).fit(
            picture.shape[1], picture.shape[0]
        )
        assert reading.picture.shape == (height, width, 3)
        assert np.shares_memory(reading.picture, frame)
        # The whole picture and nothing else.
        assert np.array_equal(reading.picture, resize(picture, (width, height))[:, :, ::-1])


@pytest.mark.parametrize("size", [(3840, 2160), (4096, 4096)])
def test_no_row_of_a_large_frame_is_lost(size):
    layout = Layout(width=size[0], height=size[1])
    picture = np.random.default_rng(0).integers(0, 256, (1440, 960, 3), np.uint8)
    frame, _ = drawn(layout, picture)
    width, height = layout.fit(960, 1440)
    assert height == size[1]
    shown = resize(picture, (width, height))[:, :, ::-1]
    assert np.array_equal(StripReader().read(frame).picture, shown)


def test_a_picture_shown_at_its_own_size_reaches_the_network_bit_for_bit():
    """So nothing but its resize, and what codec or camera do, is in the camera's loss."""
    dataset = labelled()
    for sample in dataset.samples:
        picture = sample.read()
        assert Layout(width=400, height=256).fit(256, 256) == picture.shape[:2] == (256, 256)
        frame, _ = drawn(Layout(width=400, height=256), picture)
        assert np.array_equal(network_input(frame), prepare(picture, PREPROCESSING))


@pytest.mark.parametrize("size", SIZES)
def test_the_network_sees_the_picture_as_shown_and_none_of_the_grey(size, pictures):
    layout = Layout(width=size[0], height=size[1])
    for picture in pictures:
        frame, _ = drawn(layout, picture)
        shown = resize(picture, layout.fit(picture.shape[1], picture.shape[0]))
        assert np.array_equal(network_input(frame), prepare(shown, PREPROCESSING))


@settings(max_examples=30, deadline=None)
@given(st.integers(80, 400), st.integers(80, 400), said, st.integers(0, 2**32 - 1))
def test_every_size_that_is_allowed(width, height, fields, seed):
    width, height = 4 * width, 4 * height
    try:
        layout = Layout(width=width, height=height)
    except UsageError:
        assert not 34 <= round(80 * height / width) <= 240
        return
    picture = np.random.default_rng(seed).integers(0, 256, (60, 90, 3), np.uint8)
    frame, marker = drawn(layout, picture, **fields)
    assert StripReader().read(frame).marker == marker


@pytest.mark.parametrize(
    ("size", "wrong"),
    [
        ((641, 480), "multiples of 4"),
        ((160, 120), "320 to 4096"),
        ((4160, 3120), "320 to 4096"),
        ((1600, 320), "too flat"),
    ],
)
def test_sizes_that_are_refused(size, wrong):
    with pytest.raises(UsageError, match=wrong):
        Layout(width=size[0], height=size[1])


@settings(max_examples=25, deadline=None)
@given(said, said)
def test_the_network_sees_the_same_bits_whatever_the_marker_says(one, other):
    picture = calibration_set().samples[7].read()
    frames = [drawn(VGA, picture, **fields)[0] for fields in (one, other)]
    inputs = [network_input(frame) for frame in frames]
    assert inputs[0].tobytes() == inputs[1].tobytes()
    # Through JPEG as well: no block holds pixels of both.
    for quality in (10, 50, 95):
        inputs = [network_input(jpeg(frame, quality)) for frame in frames]
        assert inputs[0].tobytes() == inputs[1].tobytes()


@pytest.mark.parametrize("size", SIZES)
def test_the_same_bits_through_jpeg_at_every_size(size, pictures):
    layout = Layout(width=size[0], height=size[1])
    for picture in pictures[:3]:
        one, other = (
            network_input(jpeg(drawn(layout, picture, clock_ms=clock)[0], 30))
            for clock in (0, 2**40 - 1)
        )
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("quality", range(10, 100, 10))
def test_through_jpeg(quality, pictures):
    for layout in (VGA, HD, Layout(width=320, height=240)):
        reader = StripReader()
        for number, picture in enumerate(pictures):
            frame, marker = drawn(layout, picture, index=number, clock_ms=number * 7919)
            assert reader.read(jpeg(frame, quality)).marker == marker


@pytest.mark.parametrize("scale", [0.4, 0.5, 0.6, 0.75, 1.3, 2])
@pytest.mark.parametrize("interpolation", [cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_NEAREST])
def test_resized(scale, interpolation, pictures):
    for picture in pictures[::3]:
        frame, marker = drawn(HD, picture)
        seen = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=interpolation)
        reading = StripReader().read(seen)
        assert reading.marker == marker
        ratio = reading.picture.shape[1] / reading.picture.shape[0]
        assert ratio == pytest.approx(picture.shape[1] / picture.shape[0], rel=0.02)


def filmed(frame, seed):
    """Return a camera's view of a screen: askew, unevenly lit, blurred, noisy, in MJPEG."""
    draw = np.random.default_rng(seed)
    height, width = frame.shape[:2]
    outline = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    corners = np.array([[90, 60], [1170, 90], [1120, 660], [130, 640]], np.float32)
    corners += draw.uniform(-35, 35, corners.shape).astype(np.float32)
    matrix = cv2.getPerspectiveTransform(outline, corners)
    room = np.full((720, 1280, 3), (60, 70, 80), np.uint8)
    seen = cv2.warpPerspective(
        frame, matrix, (1280, 720), dst=room, borderMode=cv2.BORDER_TRANSPARENT
    )
    light = np.linspace(0.55, 1.0, 1280)[None, :, None] * np.linspace(0.9, 1.0, 720)[:, None, None]
    seen = cv2.GaussianBlur(seen, (0, 0), 1.2) * light + 10 + draw.normal(0, 5, seen.shape)
    return jpeg(seen.clip(0, 255).astype(np.uint8), 70), matrix


@pytest.mark.parametrize("seed", range(8))
def test_filmed_off_a_screen(seed, pictures):
    picture = pictures[seed % len(pictures)]
    frame, marker = drawn(HD, picture)
    seen, _ = filmed(frame, seed)
    reading = StripReader().read(seen)
    assert reading.marker == marker
    # What is straightened is the picture, to the pixel.
    width, height = reading.picture.shape[1::-1]
    expected = cv2.resize(picture, (width, height)).mean(axis=2).astype(np.float32)
    straight = reading.picture.mean(axis=2).astype(np.float32)
    shift, _ = cv2.phaseCorrelate(expected, straight)
    assert np.hypot(*shift) < 1.5
    assert np.corrcoef(expected.ravel(), straight.ravel())[0, 1] > 0.8


def test_filmed_the_picture_is_the_same_whatever_the_marker_says(pictures):
    views = []
    for clock in (0, 2**40 - 1):
        frame, _ = drawn(HD, pictures[2], clock_ms=clock)
        matrix = cv2.getPerspectiveTransform(
            np.array([[0, 0], [1280, 0], [1280, 720], [0, 720]], np.float32),
            np.array([[80, 60], [1180, 90], [1120, 660], [130, 640]], np.float32),
        )
        views.append(cv2.warpPerspective(frame, matrix, (1280, 720)))
    reader = StripReader()
    one, other = (reader.read(view).picture.tobytes() for view in views)
    assert reader.searches == 1
    assert one == other


def test_upside_down_and_sideways(pictures):
    frame, marker = drawn(HD, pictures[0])
    for turn in (cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_90_COUNTERCLOCKWISE):
        reading = StripReader().read(cv2.rotate(frame, turn))
        assert reading.marker == marker
        expected = StripReader().read(frame).picture
        assert reading.picture.shape == expected.shape
        assert np.abs(reading.picture.astype(int) - expected).mean() < 6


@pytest.mark.parametrize("corner", range(4))
def test_one_corner_hidden(corner, pictures):
    """A lamp's reflection, or a thumb."""
    frame, marker = drawn(HD, pictures[0])
    seen, matrix = filmed(frame, 3)
    centre = 16 * (np.array([[corner_origin(45, corner)]], np.float32) + 3)
    ((x, y),) = cv2.perspectiveTransform(centre, matrix).astype(int)[0]
    seen[max(0, y - 30) : y + 30, max(0, x - 30) : x + 30] = 120
    assert StripReader().read(seen).marker == marker


def test_pictures_without_a_marker_are_never_read():
    reader = StripReader(now=iter(range(0, 10**6, 10)).__next__)
    for sample in calibration_set().samples:
        assert reader.read(np.ascontiguousarray(sample.read()[:, :, ::-1])) is None
    assert reader.searches > 100


@settings(max_examples=40, deadline=None)
@given(st.integers(70, 410), said, said)
def test_a_frame_torn_between_two_says_nothing_or_one_of_them(row, one, other):
    """A rolling shutter shows the upper part of one frame and the lower part of the next."""
    picture = calibration_set().samples[7].read()
    (upper, first), (lower, second) = drawn(VGA, picture, **one), drawn(VGA, picture, **other)
    torn = np.concatenate([upper[:row], lower[row:]])
    reading = StripReader().read(torn)
    assert reading is None or reading.marker in (first, second)


def test_a_blend_of_two_frames_says_nothing_or_one_of_them(pictures):
    """A long exposure mixes two frames."""
    (one, first), (other, second) = (
        drawn(VGA, pictures[0], clock_ms=clock) for clock in (123_456, 123_489)
    )
    for share in np.linspace(0, 1, 21):
        blended = cv2.addWeighted(one, 1 - share, other, share, 0)
        reading = StripReader().read(blended)
        assert reading is None or reading.marker in (first, second)


def test_nothing_and_the_end_are_told_apart():
    for index, over in ((NO_PICTURE, False), (OVER, True)):
        frame, _ = drawn(VGA, None, index=index)
        reading = StripReader().read(frame)
        assert (reading.sample_id, reading.over) == (None, over)
        assert reading.picture.shape == (480, 480, 3)


def test_a_place_that_is_known_is_read_in_less_than_a_millisecond(pictures):
    frame, _ = drawn(HD, pictures[0])
    reader = StripReader()
    for _ in range(300):
        assert reader.read(frame)
    assert reader.searches == 1
    assert np.median(reader.times_ns) < 1e6


def test_another_size_in_mid_stream_is_found_again(pictures):
    frame, marker = drawn(HD, pictures[0])
    reader = StripReader(now=iter(range(100)).__next__)
    for scale in (1, 0.5, 1):
        assert reader.read(cv2.resize(frame, None, fx=scale, fy=scale)).marker == marker
    assert reader.searches == 3


def test_what_moved_is_found_again_and_not_looked_for_all_the_time(pictures):
    clock = [0.0]
    reader = StripReader(now=lambda: clock[0])
    frame, marker = drawn(HD, pictures[0])
    assert reader.read(filmed(frame, 1)[0]).marker == marker
    moved = filmed(frame, 2)[0]
    clock[0] = 1.0
    assert [reader.read(moved) is None for _ in range(2)] == [True, True]
    assert reader.read(moved).marker == marker
    assert reader.searches == 2
    empty = np.zeros((720, 1280, 3), np.uint8)
    for _ in range(300):  # ten seconds without any marker, at 30 frames a second
        clock[0] += 1 / 30
        assert reader.read(empty) is None
    assert reader.searches == 2 + 5  # after 0.5, 0.5, 1, 2 and 4 more seconds
    clock[0] += 5
    assert reader.read(moved).marker == marker


def test_the_machine_has_a_number_that_stays():
    assert 0 < this_machine() < 2 ** BITS["machine"]
    assert this_machine() == this_machine()


def test_corners_are_where_they_are_said_to_be():
    frame, _ = drawn(HD, None)
    for corner in range(4):
        x, y = (16 * place + 8 for place in corner_origin(45, corner))
        assert frame[y, x].tolist() == [24] * 3
        assert frame[y - 16, x].tolist() == [232] * 3
    assert HD.area == (128, 1280 - 128)
    assert COLUMNS * 16 == 1280


def through_video(frames, path, fourcc):
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*fourcc), 30, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    capture, found = cv2.VideoCapture(str(path)), []
    while True:
        there, frame = capture.read()
        if not there:
            capture.release()
            return found
        found.append(frame)


@pytest.mark.parametrize(("suffix", "fourcc"), [("mp4", "mp4v"), ("avi", "MJPG")])
def test_through_opencv_video(tmp_path, pictures, suffix, fourcc):
    pairs = [
        drawn(VGA, pictures[number // 5 % len(pictures)], clock_ms=33 * number, index=number // 5)
        for number in range(40)
    ]
    seen = through_video([frame for frame, _ in pairs], tmp_path / f"video.{suffix}", fourcc)
    assert len(seen) == len(pairs)
    reader, began = StripReader(), time.monotonic()
    for frame, (_, marker) in zip(seen, pairs, strict=True):
        assert reader.read(frame).marker == marker
    assert reader.searches == 1
    assert time.monotonic() - began < 5
