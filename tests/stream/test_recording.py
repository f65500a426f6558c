"""Recordings: whole, exact, and honest about what they lack."""

import json
import os
import tarfile
import time

import cv2
import numpy as np
import pytest

from edgenet.errors import BadRecord, NotWritable, UsageError
from edgenet.stream.frame import Clock, Delivered
from edgenet.stream.recording import Recorder, Recording, Replay, logits_sha256
from edgenet.stream.sources import SourceEnded
from tests.stream.results import MS, make_frame, make_result

DELIVERED = Delivered(width=64, height=48, frames_per_second=30.0, format="MJPG")


def make_results(count, *, side=(48, 64)):
    rng = np.random.default_rng(0)
    for number in range(count):
        frame = make_frame(
            3 * number,
            captured_ns=number * 33 * MS,
            arrived_ns=number * 33 * MS + 5 * MS,
            clock=Clock.DRIVER,
            decode_ns=2 * MS,
            bgr=rng.integers(0, 256, (*side, 3), np.uint8),
        )
        yield make_result(
            ("cat", "dog")[number % 2], 0.5 + number / 1000, frame=frame, labelled_ns=10**9 * number
        )


def record(path, bundle, results, *, wait=True):
    recorder = Recorder(path, bundle, bundle.artifacts[0], preprocessing="0" * 64)
    with recorder:
        recorder.begin("0", DELIVERED)
        for result in results:
            recorder.offer(result)
            while wait and recorder._queue.qsize() > 4:
                time.sleep(0.001)
    return recorder


def read_all(path):
    recording = Recording(path)
    try:
        return list(recording)
    finally:
        recording.close()


def test_what_comes_back_is_what_was_seen(small_bundle, tmp_path):
    path, results = tmp_path / "run.tar", list(make_results(20))
    recorder = record(path, small_bundle, results)
    assert (recorder.written, recorder.lost, recorder.fault) == (20, 0, None)
    recording = Recording(path)
    assert recording.source == "0"
    assert recording.delivered == DELIVERED
    assert recording.bundle_sha256 == small_bundle.sha256
    found = list(recording)
    recording.close()
    for (bgr, recorded), result in zip(found, results, strict=True):
        assert np.array_equal(bgr, result.frame.bgr)
        assert recorded.sequence == result.frame.sequence
        assert recorded.captured_ns == result.frame.captured_ns
        assert recorded.clock is Clock.DRIVER
        assert recorded.labelled_ns == result.labelled_ns
        assert recorded.label == result.label
        assert recorded.logits_sha256 == logits_sha256(result.logits)
    assert not recording.cut_off


def test_any_tool_can_look_into_it(small_bundle, tmp_path):
    record(tmp_path / "run.tar", small_bundle, make_results(2))
    with tarfile.open(tmp_path / "run.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    picture = cv2.imread(str(tmp_path / "000001.png"))
    assert picture.shape == (48, 64, 3)
    assert json.loads((tmp_path / "000001.json").read_text())["label"] == "dog"
    assert json.loads((tmp_path / "end.json").read_text()) == {"frames": 2, "lost": 0}


def test_a_replay_gives_each_frame_once_and_checks_labels(small_bundle, tmp_path):
    results = list(make_results(6))
    record(tmp_path / "run.tar", small_bundle, results)
    replay = Replay(Recording(tmp_path / "run.tar"))
    assert (replay.live, replay.still) == (False, True)
    for number, result in enumerate(results):
        frame = replay.read()
        assert frame.sequence == number
        assert np.array_equal(frame.bgr, result.frame.bgr)
        assert frame.clock is Clock.ARRIVAL
        assert 0 < frame.decode_ns <= time.monotonic_ns()
        changed = make_result("boat", 0.7) if number == 4 else result
        replay.check(make_result("dog", 0.123) if number == 3 else changed)
    with pytest.raises(SourceEnded):
        replay.read()
    replay.close()
    replay.close()
    assert (replay.compared, replay.same_label, replay.same_logits) == (6, 5, 4)


def test_a_slow_disk_costs_frames_of_the_recording_only(small_bundle, tmp_path):
    results = list(make_results(40, side=(1080, 1920)))
    started = time.monotonic()
    recorder = Recorder(
        tmp_path / "run.tar", small_bundle, small_bundle.artifacts[0], preprocessing="0" * 64
    )
    with recorder:
        recorder.begin("0", DELIVERED)
        for result in results:
            recorder.offer(result)
        assert time.monotonic() - started < 0.5
    assert recorder.lost > 0
    assert recorder.written + recorder.lost == 40
    assert len(read_all(tmp_path / "run.tar")) == recorder.written


def test_it_is_hidden_until_it_is_whole(small_bundle, tmp_path):
    recorder = Recorder(
        tmp_path / "run.tar", small_bundle, small_bundle.artifacts[0], preprocessing="0" * 64
    )
    with recorder:
        recorder.begin("0", DELIVERED)
        for result in make_results(3):
            recorder.offer(result)
        assert [path.name for path in tmp_path.iterdir()] == [f".run.tar.partial-{os.getpid()}"]
    assert [path.name for path in tmp_path.iterdir()] == ["run.tar"]


def test_a_run_without_a_frame_replaces_nothing(small_bundle, tmp_path):
    (tmp_path / "run.tar").write_text("yesterday's")
    record(tmp_path / "run.tar", small_bundle, [])
    assert (tmp_path / "run.tar").read_text() == "yesterday's"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_failure_keeps_what_was_recorded(small_bundle, tmp_path):
    recorder = Recorder(
        tmp_path / "run.tar", small_bundle, small_bundle.artifacts[0], preprocessing="0" * 64
    )
    recorder.__enter__()
    recorder.begin("0", DELIVERED)
    for result in make_results(3):
        recorder.offer(result)
    recorder.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert len(read_all(tmp_path / "run.tar")) == 3


def test_after_a_power_cut_the_whole_frames_are_there(small_bundle, tmp_path):
    record(tmp_path / "run.tar", small_bundle, make_results(10))
    data = (tmp_path / "run.tar").read_bytes()
    seen = set()
    for size in range(12_000, len(data) - 12_000, 3001):
        (tmp_path / "cut.tar").write_bytes(data[:size])
        recording = Recording(tmp_path / "cut.tar")
        frames = list(recording)
        assert recording.cut_off
        for (bgr, _), result in zip(frames, make_results(10), strict=False):
            assert np.array_equal(bgr, result.frame.bgr)
        recording.close()
        seen.add(len(frames))
    assert len(seen) > 5


@pytest.mark.parametrize(
    "content", [b"", b"text", b"\0" * 4096, b"PK\x03\x04" + b"x" * 2000], ids=len
)
def test_what_is_no_recording(content, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(BadRecord, match="is no recording"):
        Recording(path)


def test_another_tar_and_a_newer_version(tmp_path):
    (tmp_path / "header.json").write_text('{"recording": "2.0"}')
    for name, told in (("header.json", "upgrade edgenet"), ("other.json", "is no recording")):
        with tarfile.open(tmp_path / "run.tar", "w") as tar:
            tar.add(tmp_path / "header.json", name)
        with pytest.raises(BadRecord, match=told):
            Recording(tmp_path / "run.tar")


def test_a_damaged_frame_is_refused(small_bundle, tmp_path):
    record(tmp_path / "run.tar", small_bundle, make_results(3))
    data = bytearray((tmp_path / "run.tar").read_bytes())
    at = data.index(b"\x89PNG", data.index(b"000001.png"))
    data[at : at + 200] = bytes(200)
    (tmp_path / "run.tar").write_bytes(data)
    with pytest.raises(BadRecord, match="frame 1 is damaged"):
        read_all(tmp_path / "run.tar")


def test_no_place_for_it(small_bundle, tmp_path):
    artifact = small_bundle.artifacts[0]
    with pytest.raises(UsageError, match="is a folder"):
        Recorder(tmp_path, small_bundle, artifact, preprocessing="")
    with (
        pytest.raises(NotWritable, match="choose another --record"),
        Recorder(tmp_path / "no" / "run.tar", small_bundle, artifact, preprocessing=""),
    ):
        pass
    with pytest.raises(UsageError, match="no such file"):
        Recording(tmp_path / "none.tar")
