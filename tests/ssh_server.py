"""This machine as a board: a real sshd on 127.0.0.1 whose users live in a folder of the test's own.

Everything of a test stays in one folder: keys, configuration, the home. `make test` installs sshd;
without it these tests fail, they do not skip.
"""

from __future__ import annotations

import getpass
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from processes import children_of

from edgenet.remote.ssh import COMMAND_VARIABLE

SSHD = "/usr/sbin/sshd"
START_TIMEOUT_S = 30


class LocalBoard:
    """A running sshd, and how ssh gets into it."""

    def __init__(self, folder: Path, port: int, process: subprocess.Popen) -> None:
        self.host = "board"
        self.folder = folder
        self.port = port
        self.home = folder / "home"
        self.ssh_config = folder / "ssh_config"
        self.known_hosts = folder / "known_hosts"
        self._process = process

    @property
    def ssh_command(self) -> str:
        """Return what EDGENET_SSH_COMMAND has to be for `host` to be this board."""
        return shlex.join(["ssh", "-F", str(self.ssh_config)])

    def add_host(self, name: str, *lines: str) -> None:
        """Let ssh know another name, whose settings come before those of all names."""
        text = self.ssh_config.read_text()
        settings = "".join(f"  {line}\n" for line in lines)
        self.ssh_config.write_text(f"Host {name}\n{settings}{text}")

    def drop_connections(self) -> None:
        """Cut every connection, as a cable that is pulled: nobody says goodbye."""
        for pid in children_of(self._process.pid):
            for session in (*_descendants(pid), pid):
                with suppress(ProcessLookupError):
                    os.kill(session, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    """Return sshd's own processes below one; what runs on the board is not sshd's to end."""
    found = children_of(pid, named="sshd")
    return [each for child in found for each in (*_descendants(child), child)]


@contextmanager
def served(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[LocalBoard]:
    """Start sshd and give the board; `environment` is what its users get besides HOME."""
    folder.mkdir(exist_ok=True)
    (folder / "home").mkdir()
    for name in ("host", "client"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / f"{name}_key"]
        subprocess.run(words, check=True)
    port = _free_port()
    variables = {"HOME": str(folder / "home"), **(environment or {})}
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host_key",
        "PidFile": folder / "sshd.pid",
        "AuthorizedKeysFile": folder / "client_key.pub",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "yes",
        "MaxStartups": "100",
        "SetEnv": " ".join(f'"{name}={value}"' for name, value in variables.items()),
    }
    lines = [f"{name} {value}\n" for name, value in settings.items()]
    (folder / "sshd_config").write_text("".join(lines))
    key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}\n")
    (folder / "ssh_config").write_text(
        "Host *\n"
        "  HostName 127.0.0.1\n"
        f"  Port {port}\n"
        f"  User {getpass.getuser()}\n"
        f"  IdentityFile {folder / 'client_key'}\n"
        "  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder / 'known_hosts'}\n"
        "  GlobalKnownHostsFile /dev/null\n"
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd's unprivileged half is locked in
    with (folder / "sshd.log").open("wb") as log:
        process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", folder / "sshd_config"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        board = LocalBoard(folder, port, process)
        _wait_until_it_listens(board, process)
        yield board
        board.drop_connections()
    finally:
        process.terminate()
        process.wait()


def _wait_until_it_listens(board: LocalBoard, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", board.port), 1):
            return
        time.sleep(0.02)
    raise AssertionError(f"sshd does not start: {(board.folder / 'sshd.log').read_text()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def board(tmp_path, monkeypatch):
    """Give this machine as a fresh board, `board.host`, over a real sshd, with an empty home."""
    with served(tmp_path / "sshd") as running:
        monkeypatch.setenv(COMMAND_VARIABLE, running.ssh_command)
        yield running


@pytest.fixture
def small_disk(tmp_path):
    """Give a disk of 10 MB; where mounting is not allowed these tests fail, they do not skip."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)
