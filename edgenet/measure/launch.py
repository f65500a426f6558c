"""A launch: one artefact in a process of its own, so that runtimes do not disturb each other.

Two launches of the same thing differ, by where memory happens to lie and by what the machine does
meanwhile: a launch is the unit that intervals are taken over. It does not know what a figure means.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from edgenet import interruption
from edgenet.errors import RuntimeRefused
from edgenet.measure.timing import Paced, Rules, WarmUp
from edgenet.runtimes import OperatorReport, OperatorTime, OperatorTimes

LAST_WORDS = 300
"""Characters of a dead process's standard error that go into the message."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A loaded artefact that has answered once."""

    device: str
    version: str
    load_ns: int
    """From the request to a session; importing the runtime's package is part of it."""
    first_inference_ns: int
    before_load_bytes: int | None
    """Resident memory of Python, numpy and the pictures, before the runtime came."""
    affinity: tuple[int, ...]
    """Processors that the process may run on."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Runs back to back."""

    samples_ns: Sequence[int]
    """Duration of each."""
    elapsed_ns: int
    """Of the block, with all that is between the runs."""
    waited_ns: int | None
    """For how long within it the threads, added up, were ready to run and had no processor; None
    where the kernel does not count that."""


class Launch:
    """A child process that holds one artefact. Close it, or use it in a `with`."""

    def __init__(self, runtime: str, path: Path, *, threads: int, images: Path) -> None:
        """Start the process; `images` is a .npy file of (n, H, W, 3) uint8 RGB, shown in turn."""
        self._request: dict[str, Any] = {
            "runtime": runtime,
            "path": str(path),
            "threads": threads,
            "images": str(images),
        }
        self._replies, child_end = os.pipe()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        self.interrupted = False
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "edgenet.measure.launched", str(child_end)],
            bufsize=0,  # nothing is left to be written when the child has died
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            pass_fds=[child_end],
            start_new_session=True,  # Ctrl-C comes to us, and we tell the child when
        )
        os.close(child_end)

    def __enter__(self) -> Launch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> Opened:
        """Load the artefact and run it once.

        Raises `RuntimeRefused` when the runtime refuses, is missing or brings the process down.
        """
        answer = self._ask("open", **self._request)
        return Opened(**{**answer, "affinity": tuple(answer["affinity"])})

    def exchange(self, path: Path, images: Path) -> Opened:
        """Load another artefact, with its own images, in place of the one before.

        Raises what `open` raises.
        """
        self._request |= {"path": str(path), "images": str(images)}
        return self.open()

    def warm_up(self, rules: Rules) -> tuple[WarmUp, int | None]:
        """Warm up; return how, and the peak of resident memory in bytes."""
        answer = self._ask("warm_up", rules=asdict(rules))
        peak = answer.pop("peak_rss_bytes")
        return WarmUp(**answer), peak

    def back_to_back(self, *, runs: int, seconds: float) -> Sequence[int]:
        """Return the duration of each run in ns; fewer when interrupted."""
        answer = self._ask("back_to_back", partial=True, runs=runs, seconds=seconds)
        samples: Sequence[int] = answer["samples_ns"]
        return samples

    def block(self, *, runs: int, seconds: float) -> Block:
        """Return what `back_to_back` does, and for how long the process waited meanwhile."""
        return Block(**self._ask("block", partial=True, runs=runs, seconds=seconds))

    def paced(self, frames_per_second: float, *, runs: int, seconds: float) -> Paced:
        """Return runs at a camera's rate; fewer when interrupted."""
        answer = self._ask(
            "paced", partial=True, frames_per_second=frames_per_second, runs=runs, seconds=seconds
        )
        return Paced(frames_per_second=frames_per_second, **answer)

    def operators(self, *, runs: int) -> OperatorTimes:
        """Return how long each operator takes, over `runs`; the artefact is loaded for it anew.

        Raises `RuntimeRefused` where the runtime gives no way to tell.
        """
        answer = self._ask("operators", **self._request, runs=runs)
        return OperatorTimes(
            by=answer["by"],
            resolution_ns=answer["resolution_ns"],
            times=tuple(
                OperatorTime(
                    operator=OperatorReport(**entry["operator"]), duration_ns=entry["duration_ns"]
                )
                for entry in answer["times"]
            ),
        )

    def close(self) -> None:
        """End the process; may be called twice."""
        if self._errors.closed:
            return
        assert self._process.stdin is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        os.close(self._replies)
        self._errors.close()

    def _ask(self, what: str, *, partial: bool = False, **arguments: Any) -> dict[str, Any]:
        """Return the child's answer; Ctrl-C ends one that may be partial instead of us.

        The child gives what it has then; a second Ctrl-C does not wait for that.
        """
        assert self._process.stdin is not None
        request = json.dumps({"do": what, **arguments}).encode() + b"\n"
        try:
            with interruption.passed_on(self._interrupt) if partial else nullcontext():
                self._process.stdin.write(request)
                line = self._reply()
        except BrokenPipeError:
            raise self._died(what) from None
        if line is None:
            raise self._died(what)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeRefused(answer["error"])
        return answer

    def _interrupt(self) -> None:
        self.interrupted = True
        self._process.send_signal(signal.SIGINT)

    def _reply(self) -> bytes | None:
        """Return one line, None where the process has ended without it."""
        line = bytearray()
        while not line.endswith(b"\n"):
            chunk = os.read(self._replies, 1 << 20)
            if not chunk:
                return None
            line += chunk
        return bytes(line)

    def _died(self, what: str) -> RuntimeRefused:
        code = self._process.wait()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace")[-LAST_WORDS:].strip()
        name = f"{self._request['path']} in {self._request['runtime']}"
        return RuntimeRefused(
            f"{name}: its process {how} during {what.replace('_', ' ')}"
            + (f" ({words})" if words else "")
        )
