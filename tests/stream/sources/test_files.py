"""Folders, single pictures and videos as sources, with real files."""

import time

import cv2
import numpy as np
import pytest

from edgenet.errors import BadData, BadImage, UsageError
from edgenet.stream.frame import Clock
from edgenet.stream.reader import FaultKind, Reader
from edgenet.stream.sources import SourceEnded, open_source
from edgenet.stream.stamp import draw_stamp, read_stamp


def rest(source):
    frames = []
    while True:
        try:
            frames.append(source.read())
        except SourceEnded:
            source.close()
            return frames


@pytest.fixture
def folder(tmp_path):
    for name, value in (("b.png", 20), ("a.png", 10), ("c.png", 30)):
        cv2.imwrite(str(tmp_path / name), np.full((24, 32, 3), (value, 0, 0), np.uint8))
    return tmp_path


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "stamps.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20, (320, 240))
    for number in range(30):
        picture = np.full((240, 320, 3), 90, np.uint8)
        draw_stamp(picture, number)
        writer.write(picture)
    writer.release()
    return path


def test_a_folder_gives_its_pictures_in_order_and_once(folder):
    source = open_source(str(folder))
    assert not source.live
    frames = rest(source)
    assert [frame.name for frame in frames] == ["a.png", "b.png", "c.png"]
    assert [frame.bgr[0, 0, 0] for frame in frames] == [10, 20, 30]  # blue first
    assert all(frame.clock is Clock.ARRIVAL and frame.decode_ns > 0 for frame in frames)
    assert (source.delivered.width, source.delivered.height) == (32, 24)


def test_a_folder_with_a_rate_is_live_and_loops(folder):
    source = open_source(f"{folder}?fps=50&loop=1")
    assert source.live
    began = time.monotonic()
    names = [source.read().name for _ in range(7)]
    assert names == ["a.png", "b.png", "c.png"] * 2 + ["a.png"]
    assert time.monotonic() - began >= 0.11


def test_a_folder_has_no_rate_of_its_own(folder):
    with pytest.raises(UsageError, match="fps=10"):
        open_source(str(folder), realtime=True)


def test_a_damaged_picture_costs_itself_only(folder):
    (folder / "b.png").write_bytes(b"\x89PNG no more")
    with Reader(str(folder)) as reader:
        names = []
        while not reader.ended:
            if frame := reader.take(5):
                names.append(frame.name)
    assert names == ["a.png", "c.png"]
    (fault,) = reader.faults
    assert fault.kind is FaultKind.CORRUPT
    assert "b.png" in fault.message


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(BadData, match="holds no pictures"):
        open_source(str(tmp_path))


def test_one_picture(folder):
    (frame,) = rest(open_source(str(folder / "a.png")))
    assert frame.bgr[0, 0, 0] == 10


def test_a_damaged_picture_alone_is_refused(folder):
    (folder / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    with pytest.raises(BadImage, match=r"a\.jpg"), Reader(str(folder / "a.jpg")):
        pass


def test_a_video_gives_every_picture_once(video):
    source = open_source(str(video))
    assert not source.live
    assert source.delivered.frames_per_second == 20
    assert source.delivered.format == "MJPG"
    frames = rest(source)
    assert [read_stamp(frame.bgr) for frame in frames] == list(range(30))
    assert [frame.sequence for frame in frames] == list(range(30))
    assert all(frame.decode_ns > 0 for frame in frames)


def test_a_video_loops(video):
    source = open_source(f"{video}?loop=1")
    stamps = [read_stamp(source.read().bgr) for _ in range(65)]
    source.close()
    assert stamps == [*range(30), *range(30), *range(5)]


def test_a_video_in_real_time_drops_for_a_slow_consumer(video):
    with Reader(str(video), realtime=True) as reader:
        began = time.monotonic()
        while not reader.ended:
            reader.take(1)
            time.sleep(0.2)
        took_s = time.monotonic() - began
    assert 1.3 < took_s < 3
    assert reader.counts.delivered == 30
    assert reader.counts.dropped > 15


def test_a_video_that_was_cut_off_is_said_to_be(video, tmp_path):
    data = video.read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(data[: len(data) // 2])
    with pytest.raises(BadData, match=r"cut\.avi"):
        rest(open_source(str(cut)))


def test_no_video_at_all(tmp_path):
    path = tmp_path / "text.mp4"
    path.write_text("no video")
    with pytest.raises(BadData, match="neither a video nor a picture"):
        open_source(str(path))
