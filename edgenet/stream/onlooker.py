"""A child process that looks on at a live run: the browser's page, the desktop's window.

It pulls: a picture is handed over only when the child has asked for one, through memory that both
share, so that nobody who looks on slowly, or not at all, costs the run more than asking a socket.
The child ends with this process, however that ends: their socket closes. `edgenet.stream.looking`
is the other end.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any

import numpy as np

from edgenet.stream.frame import UInt8Array
from edgenet.stream.looking import LARGEST_MESSAGE
from edgenet.stream.result import Result
from edgenet.stream.status import Status

READY_S = 60.0
"""How long the child may take to start: a board's card may be slow."""
LEAVE_S = 3.0
LAST_WORDS = 300
"""Characters of a dead child's standard error that are told."""
LONGEST_LABEL = 200
MOST_TIMES = 200_000


@dataclass(frozen=True, kw_only=True)
class Times:
    """What drawing and encoding took in the child, in ns, in the order in which it was done."""

    draw_ns: Sequence[int]
    """Fewer than `encode_ns`: a browser draws by itself."""
    encode_ns: Sequence[int]


class Onlooker:
    """The run's end of it. Use it in a `with`: the block begins when the child is ready."""

    def __init__(
        self, module: str, settings: Mapping[str, Any], *, inherit: Sequence[int] = ()
    ) -> None:
        """Start `python -m module CONTROL MEMORY INHERITED...`, each a descriptor's number."""
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._memory = os.memfd_create("edgenet-frame")
        self._room = mmap.mmap(-1, 1)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        self._draw, self._encode = array("q"), array("q")
        self._frame_wanted = self._status_wanted = self._is_ready = False
        self._last: Result | None = None
        self._shown: int | None = None
        self._lost: str | None = None
        descriptors = [theirs.fileno(), self._memory, *inherit]
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", module, *map(str, descriptors)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            pass_fds=descriptors,
            start_new_session=True,  # a Ctrl-C comes to the run alone, which ends the child
        )
        theirs.close()
        # Not on the command line, which every user of the machine can read.
        self._control.send(json.dumps(settings).encode())
        self._control.setblocking(False)

    def __enter__(self) -> Onlooker:
        try:
            self.wait_until_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Return the child's process number."""
        return self._process.pid

    @property
    def fault(self) -> str | None:
        """Return why the child is gone, in words; None while it is there."""
        if self._lost is None or self._errors.closed:
            return self._lost
        code, how = self._process.poll(), self._lost
        if code is not None:
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace")[-LAST_WORDS:].strip()
        return f"its process {how}" + (f" ({words})" if words else "")

    @property
    def exit_code(self) -> int | None:
        """Return the child's exit code, below 0 for a signal; None while it runs."""
        return self._process.poll()

    @property
    def wanted(self) -> bool:
        """Tell whether anybody waits for what `offer` brings; costs a microsecond or two."""
        self._hear()
        return self._frame_wanted or self._status_wanted

    @property
    def times(self) -> Times:
        """Return what drawing and encoding took so far."""
        self._hear()
        return Times(draw_ns=tuple(self._draw), encode_ns=tuple(self._encode))

    def wait_until_ready(self) -> None:
        """Return when the child is ready, or gone: then `fault` says why."""
        self._control.settimeout(READY_S)
        try:
            while not self._is_ready and self._lost is None:
                self._take(self._control.recv(LARGEST_MESSAGE))
        except TimeoutError:
            self._lose(f"was not ready after {READY_S:.0f} s")
        except OSError:
            self._lose("went away")
        self._control.setblocking(False)
        if self._lost is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(LEAVE_S)

    def offer(self, result: Result | None, status: Status) -> None:
        """Hand over the newest result if somebody waits for it; never waits, never fails the run.

        None where there is no new result, such as while the source stalls: the status still goes.
        """
        if result is not None:
            self._last = result
        last = self._last
        if not self.wanted:
            return
        message: dict[str, Any] = {}
        if self._status_wanted:
            message["status"] = _finite(asdict(status))
        try:
            if self._frame_wanted and last is not None and last.frame.sequence != self._shown:
                message |= {"result": describe(last), "shape": self._copy(last.frame.bgr)}
                self._frame_wanted, self._shown = False, last.frame.sequence
            if message:
                self._control.send(json.dumps(message).encode())
        except OSError as error:  # it went away just now, or there is no memory for the picture
            self._lose(f"could not be shown a frame ({error.strerror})")
        self._status_wanted = False

    def close(self) -> None:
        """End the child; may be called twice."""
        if self._errors.closed:
            return
        self._hear()
        self._lost = self.fault or "was closed"
        self._control.close()
        try:
            self._process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._last = None
        self._room.close()
        os.close(self._memory)
        self._errors.close()

    def _copy(self, picture: UInt8Array) -> tuple[int, ...]:
        """Return the shape of a picture that now lies in the memory, which grows with it."""
        if picture.nbytes > len(self._room):
            # Allocated now: touching pages that there is no memory for would end the process.
            os.posix_fallocate(self._memory, 0, picture.nbytes)
            self._room.close()
            self._room = mmap.mmap(self._memory, picture.nbytes)
        np.copyto(np.ndarray(picture.shape, np.uint8, self._room), picture)
        return picture.shape

    def _hear(self) -> None:
        """Take what the child has said."""
        while self._lost is None:
            try:
                self._take(self._control.recv(LARGEST_MESSAGE))
            except BlockingIOError:
                return
            except OSError:
                self._lose("went away")

    def _take(self, data: bytes) -> None:
        if not data:
            self._lose("went away")
            return
        message = json.loads(data)
        self._frame_wanted |= message.get("want") == "frame"
        self._status_wanted |= message.get("want") == "status"
        self._is_ready |= message.get("ready", False)
        for name, samples in (("draw_ns", self._draw), ("encode_ns", self._encode)):
            if name in message and len(samples) < MOST_TIMES:
                samples.append(message[name])

    def _lose(self, how: str) -> None:
        """Note that the child is gone; one that still runs without us is ended."""
        self._lost = how
        self._frame_wanted = self._status_wanted = False
        if how != "went away":
            self._process.kill()


def describe(result: Result) -> dict[str, Any]:
    """Return the result without its picture, as JSON values."""
    frame, stages = result.frame, result.stages
    described = {
        "sequence": frame.sequence,
        "guesses": [
            {
                "index": guess.index,
                "label": guess.label[:LONGEST_LABEL],
                "probability": float(guess.probability),
            }
            for guess in result.guesses
        ],
        "captured_ns": frame.captured_ns,
        "labelled_ns": result.labelled_ns,
        "clock": frame.clock.value,
        "age_at_label_ms": result.age_ms,
        "stages_ms": {
            "wait": stages.wait_ns / 1e6,
            "decode": None if frame.decode_ns is None else frame.decode_ns / 1e6,
            "preprocess": stages.preprocess_ns / 1e6,
            "infer": stages.infer_ns / 1e6,
        },
        "name": frame.name,
    }
    finite: dict[str, Any] = _finite(described)
    return finite


def _finite(value: Any) -> Any:
    """Return JSON values with None for every number that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
