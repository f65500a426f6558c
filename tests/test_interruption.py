"""Ctrl-C at any moment of the start-up ends the program, also where Python loses the exception."""

import signal
import subprocess
import sys
import time

import pytest

from edgenet import interruption

LINE = ["convert", "--weights", "random", "--width-multiplier", "0.25", "--resolution", "64"]
START = """
import sys
print("started", flush=True)
from edgenet.__main__ import main
main()
"""
IMPORTING = """
import os, signal, sys

class Ctrl:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)  # what a finaliser raises goes nowhere

class Importing:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            Ctrl()

sys.meta_path.insert(0, Importing())
from edgenet.__main__ import main
main()
"""
AFTERWARDS = """
import os, signal, sys
from edgenet import cli
from edgenet.cli import summary
from edgenet.report import cost

class Ctrl:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)

def table(model, made=cost.model_table):
    Ctrl()
    return made(model)

cost.model_table = table
cli.main()
"""
INTERRUPTED = {130, -signal.SIGINT}
"""The second is what Python makes of it where the interrupt met code made from text, such as that
of a data class; a shell says 130 of both."""


def start(code, *options):
    return subprocess.Popen(
        [sys.executable, "-c", code, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("moment", range(24))
def test_at_every_moment_of_the_start(tmp_path, moment):
    child = start(START, *LINE, "-o", str(tmp_path / "bundle"))
    assert child.stdout.readline() == "started\n"
    time.sleep(0.01 + 0.06 * moment)
    child.send_signal(signal.SIGINT)
    _, error = child.communicate()
    assert child.returncode in INTERRUPTED, error
    assert error.splitlines()[-1] == "edgenet: interrupted"
    assert not list(tmp_path.iterdir())


def test_an_import_is_let_finish(tmp_path):
    """In a finaliser, which like compiled code has nobody to pass the exception on to."""
    child = start(IMPORTING, *LINE, "-o", str(tmp_path / "bundle"))
    _, error = child.communicate()
    assert child.returncode in INTERRUPTED, error
    assert "Exception ignored" not in error
    assert error.splitlines()[-1] == "edgenet: interrupted"
    assert not list(tmp_path.iterdir())


def test_one_that_gets_lost_in_a_command_without_steps():
    child = start(AFTERWARDS, "summary")
    _, error = child.communicate()
    assert child.returncode in INTERRUPTED
    assert error.splitlines()[-1] == "edgenet: interrupted"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_wish_to_end_is_no_failure_the_first_time(sent):
    """The second signal does what it would do without; outside of the block so does the first."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with interruption.ends_well() as wished:
        assert not wished()
        signal.raise_signal(sent)
        assert wished()
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    with interruption.ends_well() as wished:
        pass
    assert not wished()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    with interruption.ends_well() as wished:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
