"""A board over the system's own OpenSSH: one shared connection, commands, a tunnel.

Whatever `ssh HOST` understands works - aliases, keys, jump hosts - and nothing is ever asked: what
needs a password or a yes is told instead. Knows nothing of what is run there.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from edgenet.errors import BoardUnreachable, ConnectionLost, UsageError
from edgenet.stream.listening import LOOPBACK, Address, listen

COMMAND_VARIABLE = "EDGENET_SSH_COMMAND"
"""Names another SSH client, with its first options, as a shell would split them."""
CONNECT_TIMEOUT_S = 15
LOGIN_TIMEOUT_S = 60.0
"""An emulated or very busy board takes seconds to agree on keys."""
ALIVE_INTERVAL_S, ALIVE_COUNT = 5, 3
"""So many unanswered questions in a row end a connection: a dead link is noticed after 15 s."""
SETTLE_S = 2.0
"""The shared connection may end a moment after the session that it took with it."""
FORWARD_ATTEMPTS = 5
ANYWHERE = Address(host=LOOPBACK, port=0)
"""A port for a tunnel: any that is free, for this machine alone."""
LONGEST_SOCKET = 85
"""Bytes of a path that ssh can still use for its socket, after adding letters of its own."""
READY = "edgenet-is-in"
HOLD = f"echo {READY}; exec cat"
"""Holds the connection: it ends with this process's end of the pipe, however that ends."""


@dataclass(frozen=True, kw_only=True)
class Completed:
    """A command that has ended on the board."""

    status: int
    stdout: bytes
    stderr: str


class Connection:
    """One connection that every command to a board shares. Close it; `connect` makes it."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._command = ssh_command()
        self._folder = _private_folder()
        self._sent_bytes = 0
        self._counting = threading.Lock()
        try:
            self._master = self._log_in()
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def sent_bytes(self) -> int:
        """Return the bytes of commands and their input so far, without what SSH adds."""
        return self._sent_bytes

    def count_sent(self, count: int) -> None:
        """Count bytes that were written to a command of `start`."""
        with self._counting:
            self._sent_bytes += count

    def run(
        self, words: Sequence[str], *, stdin: bytes = b"", timeout_s: float | None = None
    ) -> Completed:
        """Run a command on the board, its words quoted for the shell there, and wait for it.

        Raises `ConnectionLost` when the connection ends first, or no answer comes in time.
        """
        with self.start(words) as process:
            try:
                stdout, stderr = process.communicate(stdin, timeout=timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                raise ConnectionLost(
                    f"{self.host}: no answer in {timeout_s:g} s to {words[0]}; is it busy?"
                ) from None
            except BaseException:
                process.kill()
                raise
        self.count_sent(len(stdin))
        if process.returncode == 255:  # ssh's own, or that of the command
            self.check()
        return Completed(
            status=process.returncode, stdout=stdout, stderr=stderr.decode(errors="replace")
        )

    def start(self, words: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command on the board; give its three pipes.

        When it ends with 255, `check` tells whether the connection did.
        """
        line = shlex.join(words)
        self.count_sent(len(line.encode()))
        return subprocess.Popen(  # noqa: S603
            self._session(self.host, line),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            start_new_session=True,  # a Ctrl-C comes to this process alone, which says what ends
        )

    def forward(self, board_port: int, *, here: Address = ANYWHERE) -> int:
        """Return a port of this machine that now leads to 127.0.0.1:`board_port` on the board.

        It is open until the connection is closed. Raises `AddressUnavailable` where `here` names a
        port that is taken, `ConnectionLost` where there is no tunnel.
        """
        said = ""
        for _ in range(FORWARD_ATTEMPTS):  # another program may take the port in between
            port = _port(here)
            way = f"{Address(host=here.host, port=port).text}:127.0.0.1:{board_port}"
            words = self._session("-O", "forward", "-L", way, self.host)
            done = subprocess.run(  # noqa: S603
                words,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=_environment(),
                check=False,
            )
            if done.returncode == 0:
                return port
            said = _last_line(done.stderr.decode(errors="replace"))
            self.check()
        raise ConnectionLost(f"{self.host}: no tunnel to its port {board_port} ({said})")

    def check(self) -> None:
        """Raise `ConnectionLost` if the connection has ended."""
        with suppress(subprocess.TimeoutExpired):
            self._master.wait(SETTLE_S)
            said = _last_line(self._errors())
            raise ConnectionLost(
                f"{self.host}: the connection was lost"
                + (f" ({said})" if said else "")
                + "; is the board on and in this network? Run the command again"
            )

    def close(self) -> None:
        """End the connection and all that runs over it; may be called twice."""
        _end(self._master)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _log_in(self) -> subprocess.Popen[bytes]:
        """Return the process that holds the shared connection, once it is logged in."""
        with (self._folder / "errors").open("wb") as errors:
            try:
                master = subprocess.Popen(  # noqa: S603
                    [*self._command, *self._master_options(), "--", self.host, HOLD],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=_environment(),
                    start_new_session=True,
                )
            except OSError as error:
                raise BoardUnreachable(
                    f"{self.host}: {self._command[0]} cannot be run ({error.strerror}); install "
                    f"OpenSSH's client, or say in {COMMAND_VARIABLE} what to run"
                ) from None
        patience = threading.Timer(LOGIN_TIMEOUT_S, master.kill)
        patience.start()
        try:
            heard = _until_ready(master)
        except BaseException:
            _end(master)
            raise
        finally:
            patience.cancel()
        if heard is None:
            return master
        _end(master)
        raise BoardUnreachable(f"{self.host}: {_why_not(self.host, self._errors(), heard)}")

    def _errors(self) -> str:
        return (self._folder / "errors").read_text("utf-8", errors="replace")

    def _master_options(self) -> list[str]:
        return [
            *("-M", "-S", str(self._folder / "ssh"), "-T", "-a", "-x"),
            *_options(
                "BatchMode=yes",
                "ClearAllForwardings=yes",
                "ControlPersist=no",
                "LogLevel=ERROR",
                "RemoteCommand=none",
                f"ConnectTimeout={CONNECT_TIMEOUT_S}",
                f"ServerAliveInterval={ALIVE_INTERVAL_S}",
                f"ServerAliveCountMax={ALIVE_COUNT}",
            ),
        ]

    def _session(self, *words: str) -> list[str]:
        """Return the command for what goes over the shared connection, and never beside it."""
        options = _options(
            "ControlMaster=no",
            "BatchMode=yes",
            "LogLevel=ERROR",
            "RemoteCommand=none",
            "ProxyCommand=false",  # what ssh would connect with once the shared one is gone
        )
        return [*self._command, "-S", str(self._folder / "ssh"), "-T", *options, *words]


def connect(host: str) -> Connection:
    """Return an open connection to what `ssh` knows as `host`.

    Raises `BoardUnreachable` telling why there is none and what to do, `UsageError` for what is no
    host's name.
    """
    if not host or host.startswith("-") or re.search(r"[\s\x00-\x1f\x7f]", host):
        raise UsageError(f"--host {host!r}: give a name that ssh understands, such as pi@raspberry")
    return Connection(host)


def ssh_command() -> list[str]:
    """Return the words that start the SSH client."""
    text = os.environ.get(COMMAND_VARIABLE) or "ssh"
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{COMMAND_VARIABLE}={text}: {error}") from None
    if not words:
        raise UsageError(f"{COMMAND_VARIABLE} is blank: give a command, or unset it")
    return words


def _end(master: subprocess.Popen[bytes]) -> None:
    """End the process that holds a connection, and close its pipes."""
    assert master.stdin is not None
    assert master.stdout is not None
    with suppress(OSError):
        master.stdin.close()
    master.terminate()
    try:
        master.wait(SETTLE_S)
    except subprocess.TimeoutExpired:
        master.kill()
        master.wait()
    master.stdout.close()


def _until_ready(master: subprocess.Popen[bytes]) -> str | None:
    """Wait until the board's shell answers; return what it said instead where it does not."""
    assert master.stdout is not None
    heard = ""
    for line in master.stdout:  # a start-up file may chatter before
        if line.decode(errors="replace").strip() == READY:
            return None
        heard = line.decode(errors="replace").strip() or heard
    return heard


REASONS = (
    ("could not resolve hostname", "no host of that name is known; check it, or ~/.ssh/config"),
    ("connection refused", "connection refused; is SSH switched on there, and the port right?"),
    ("timed out", f"no answer in {CONNECT_TIMEOUT_S} s; is it on and in this network?"),
    ("no route to host", "cannot be reached; is it on and in this network?"),
    ("network is unreachable", "there is no network to it; check this machine's network"),
    (
        "identification has changed",
        "its key is another than the one known here; if it was set up anew: ssh-keygen -R {host}",
    ),
    (
        "host key verification failed",
        "its key is not known here yet; run `ssh {host}` once and compare the fingerprint",
    ),
    (
        "permission denied",
        "refuses this user or key; `ssh {host}` must work without a password (ssh-copy-id {host}; "
        "the user is what stands before @)",
    ),
)
"""What ssh says (lower case), and what that means; the first that fits."""


def _why_not(host: str, errors: str, heard: str) -> str:
    """Return why there is no connection, from what ssh and the board's shell said."""
    lowered = errors.lower()
    for sign, meaning in REASONS:
        if sign in lowered:
            # The name alone for ssh-keygen, which knows no users.
            name = host.rpartition("@")[2] if "ssh-keygen" in meaning else host
            return meaning.format(host=name)
    if said := _last_line(errors):
        return f"no connection ({said}); `ssh {host}` must work first"
    if heard:
        return f"logs in and runs no command ({heard}); the user needs a shell there"
    return f"does not finish the login in {LOGIN_TIMEOUT_S:g} s; does `ssh {host}` work?"


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _options(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("-o", setting)]


def _environment() -> dict[str, str]:
    """Return the environment for ssh, whose messages are read: in English."""
    return {**os.environ, "LC_ALL": "C"}


def _private_folder() -> Path:
    """Return a new folder that only this user may enter, with a path short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="edgenet-ssh-"))
    if len(str(folder / "ssh").encode()) <= LONGEST_SOCKET:
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="edgenet-ssh-", dir="/tmp"))


def _port(here: Address) -> int:
    """Return the port that `here` names, or one that is free just now."""
    with listen(here, option="--view") as probe:
        return int(probe.getsockname()[1])
