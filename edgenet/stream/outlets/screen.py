"""A playlist on this machine's screen, for a camera in front of it."""

from __future__ import annotations

import os
from types import TracebackType

import cv2

from edgenet.preprocess import UInt8Array
from edgenet.stream.display import require_display

TITLE = "edgenet playlist"
END_KEYS = (27, ord("q"))
"""Escape and q."""


class Screen:
    """An outlet that fills the screen; raises `DeviceUnavailable` where there is none."""

    live = True

    def __init__(self) -> None:
        require_display("--serve mjpeg shows it in a browser, -o writes a video")

    def __enter__(self) -> Screen:
        # OpenCV's Qt complains of fonts that it does not need, one line for each.
        os.environ.setdefault("QT_LOGGING_RULES", "*.warning=false")
        # Without GUI_NORMAL, OpenCV's Qt puts a toolbar above the picture.
        cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        cv2.setWindowProperty(TITLE, cv2.WND_PROP_FULLSCREEN, cv2.WINDOW_FULLSCREEN)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        cv2.destroyAllWindows()

    def wait(self) -> None:
        """Return at once: whoever is in front of a screen sees it."""

    def show(self, frame: UInt8Array) -> bool:
        """Show a frame; False after Escape or q, and when the window was closed."""
        cv2.imshow(TITLE, frame)
        key = cv2.waitKey(1) & 0xFF
        visible = cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE)
        return key not in END_KEYS and bool(visible >= 1)
