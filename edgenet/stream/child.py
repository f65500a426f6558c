"""A child process that works beside a live run and takes pictures from it through shared memory.

What passes over the socket is small and in JSON; pictures lie in memory that both share. Nothing
here waits for the child unless it says so. The child ends with this process, however that ends:
their socket closes. `edgenet.stream.looking` is the other end.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from edgenet.stream.frame import UInt8Array
from edgenet.stream.looking import LARGEST_MESSAGE

SCHEDULED = 2
"""Makes of a process number the clock that counts its time on processors, as the C library's
`clock_getcpuclockid` does."""
LEAVE_S = 3.0
LAST_WORDS = 300
"""Characters of a dead child's standard error that are told."""


class Child:
    """The run's end of it. Close it."""

    def __init__(
        self, module: str, settings: Mapping[str, Any], *, inherit: Sequence[int] = ()
    ) -> None:
        """Start `python -m module CONTROL MEMORY INHERITED...`, each a descriptor's number."""
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._memory = os.memfd_create("edgenet-frame")
        self._room = mmap.mmap(-1, 1)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
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

    @property
    def pid(self) -> int:
        """Return the child's process number."""
        return self._process.pid

    @property
    def cpu_ns(self) -> int | None:
        """Return what it has had of the processors so far; None where the kernel does not tell."""
        try:
            return time.clock_gettime_ns(~self._process.pid << 3 | SCHEDULED)
        except OSError:
            return None

    @property
    def gone(self) -> bool:
        """Tell whether nothing can be said to it any more."""
        return self._lost is not None

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

    def heard(self) -> Iterator[dict[str, Any]]:
        """Yield what the child has said since; never waits, costs a microsecond or two."""
        while self._lost is None:
            try:
                data = self._control.recv(LARGEST_MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.lose("went away")
                return
            yield json.loads(data)

    def wait(self, seconds: float) -> dict[str, Any] | None:
        """Return the next that the child says; None if it says nothing in time or is gone."""
        if self._lost is not None:
            return None
        self._control.settimeout(max(seconds, 1e-3))
        try:
            data = self._control.recv(LARGEST_MESSAGE)
        except TimeoutError:
            return None
        except OSError:
            data = b""
        finally:
            self._control.setblocking(False)
        if data:
            message: dict[str, Any] = json.loads(data)
            return message
        self.lose("went away")
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(LEAVE_S)
        return None

    def send(self, message: Mapping[str, Any]) -> None:
        """Say something; raises `OSError` where the child is gone or does not keep up."""
        self._control.send(json.dumps(message).encode())

    def share(self, picture: UInt8Array) -> tuple[int, ...]:
        """Return the shape of a picture that now lies in the memory, which grows with it.

        Raises `OSError` where there is no room for it.
        """
        if picture.nbytes > len(self._room):
            # Allocated now: touching pages that there is no memory for would end the process.
            os.posix_fallocate(self._memory, 0, picture.nbytes)
            self._room.close()
            self._room = mmap.mmap(self._memory, picture.nbytes)
        np.copyto(np.ndarray(picture.shape, np.uint8, self._room), picture)
        return picture.shape

    def lose(self, how: str) -> None:
        """Note that the child is gone; one that still runs without us is ended."""
        self._lost = how
        if how != "went away":
            self._process.kill()

    def close(self, *, patience_s: float = LEAVE_S) -> None:
        """End the child, after so long by force; may be called twice."""
        if self._errors.closed:
            return
        self._lost = self.fault or "was closed"
        self._control.close()
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._room.close()
        os.close(self._memory)
        self._errors.close()
