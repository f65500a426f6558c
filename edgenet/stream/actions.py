"""Commands that a label starts: `--on LABEL=COMMAND`.

No shell reads the command, so that no label can become a part of it: what happened is in the
command's environment. One run of a command at a time; an event that comes meanwhile is counted and
starts nothing. What still runs at the end is ended, with all that it has started.
"""

from __future__ import annotations

import difflib
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from edgenet.errors import UsageError
from edgenet.stream.events import UNKNOWN, Event

ANY = "*"
GRACE_S = 1.0
"""From SIGTERM to SIGKILL at the end of the run."""
STDERR = 2


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Which label starts which command."""

    label: str
    """A class's whole name, one of its names, `UNKNOWN`, or `ANY`."""
    command: tuple[str, ...]
    labels: frozenset[str]
    """The labels of the bundle that it means."""

    def meets(self, label: str) -> bool:
        """Tell whether a new label starts the command."""
        return self.label == ANY or label in self.labels


def parse_rule(text: str, labels: Sequence[str]) -> Rule:
    """Return the rule in a text LABEL=COMMAND for a bundle with these labels.

    A class with several names, "tabby, tabby cat", is meant by each of them. Raises `UsageError`
    for a label that the bundle does not have and for a command that is not there.
    """
    label, found, command = text.partition("=")
    label = label.strip()
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise UsageError(f"--on {text}: {error}; quote the command as in a shell") from None
    if not found or not label or not words:
        raise UsageError(f"--on {text}: give LABEL=COMMAND, such as 'tabby=notify-send cat'")
    if shutil.which(words[0]) is None:
        raise UsageError(
            f"--on {text}: there is no program {words[0]!r}; no shell reads the command, "
            "so for a builtin or a pipe write sh -c '...'"
        )
    return Rule(label=label, command=words, labels=_meant(label, labels))


def _meant(label: str, labels: Sequence[str]) -> frozenset[str]:
    if label in (ANY, UNKNOWN):
        return frozenset({label})
    if label in labels:
        return frozenset({label})
    named = frozenset(each for each in labels if label in each.split(", "))
    if not named:
        names = {name for each in labels for name in (each, *each.split(", "))}
        near = difflib.get_close_matches(label, sorted(names), n=3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UsageError(
            f"--on {label}=...: the bundle has no such label; {hint}"
            f"{UNKNOWN!r} and '{ANY}' for any are there too"
        )
    return named


class Actions:
    """Starts the commands of all rules that an event meets; a sink of `Delivery`."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.name = "actions"
        self._rules = tuple(rules)
        self._running: dict[Rule, subprocess.Popen[bytes]] = {}
        self._waiting: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False
        self.started = 0
        self.skipped = 0
        """Events that came while the same rule's command still ran."""
        self.failed = 0
        """Commands that did not start, or ended with another code than 0."""

    def deliver(self, event: Event) -> None:
        """Start what the event asks for, and do not wait for it.

        Raises `OSError` for the last of the commands that do not start.
        """
        problem: OSError | None = None
        for rule in self._rules:
            if not rule.meets(event.label):
                continue
            try:
                self._start(rule, event)
            except OSError as error:
                self.failed += 1
                problem = error
        if problem is not None:
            raise problem

    def close(self) -> None:
        """End what still runs: SIGTERM to the group, and SIGKILL after a second."""
        with self._lock:
            self._closed = True
            left = list(self._running.values())
        until = time.monotonic() + GRACE_S
        try:
            for process in left:
                _signal_group(process, signal.SIGTERM)
            for thread in self._waiting:
                thread.join(max(0.0, until - time.monotonic()))
        finally:  # a second Ctrl-C does not wait, and leaves nothing behind either
            for process in left:
                _signal_group(process, signal.SIGKILL)
            for thread in self._waiting:
                thread.join(GRACE_S)

    def _start(self, rule: Rule, event: Event) -> None:
        with self._lock:
            if self._closed:
                return
            if rule in self._running:
                self.skipped += 1
                return
            process = subprocess.Popen(  # noqa: S603 - the user's own command, and no shell
                rule.command,
                env={**os.environ, **_environment(event)},
                stdin=subprocess.DEVNULL,
                stdout=STDERR,  # stdout may be one JSON document
                start_new_session=True,  # Ctrl-C comes to us, and the group is ours to end
            )
            self._running[rule] = process
            self.started += 1
            self._waiting = [thread for thread in self._waiting if thread.is_alive()]
            thread = threading.Thread(
                target=self._wait, args=(rule, process), name="edgenet action", daemon=True
            )
            self._waiting.append(thread)
            thread.start()

    def _wait(self, rule: Rule, process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        with self._lock:
            del self._running[rule]
            self.failed += code != 0 and not self._closed


def _signal_group(process: subprocess.Popen[bytes], sent: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # all of it has ended
        os.killpg(process.pid, sent)


def _environment(event: Event) -> dict[str, str]:
    """Return the event as environment variables, EDGENET_LABEL and so on; unknown is empty."""
    return {
        f"EDGENET_{name.upper()}": "" if value is None else str(value)
        for name, value in event.fields().items()
    }
