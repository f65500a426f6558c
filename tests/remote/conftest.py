"""A board for the tests of this folder: this machine, over a real sshd."""

import pytest
from ssh_server import served

from edgenet.remote.ssh import COMMAND_VARIABLE


@pytest.fixture
def board(tmp_path, monkeypatch):
    """Give a fresh board called `board.host`, with an empty home; edgenet's ssh reaches it."""
    with served(tmp_path / "sshd") as running:
        monkeypatch.setenv(COMMAND_VARIABLE, running.ssh_command)
        yield running
