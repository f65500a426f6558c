"""MJPEG and RTSP from real servers over the loopback, and all that can go wrong with them."""

import gc
import os
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from stand_ins.mjpeg_server import MjpegServer
from stand_ins.rtsp_server import RtspServer

from edgenet.errors import DeviceUnavailable
from edgenet.stream.frame import Clock
from edgenet.stream.reader import FaultKind, Reader
from edgenet.stream.sources.rtsp import OPTIONS
from edgenet.stream.stamp import read_stamp


def take_for(reader, seconds, *, pause_s=0.0):
    """Take frames for a while and return them."""
    frames, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        if frame := reader.take(0.2):
            frames.append(frame)
        time.sleep(pause_s)
    return frames


def wait_for(reader, kind, *, seconds=8.0):
    """Take frames until a fault is noted; return it and when that was."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        reader.take(0.05)
        for fault in reader.faults:
            if fault.kind is kind:
                return fault
    raise AssertionError(f"no {kind} in {seconds} s: {reader.faults}")


def kinds(reader):
    return [fault.kind for fault in reader.faults]


@pytest.fixture(params=[MjpegServer, RtspServer])
def server(request):
    with request.param() as server:
        yield server


@pytest.fixture
def mjpeg():
    with MjpegServer() as server:
        yield server


def test_pictures_come_young_to_a_slow_consumer(server):
    with Reader(server.url) as reader:
        ages = []
        for _ in range(15):
            time.sleep(0.2)
            frame = reader.take(2)
            ages.append((time.monotonic_ns() - read_stamp(frame.bgr)) / 1e6)
            assert frame.clock is Clock.ARRIVAL
        assert reader.counts.dropped > 40
        assert (reader.source.delivered.width, reader.source.delivered.height) == (640, 480)
    # A plain read() loop is seconds late here; what it should be, tools/bench/camera_staleness.py.
    assert np.median(ages) < 150
    assert ages[-1] < 250


def test_a_stall_is_noticed_in_two_seconds_and_mends(server):
    with Reader(server.url) as reader:
        take_for(reader, 0.5)
        server.stall()
        began = time.monotonic()
        fault = wait_for(reader, FaultKind.STALL)
        assert 1.5 < time.monotonic() - began < 2.8
        assert 1.8 < fault.seconds < 2.8
        assert "no picture for" in reader.trouble
        getattr(server, "resume", server.go_on)()
        mended = wait_for(reader, FaultKind.RECONNECTED)
        assert mended.seconds > fault.seconds
        assert len(take_for(reader, 0.5)) > 5
        assert reader.trouble is None


def test_a_server_that_dies_and_comes_back(server):
    with Reader(server.url) as reader:
        before = take_for(reader, 0.5)
        server.die()
        wait_for(reader, FaultKind.LOST, seconds=4)
        server.come_back()
        wait_for(reader, FaultKind.RECONNECTED)
        after = take_for(reader, 0.5)
    assert after[0].sequence > before[-1].sequence
    assert kinds(reader) == [FaultKind.LOST, FaultKind.RECONNECTED]
    assert reader.counts.reconnects == 1


def check_frozen_and_thawed(server):
    with Reader(server.url) as reader:
        take_for(reader, 0.3)
        server.freeze()
        fault = wait_for(reader, FaultKind.FROZEN, seconds=12)
        assert 2 <= fault.seconds < 4
        assert "frozen" in reader.trouble
        server.go_on()
        wait_for(reader, FaultKind.THAWED)
        assert reader.trouble is None
        assert reader.counts.repeated > 20
    assert FaultKind.STALL not in kinds(reader)


def test_a_frozen_picture_is_said_to_be_frozen(mjpeg):
    check_frozen_and_thawed(mjpeg)


def test_a_frozen_picture_between_whole_pictures_of_h264():
    """A whole picture is encoded anew and looks a little different: then nobody can tell."""
    with RtspServer(keyframes=600) as server:
        check_frozen_and_thawed(server)


def test_a_corrupt_picture_is_counted_and_the_next_one_is_right(mjpeg):
    with Reader(mjpeg.url) as reader:
        take_for(reader, 0.3)
        mjpeg.corrupt(3)
        frames = take_for(reader, 0.5)
    assert reader.counts.corrupt == 3
    assert set(kinds(reader)) == {FaultKind.CORRUPT}
    assert all(read_stamp(frame.bgr) is not None for frame in frames)


def test_a_change_of_size_in_mid_stream(mjpeg):
    with Reader(mjpeg.url) as reader:
        take_for(reader, 0.3)
        mjpeg.size(320, 240)
        fault = wait_for(reader, FaultKind.CHANGED_SIZE)
        assert fault.message == "pictures are 320 x 240 now, they were 640 x 480"
        assert take_for(reader, 0.3)[-1].bgr.shape == (240, 320, 3)
        assert reader.source.delivered.width == 320
    assert kinds(reader) == [FaultKind.CHANGED_SIZE]


def test_a_server_without_lengths():
    with MjpegServer(lengths=False) as server, Reader(server.url) as reader:
        stamps = [read_stamp(frame.bgr) for frame in take_for(reader, 0.5)]
    assert len(stamps) > 8
    assert None not in stamps
    assert reader.counts.corrupt == 0


def test_of_what_came_meanwhile_only_the_newest_is_decoded():
    """The reader itself may be late: a board that decodes slower than the camera sends."""
    from edgenet.stream.sources import open_source

    with MjpegServer(fps=60) as server:
        source = open_source(server.url)
        ages, sequences = [], []
        for _ in range(8):
            time.sleep(0.15)
            frame = source.read()
            ages.append((time.monotonic_ns() - read_stamp(frame.bgr)) / 1e6)
            sequences.append(frame.sequence)
        source.close()
    assert np.median(ages) < 60
    assert np.median(np.diff(sequences)) >= 5  # nine at 60 a second; the rest was passed over


@pytest.mark.parametrize("scheme", ["basic", "digest"])
def test_credentials_in_the_url(scheme):
    with MjpegServer(login=("user", "s3cret"), scheme=scheme) as server:
        with Reader(server.url_with("user", "s3cret")) as reader:
            assert reader.take(2) is not None
            assert "s3cret" not in reader.source.name
        check_refused(server.url, "wants a user and a password")
        check_refused(server.url_with("user", "wr0ng"), "refuses the user and password")


def test_credentials_of_a_stream():
    with RtspServer(login=("user", "s3cret")) as server:
        with Reader(server.url_with("user", "s3cret")) as reader:
            assert reader.take(2) is not None
            assert "s3cret" not in reader.source.name
        check_refused(server.url, "wants a user and a password")
        check_refused(server.url_with("user", "wr0ng"), "refuses the user and password")
        check_refused(server.url_with("user", "s3cret") + "/other", "404")


def check_refused(uri, words):
    """Check that the source does not open, and says why in one line without the password."""
    with pytest.raises(DeviceUnavailable) as caught, Reader(uri):
        pass
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert "wr0ng" not in message
    assert "s3cret" not in message


def test_what_is_no_stream(mjpeg):
    base = mjpeg.url.removesuffix("/stream.mjpg")
    check_refused(f"{base}/other", "answers 404")
    check_refused(f"{base}/an öther", "answers 404")
    check_refused(f"{base}/picture.jpg", "gives image/jpeg, not a stream")


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_nobody_listens(scheme):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    check_refused(f"{scheme}://127.0.0.1:{port}/x", "connection refused")
    check_refused(f"{scheme}://nowhere.invalid/x", "no host of that name")
    check_refused(f"{scheme}://no..where/x", "no host of that name")


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_server_that_takes_connections_and_says_nothing(scheme):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/x"
        began = time.monotonic()
        check_refused(uri, "answers nothing for 2 s" if scheme == "http" else "no answer in 3 s")
        assert time.monotonic() - began < 8


def test_a_stream_that_opens_and_never_delivers(mjpeg):
    mjpeg.stall()
    time.sleep(0.1)
    with pytest.raises(DeviceUnavailable, match="no picture for 2 s"), Reader(mjpeg.url):
        pass


def test_who_joins_late_waits_for_a_whole_picture():
    """It may be further away than a stall is long, and nothing is wrong."""
    with RtspServer(keyframes=120) as server, Reader(server.url) as first:
        for _ in range(3):
            take_for(first, 0.4)
            with Reader(server.url) as late:
                assert read_stamp(late.take(2).bgr) is not None
                assert late.faults == ()
        assert first.faults == ()


def test_the_first_picture_is_young():
    with RtspServer() as server, Reader(server.url) as reader:
        frame = reader.take(1)
        assert time.monotonic_ns() - read_stamp(frame.bgr) < 0.4e9


def test_the_users_own_options_for_ffmpeg_stay(monkeypatch):
    with RtspServer() as server:
        with Reader(server.url) as reader:
            assert reader.take(2) is not None
        assert OPTIONS not in os.environ
        monkeypatch.setenv(OPTIONS, "rtsp_transport;tcp")
        with Reader(server.url) as reader:
            assert reader.take(2) is not None
        assert os.environ[OPTIONS] == "rtsp_transport;tcp"


def test_nothing_is_left_behind(server):
    """No thread and no descriptor, after a run with a restart of the server in it."""

    def run():
        with Reader(server.url) as reader:
            take_for(reader, 0.3)
            server.die()
            wait_for(reader, FaultKind.LOST, seconds=4)
            server.come_back()
            wait_for(reader, FaultKind.RECONNECTED)

    def ours():
        gc.collect()
        names = [thread.name for thread in threading.enumerate()]
        return names.count("edgenet reader"), len(list(Path("/proc/self/fd").iterdir()))

    run()
    before = ours()
    for _ in range(2):
        run()
    time.sleep(0.3)  # the stand-in's own threads end
    assert ours()[0] == before[0] == 0
    assert ours()[1] <= before[1] + 1  # the stand-in's own connection may not have gone yet
