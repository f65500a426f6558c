"""Cameras on a ribbon cable, with stand-ins that speak what the real programs document.

What no stand-in can show: that the real ones do what they document. Not verified on hardware.
"""

import os
import time

import numpy as np
import pytest
from stand_ins.programs import COLOUR, GST_INSPECT, GST_LAUNCH, PICAMERA2, RPICAM_VID, put_program

from edgenet.errors import DeviceUnavailable, UsageError
from edgenet.stream.frame import Clock
from edgenet.stream.reader import FaultKind, Reader
from edgenet.stream.sources import Stalled, open_source
from edgenet.stream.stamp import read_stamp
from tests.processes import children_of


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """An empty folder that is all of PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def check(uri, *, clock):
    """Check size, stamp, colour and clock of what a source gives; return the last frame."""
    source = open_source(uri)
    try:
        frames = [source.read() for _ in range(4)]
        assert (source.delivered.width, source.delivered.height) == (320, 240)
        assert source.delivered.frames_per_second == 25
    finally:
        source.close()
        source.close()
    stamps = [read_stamp(frame.bgr) for frame in frames]
    assert None not in stamps
    assert np.all(np.diff(stamps) > 0)
    assert np.abs(frames[-1].bgr[200, 100].astype(int) - COLOUR).max() <= 3
    assert {frame.clock for frame in frames} == {clock}
    assert [frame.sequence for frame in frames] == [0, 1, 2, 3]
    return frames[-1]


@pytest.mark.parametrize("name", ["rpicam-vid", "libcamera-vid"])
def test_raw_pictures_of_a_child(programs, name):
    put_program(programs, name, RPICAM_VID)
    frame = check("csi://0?size=320x240&fps=25", clock=Clock.ARRIVAL)
    assert frame.decode_ns > 0
    assert frame.captured_ns > read_stamp(frame.bgr)
    assert children_of(os.getpid()) == []


def test_gstreamer(programs):
    put_program(programs, "gst-inspect-1.0", GST_INSPECT)
    put_program(programs, "gst-launch-1.0", GST_LAUNCH)
    check("csi://0?size=320x240&fps=25", clock=Clock.ARRIVAL)
    assert children_of(os.getpid()) == []


def test_gstreamer_without_the_element(programs):
    put_program(programs, "gst-inspect-1.0", "import sys; sys.exit(255)")
    put_program(programs, "gst-launch-1.0", GST_LAUNCH)
    with pytest.raises(DeviceUnavailable, match="install one of: Picamera2"):
        open_source("csi://0")


def test_nothing_gives_access(programs):
    with pytest.raises(DeviceUnavailable, match=r"csi://0: nothing here .* rpicam-vid"):
        open_source("csi://0")


def test_rows_are_not_padded(programs):
    put_program(programs, "rpicam-vid", RPICAM_VID)
    with pytest.raises(UsageError, match="multiple of 64"):
        open_source("csi://0?size=600x400")


def test_the_programs_last_words(programs):
    put_program(programs, "rpicam-vid", RPICAM_VID)
    said = r"rpicam-vid ended: ERROR: .* no cameras available"
    with pytest.raises(DeviceUnavailable, match=said), Reader("csi://1"):
        pass
    assert children_of(os.getpid()) == []


def test_a_child_that_stalls_is_ended_and_started_again(programs):
    put_program(programs, "rpicam-vid", RPICAM_VID, after="time.sleep(60)")
    with Reader("csi://0?size=320x240") as reader:
        end = time.monotonic() + 8
        while reader.counts.reconnects == 0 and time.monotonic() < end:
            reader.take(0.1)
    assert [fault.kind for fault in reader.faults] == [FaultKind.STALL, FaultKind.RECONNECTED]
    assert children_of(os.getpid()) == []


def test_a_child_that_dies_is_started_again(programs):
    put_program(programs, "rpicam-vid", RPICAM_VID, after="sys.exit('camera gone')")
    with Reader("csi://0?size=320x240") as reader:
        end = time.monotonic() + 8
        while reader.counts.reconnects == 0 and time.monotonic() < end:
            reader.take(0.1)
    assert "rpicam-vid ended: camera gone" in reader.faults[0].message
    assert reader.faults[1].kind is FaultKind.RECONNECTED
    assert children_of(os.getpid()) == []


@pytest.fixture
def picamera2(tmp_path, monkeypatch):
    """The stand-in's module, importable."""
    import importlib
    import sys

    (tmp_path / "picamera2.py").write_text(PICAMERA2.format(colour=COLOUR))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield importlib.import_module("picamera2")
    del sys.modules["picamera2"]


def test_picamera2_tells_when_the_exposure_began(picamera2):
    frame = check("csi://0?size=320x240&fps=25", clock=Clock.SENSOR)
    assert frame.captured_ns == read_stamp(frame.bgr)
    assert frame.decode_ns is None
    assert picamera2.Picamera2.held == 0
    assert picamera2.Picamera2.running == 0


@pytest.mark.parametrize(
    "fault",
    [
        "raise ValueError('numpy.dtype size changed, may indicate binary incompatibility')",
        "raise ImportError('numpy.core.multiarray failed to import')",
    ],
)
def test_picamera2_that_does_not_load_says_why(tmp_path, monkeypatch, fault):
    """So bookworm's ends beside a numpy 2, whatever of it is imported first."""
    (tmp_path / "picamera2.py").write_text(fault)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DeviceUnavailable, match=r"csi://0: .*does not load \(numpy.*'numpy<2'"):
        open_source("csi://0")


def test_picamera2_without_a_camera(picamera2):
    with pytest.raises(DeviceUnavailable, match="does not open it"):
        open_source("csi://1")


def test_picamera2_that_stalls(picamera2):
    source = open_source("csi://0?size=320x240&fps=25")
    source.read()
    picamera2.Picamera2.silent = True
    with pytest.raises(Stalled, match="no picture for 2 s"):
        source.read()
    source.close()
