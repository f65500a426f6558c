"""Whether a window can be opened here, found out without the risk of trying.

OpenCV aborts the process when it is asked for a window and there is no display, and no exception
tells of it. So the question is put to a child process first.
"""

from __future__ import annotations

import os
import subprocess
import sys

import cv2

from edgenet.errors import DeviceUnavailable

PROBE = "import cv2; cv2.namedWindow('probe'); cv2.waitKey(1); cv2.destroyAllWindows()"
PROBE_PATIENCE_S = 20.0


def require_display(instead: str) -> None:
    """Raise `DeviceUnavailable` unless a window can be opened; `instead` says what else to do."""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise DeviceUnavailable(
            f"there is no display here (neither DISPLAY nor WAYLAND_DISPLAY is set); {instead}"
        )
    if not _has_windows():
        raise DeviceUnavailable(
            "this OpenCV was built without windows; install the other one: pip uninstall "
            f"opencv-python-headless, then pip install 'edgenet[desktop]'; or {instead}"
        )
    try:
        probe = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-c", PROBE],
            capture_output=True,
            timeout=PROBE_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DeviceUnavailable(f"the display does not answer; {instead}") from None
    if probe.returncode:
        told = probe.stderr.decode(errors="replace").strip().splitlines()
        raise DeviceUnavailable(
            f"no window can be opened on the display {os.environ.get('DISPLAY', '')!r} "
            f"({told[0] if told else f'the attempt ended with {probe.returncode}'}); {instead}"
        )


def _has_windows() -> bool:
    for line in cv2.getBuildInformation().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "GUI":
            return value.strip() != "NONE"
    return True  # it does not say; the probe will
