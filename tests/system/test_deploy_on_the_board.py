"""`edgenet deploy` to a bare aarch64 board: its own Python, wheels carried along, verified there.

What is on the board from its build (/opt/edgenet) is not used: the home is fresh.
"""

import json
import os
import subprocess
import sys

import pytest
from virtual_board import started

from edgenet.remote.ssh import COMMAND_VARIABLE

HOST_ONLY = {"torch", "onnx", "jax", "pydantic", "safetensors", "openvino", "onnxruntime"}
LARGEST_BYTES = 210_000_000
"""Unpacked, with LiteRT."""


@pytest.fixture(scope="module")
def fresh():
    """A board on which nothing was deployed."""
    with started("pi5", f"tests-deploy-{os.getpid()}") as board:
        yield board


def edgenet(board, *words):
    done = subprocess.run(
        [sys.executable, "-m", "edgenet", *map(str, words), "--host", board.name],
        env={**os.environ, COMMAND_VARIABLE: f"ssh -F {board.ssh_config}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def home(fresh):
    """What was in the home before."""
    return fresh.run("find ~ | sort")


@pytest.fixture(scope="module")
def first(fresh, home, small_bundle):
    (board,) = json.loads(edgenet(fresh, "deploy", small_bundle.root, "--json"))["boards"]
    return board


def test_the_board_is_known(first):
    assert first["board"]["target"] == "raspberry_pi"
    assert first["board"]["model"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert first["board"]["python"].startswith("3.11.")


def test_it_answers_as_the_host_does(first):
    assert first["holds"] is True
    assert first["verification"]["machine"] == "aarch64"
    assert first["runtimes"] == ["litert"]
    verified = {entry["artifact"]["precision"] for entry in first["verification"]["artifacts"]}
    assert verified == {"float32", "float16", "int8"}


def test_a_board_without_network_gets_its_wheels_carried(first):
    assert first["packages_from"] == "wheels carried along"
    assert any("no network" in note for note in first["notes"])


def test_it_is_light(first):
    names = {package["name"] for package in first["packages"]}
    assert not names & HOST_ONLY
    assert first["installed_bytes"] <= LARGEST_BYTES


def test_every_step_is_timed(first):
    steps = {step["name"]: step["seconds"] for step in first["steps"]}
    assert {"connect", "look at the board", "send packages", "install packages"} < steps.keys()
    assert all(seconds >= 0 for seconds in steps.values())


def test_a_second_one_sends_next_to_nothing(fresh, first, small_bundle):
    (again,) = json.loads(edgenet(fresh, "deploy", small_bundle.root, "--json"))["boards"]
    assert again["holds"] is True
    assert again["packages_from"] == "there already"
    assert not any("carried" in note for note in again["notes"])
    assert again["sent_bytes"] < 100_000
    assert again["seconds"] < first["seconds"] / 2


def test_uninstall_leaves_nothing(fresh, home, first):
    assert f"removed {first['root']}" in edgenet(fresh, "deploy", "--uninstall")
    assert fresh.run("find ~ | sort") == home
