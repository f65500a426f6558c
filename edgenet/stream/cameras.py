"""What cameras this machine has, what each gives, and why one does not open."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from edgenet.board.machine import PYTHON, Machine, Unreadable
from edgenet.errors import DeviceUnavailable
from edgenet.stream.v4l2_device import Device, describe_device, why_in_use

LISTERS = (
    ("rpicam-hello", "--list-cameras"),
    ("libcamera-hello", "--list-cameras"),
    (
        PYTHON,
        "-c",
        "from picamera2 import Picamera2\n"
        "for c in Picamera2.global_camera_info(): print(c['Num'], ':', c['Model'], '[0x0')",
    ),
)
"""Commands that list them alike; the last says no size."""
LISTED = re.compile(r"(?m)^\s*(\d+) : (\S+) \[(\d+)x(\d+)")
"""Such as "0 : imx708 [4608x2592 10-bit RGGB] (/base/soc/i2c0mux/i2c@1/imx708@1a)"."""
NVARGUS_DRIVER = "tegra-video"
NO_V4L2 = (
    "no /dev/video*: no USB camera is plugged in, or this is a container that was not given it "
    "(docker run --device /dev/video0)"
)
NO_CSI = (
    "no camera on a ribbon cable was found: that needs rpicam-hello, Picamera2 or GStreamer's "
    "nvarguscamerasrc, and the cable in with the power off"
)


@dataclass(frozen=True, kw_only=True)
class Camera:
    """One camera."""

    uri: str
    """For `--source`."""
    name: str
    """What its maker calls it; the path where nothing could be asked."""
    gives: tuple[str, ...]
    """Formats and sizes, such as "MJPG 1280x720 at 30"; empty where unknown."""
    problem: str | None
    """Why it does not open now; None where nothing stands in the way."""


@dataclass(frozen=True, kw_only=True)
class Cameras:
    """All that was found, the usable ones first."""

    found: tuple[Camera, ...]
    advice: tuple[str, ...]
    """What is not here at all, and what to do."""


def find_cameras(
    machine: Machine | None = None, *, describe: Callable[[str], Device] = describe_device
) -> Cameras:
    """Return the cameras of this machine; opens each device, but starts none."""
    machine = machine or Machine()
    paths = [
        path for path in machine.glob("/dev/video*") if path.removeprefix("/dev/video").isdecimal()
    ]
    csi = _csi(machine)
    devices = [_v4l2(path, machine, describe, raw_is_known=bool(csi)) for path in paths]
    advice = []
    if not paths:
        advice.append(NO_V4L2)
    if not csi:
        advice.append(NO_CSI)
    cameras = [*filter(None, devices), *csi]
    cameras.sort(key=lambda camera: camera.problem is not None)
    return Cameras(found=tuple(cameras), advice=tuple(advice))


def first_camera(cameras: Cameras | None = None) -> str:
    """Return the URI of the first camera that nothing stands in the way of.

    Raises `DeviceUnavailable` saying why there is none.
    """
    cameras = cameras or find_cameras()
    for camera in cameras.found:
        if camera.problem is None:
            return camera.uri
    why = [f"{camera.uri} {camera.problem}" for camera in cameras.found] or cameras.advice
    raise DeviceUnavailable(f"no camera: {'; '.join(why)}; or give one with --source")


def _v4l2(
    path: str, machine: Machine, describe: Callable[[str], Device], *, raw_is_known: bool
) -> Camera | None:
    """Return the camera at a path; None for devices that give no pictures.

    `raw_is_known`: the sensor behind a device of raw data is listed under its own name.
    """
    try:
        device = describe(path)
    except DeviceUnavailable as error:
        name = _read(machine, f"/sys/class/video4linux/{path.rpartition('/')[2]}/name") or path
        reason = str(error).removeprefix(f"{path}: ")
        return Camera(uri=path, name=name, gives=(), problem=reason)
    if not device.captures:
        return None
    if not device.decodable:
        return None if raw_is_known else _raw_only(device)
    problem = why_in_use(path) if device.in_use else None
    return Camera(uri=path, name=device.card, gives=tuple(_gives(device)), problem=problem)


def _raw_only(device: Device) -> Camera:
    formats = ", ".join(each.fourcc for each in device.formats) or "nothing"
    return Camera(
        uri=device.path,
        name=device.card,
        gives=(),
        problem=f"gives raw data of a sensor ({formats}); use csi://0 once its program is here",
    )


def _gives(device: Device) -> list[str]:
    """Return a line a format: its sizes, each with the highest rate, largest first."""
    lines = []
    for each in device.decodable:
        sizes = sorted(each.sizes, key=lambda it: it.width * it.height, reverse=True)
        shown = [
            f"{it.width}x{it.height}"
            + (f" at {it.frames_per_second:g}" if it.frames_per_second else "")
            for it in sizes
        ]
        lines.append(f"{each.fourcc} {', '.join(shown) or 'any size'}")
    return lines


def _csi(machine: Machine) -> list[Camera]:
    listed = [
        Camera(
            uri=f"csi://{number}",
            name=name,
            gives=(f"up to {width}x{height}",) if width != "0" else (),
            problem=None,
        )
        for number, name, width, height in _list_csi(machine)
    ]
    if listed:
        return listed
    drivers = [_read(machine, path) for path in machine.glob("/sys/class/video4linux/*/name")]
    if not any(name and NVARGUS_DRIVER in name for name in drivers):
        return []
    try:
        machine.run("gst-inspect-1.0", "nvarguscamerasrc")
    except Unreadable as error:
        problem: str | None = f"GStreamer's nvarguscamerasrc is not here ({error.reason})"
    else:
        problem = None
    return [Camera(uri="csi://0", name=NVARGUS_DRIVER, gives=(), problem=problem)]


def _list_csi(machine: Machine) -> list[tuple[str, str, str, str]]:
    """Return number, name, width and height of each, as libcamera's programs list them."""
    for command in LISTERS:
        try:
            return LISTED.findall(machine.run(*command))
        except Unreadable:
            continue
    return []


def _read(machine: Machine, path: str) -> str | None:
    try:
        return machine.read(path)
    except Unreadable:
        return None
