"""Whether a window can be opened here, found out without the risk of trying.

OpenCV aborts the process when it is asked for a window and there is no display, and no exception
tells of it. So the question is put to a child process first, unless one is to be that child.
"""

from __future__ import annotations

import os
import subprocess
import sys

from edgenet.errors import DeviceUnavailable

NO_DISPLAY = "there is no display here (neither DISPLAY nor WAYLAND_DISPLAY is set)"
NO_WINDOWS = (
    "this OpenCV was built without windows; install the other one: pip uninstall "
    "opencv-python-headless, then pip install 'edgenet[desktop]'"
)
PROBE = "import cv2; cv2.namedWindow('probe'); cv2.waitKey(1); cv2.destroyAllWindows()"
PROBE_PATIENCE_S = 20.0


def require_display(instead: str) -> None:
    """Raise `DeviceUnavailable` unless a window can be opened; `instead` says what else to do."""
    if not is_display_named():
        raise DeviceUnavailable(f"{NO_DISPLAY}; {instead}")
    if not has_windows():
        raise DeviceUnavailable(f"{NO_WINDOWS}; or {instead}")
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


def is_display_named() -> bool:
    """Tell whether the environment names a display; whether it answers is another question."""
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def has_windows() -> bool:
    """Tell whether this OpenCV was built with windows."""
    import cv2

    return says_windows(cv2.getBuildInformation())


def says_windows(build_information: str) -> bool:
    """Tell whether OpenCV's build information names a toolkit, or does not say."""
    for line in build_information.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "GUI":
            return value.strip() not in ("", "NONE")
    return True  # whoever tries will see
