"""A board for the tests of this folder: this machine, over a real sshd."""

import subprocess

import pytest
from ssh_server import served

from edgenet.remote.ssh import COMMAND_VARIABLE


@pytest.fixture
def board(tmp_path, monkeypatch):
    """Give a fresh board called `board.host`, with an empty home; edgenet's ssh reaches it."""
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
