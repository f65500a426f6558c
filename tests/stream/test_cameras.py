"""`camera --list`: what is said of machines that have this or that camera."""

import errno
import os

import pytest

from edgenet.board.machine import Machine, Unreadable
from edgenet.errors import DeviceUnavailable
from edgenet.stream.cameras import find_cameras, first_camera
from edgenet.stream.v4l2_device import Device, Format, PictureSize, describe_device, users_of

LIST_OF_RPICAM = """Available cameras
-----------------
0 : imx708 [4608x2592 10-bit RGGB] (/base/axi/pcie@120000/rp1/i2c@88000/imx708@1a)
    Modes: 'SRGGB10_CSI2P' : 1536x864 [120.13 fps - (768, 432)/3072x1728 crop]
                             4608x2592 [14.35 fps - (0, 0)/4608x2592 crop]
"""


def machine(tmp_path, *, devices=(), commands=None):
    """A machine with device nodes, and commands that answer."""
    (tmp_path / "dev").mkdir()
    for name in devices:
        (tmp_path / "dev" / name).touch()
        folder = tmp_path / "sys/class/video4linux" / name
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"card of {name}\n")

    def run(argv, _timeout_s):
        if argv[0] not in (commands or {}):
            raise Unreadable(argv[0], f"{argv[0]} is not installed")
        return commands[argv[0]]

    return Machine(tmp_path, run)


def device(path="/dev/video0", *, formats=("MJPG",), **changes):
    sizes = (
        PictureSize(width=640, height=480, frames_per_second=60.0),
        PictureSize(width=1280, height=720, frames_per_second=30.0),
    )
    said = {
        "path": path,
        "card": "HD Webcam",
        "driver": "uvcvideo",
        "captures": True,
        "formats": tuple(Format(fourcc=fourcc, sizes=sizes) for fourcc in formats),
        "in_use": False,
    }
    return Device(**{**said, **changes})


def test_a_usb_camera_and_the_device_beside_it(tmp_path):
    here = machine(tmp_path, devices=["video0", "video1"])
    found = find_cameras(
        here, describe=lambda path: device(path, captures=path.endswith("0"), formats=["MJPG"])
    )
    (camera,) = found.found
    assert (camera.uri, camera.name, camera.problem) == ("/dev/video0", "HD Webcam", None)
    assert camera.gives == ("MJPG 1280x720 at 30, 640x480 at 60",)
    assert first_camera(found) == "/dev/video0"


def test_a_camera_that_may_not_be_opened(tmp_path):
    def describe(path):
        raise DeviceUnavailable(f"{path}: permission denied; cameras belong to the group video")

    found = find_cameras(machine(tmp_path, devices=["video0"]), describe=describe)
    (camera,) = found.found
    assert camera.name == "card of video0"
    assert camera.problem.startswith("permission denied")
    with pytest.raises(DeviceUnavailable, match=r"no camera: /dev/video0 permission denied"):
        first_camera(found)


def test_what_works_comes_first(tmp_path):
    here = machine(tmp_path, devices=["video0", "video2"])
    found = find_cameras(here, describe=lambda path: device(path, in_use=path.endswith("0")))
    assert [camera.uri for camera in found.found] == ["/dev/video2", "/dev/video0"]
    assert "is in use" in found.found[1].problem
    assert first_camera(found) == "/dev/video2"


def test_a_ribbon_camera_beside_its_raw_device(tmp_path):
    here = machine(tmp_path, devices=["video0"], commands={"rpicam-hello": LIST_OF_RPICAM})
    found = find_cameras(here, describe=lambda path: device(path, formats=["pBAA"]))
    (camera,) = found.found
    assert (camera.uri, camera.name, camera.gives) == ("csi://0", "imx708", ("up to 4608x2592",))


def test_a_raw_device_alone(tmp_path):
    here = machine(tmp_path, devices=["video0"])
    (camera,) = find_cameras(here, describe=lambda path: device(path, formats=["pBAA"])).found
    assert camera.problem.startswith("gives raw data of a sensor (pBAA)")


def test_a_machine_without_any(tmp_path):
    found = find_cameras(machine(tmp_path))
    assert found.found == ()
    assert len(found.advice) == 2
    with pytest.raises(DeviceUnavailable, match=r"no camera: no /dev/video.*--source"):
        first_camera(found)


def test_the_driver_of_nvargus(tmp_path):
    here = machine(tmp_path, devices=["video0"])
    (tmp_path / "sys/class/video4linux/video0/name").write_text("tegra-video imx219\n")
    found = find_cameras(here, describe=lambda path: device(path, captures=False))
    (camera,) = found.found
    assert camera.uri == "csi://0"
    assert "nvarguscamerasrc is not here" in camera.problem


def test_this_machine_whatever_it_has():
    assert isinstance(find_cameras().found, tuple)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOENT, "no such device"),
        (errno.EACCES, "usermod -aG video"),
        (errno.EIO, "cannot be opened"),
    ],
)
def test_why_a_device_does_not_open(monkeypatch, code, words):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DeviceUnavailable, match=words) as caught:
        describe_device("/dev/video0")
    assert "\n" not in str(caught.value)


def test_a_device_that_is_no_camera():
    with pytest.raises(DeviceUnavailable, match="is no camera"):
        describe_device("/dev/null")


def test_who_uses_a_file(tmp_path):
    import subprocess

    path = tmp_path / "held"
    path.touch()
    with path.open() as held, subprocess.Popen(["sleep", "20"], stdin=held) as child:
        try:
            assert users_of(str(path)) == (f"sleep ({child.pid})",)
        finally:
            child.kill()
