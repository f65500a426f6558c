"""A playlist in H.264, as an RTSP stream or as a file: GStreamer encodes it in a child process.

The child is run by the system's Python, because its bindings come with Debian's packages only.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from edgenet.errors import DeviceUnavailable, NotWritable, UsageError
from edgenet.preprocess import UInt8Array
from edgenet.stream.listening import Address, listen
from edgenet.stream.marker import Layout
from edgenet.stream.outlets import LISTEN_OPTION
from edgenet.writing import writing

CHILD = Path(__file__).with_name("gstreamer_child.py")
SYSTEM_PYTHON = "/usr/bin/python3"
PACKAGES = (
    "python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good "
    "gstreamer1.0-plugins-ugly"
)
MOUNT = "/playlist"
PATIENCE_S = 10.0
"""For a child that has been told to end."""
LAST_WORDS = 300
"""Characters of what a dead child said that go into the message."""


@dataclass(frozen=True, kw_only=True)
class Coding:
    """What the frames are and how many bits they may take."""

    layout: Layout
    frames_per_second: float
    bitrate_kbit: int
    """A second."""


class RtspServer:
    """An outlet that serves at `url`; raises `DeviceUnavailable` where it cannot."""

    live = True

    def __init__(self, address: Address, coding: Coding) -> None:
        """Listen; raises `AddressUnavailable` where that cannot be."""
        # The child could not say why it cannot.
        listen(address, option=LISTEN_OPTION).close()
        self._child = _Child(coding, address=address.host, port=address.port, mount=MOUNT)
        try:
            bound = Address(host=address.host, port=int(self._child.ready()))
        except BaseException:
            self._child.close()
            raise
        self.url = f"rtsp://{bound.text}{MOUNT}"

    def __enter__(self) -> RtspServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.close()

    def wait(self) -> None:
        """Return when a client has asked for the stream."""
        self._child.expect("watched")

    def show(self, frame: UInt8Array) -> bool:
        """Give a frame to the encoder."""
        self._child.write(frame)
        return True


class VideoFile:
    """An outlet that writes an MP4 file, whole or not at all."""

    live = False

    def __init__(self, path: Path, coding: Coding) -> None:
        """Begin a file beside `path`; raises `NotWritable` where that cannot be."""
        if path.suffix.lower() != ".mp4":
            raise UsageError(f"{path}: is not called .mp4, which is what is written; rename it")
        if path.is_dir():
            raise UsageError(f"{path}: is a folder; give -o the name of a file")
        self._path = path
        self._partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
        with writing(path):
            self._partial.touch()
        self._child = _Child(coding, path=str(self._partial.absolute()))

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._child.finish(self._path)
                with writing(self._path):
                    self._partial.rename(self._path)
        finally:
            self._child.close()
            self._partial.unlink(missing_ok=True)

    def wait(self) -> None:
        """Return when the encoder is there."""
        self._child.ready()

    def show(self, frame: UInt8Array) -> bool:
        """Append a frame."""
        self._child.write(frame)
        return True


class _Child:
    """The process that encodes; it ends when its stdin does, so it outlives nobody."""

    def __init__(self, coding: Coding, **request: Any) -> None:
        whole = {
            "width": coding.layout.width,
            "height": coding.layout.height,
            "frames_per_second": coding.frames_per_second,
            "bitrate_kbit": coding.bitrate_kbit,
            **request,
        }
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [SYSTEM_PYTHON, str(CHILD), json.dumps(whole)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,  # Ctrl-C comes to us, and we end it
            )
        except FileNotFoundError:
            self._errors.close()
            raise _missing(SYSTEM_PYTHON) from None

    def ready(self) -> str:
        """Return the port that it listens on, if any, as soon as it does."""
        return self.expect("ready").removeprefix("ready").strip()

    def expect(self, word: str) -> str:
        """Return its next line that begins with `word`."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if (text := line.decode().strip()).startswith(word):
                return text
        raise self._died()

    def write(self, frame: UInt8Array) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(frame.tobytes())
        except BrokenPipeError:
            raise self._died() from None

    def finish(self, path: Path) -> None:
        """Wait until all is encoded; raises `NotWritable` where something went wrong."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            raise self._died() from None
        if self._process.wait() != 0:
            raise NotWritable(f"{path}: cannot be written ({self._last_words()})")

    def close(self) -> None:
        """End it; may be called twice."""
        if self._errors.closed:
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # it may be dead already
            self._process.stdin.close()
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _died(self) -> DeviceUnavailable:
        code = self._process.wait()
        words = self._last_words()
        if words.startswith("missing: "):
            return _missing(words.removeprefix("missing: "))
        return DeviceUnavailable(f"the H.264 encoder ended with {code}: {words}")

    def _last_words(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-LAST_WORDS:].strip()


def _missing(what: str) -> DeviceUnavailable:
    return DeviceUnavailable(
        f"H.264 cannot be encoded here ({what}); install what it takes with: apt-get install "
        f"{PACKAGES}; or serve MJPEG, which needs none of it"
    )
