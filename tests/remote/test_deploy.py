"""`edgenet deploy` to this machine over a real sshd: everything but another processor.

The board here is the system's own Python in a home of the test's; its packages are real ones.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ssh_server import served

from edgenet.manifest import load_bundle
from edgenet.remote.installed import bundle_on, find_installation
from edgenet.remote.sending import receiving
from edgenet.remote.ssh import COMMAND_VARIABLE, connect

PATH = "/usr/local/bin:/usr/bin:/bin"


def edgenet(board, *words, **environment):
    """Run the command line of this machine, as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "edgenet", *map(str, words)],
        env={**os.environ, COMMAND_VARIABLE: board.ssh_command, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def deploy(board, bundle, *words, **environment):
    line = ("deploy", bundle.root, "--host", board.host, "--runtime", "litert", "--json")
    done = edgenet(board, *line, *words, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def complaint(done, code=1):
    assert done.returncode == code, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("edgenet: "))
    return line


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A board for all tests that only look at what the first deployment left."""
    with served(tmp_path_factory.mktemp("deployed") / "sshd", {"PATH": PATH}) as board:
        yield board


@pytest.fixture(scope="module")
def first(shared, small_bundle):
    """The document of the first deployment."""
    return deploy(shared, small_bundle)


@pytest.fixture
def bare(tmp_path):
    """Give a fresh board with stand-ins on its path, and their folder."""
    programs = tmp_path / "bin"
    programs.mkdir()
    with served(tmp_path / "sshd", {"PATH": f"{programs}:{PATH}"}) as board:
        yield board, programs


def stand_in(programs, name, text):
    (programs / name).write_text(f"#!/bin/sh\n{text}\n")
    (programs / name).chmod(0o755)


def test_it_is_verified_there(first):
    (board,) = first["boards"]
    assert board["holds"] is True and first["failed"] == []
    verified = board["verification"]["artifacts"]
    assert {entry["artifact"]["runtime"] for entry in verified} == {"litert"}
    assert {entry["artifact"]["precision"] for entry in verified} == {"float32", "float16", "int8"}


def test_what_it_tells(first, shared, small_bundle):
    (board,) = first["boards"]
    assert first["bundle_sha256"] == small_bundle.sha256
    steps = {step["name"]: step["seconds"] for step in board["steps"]}
    assert {
        "connect",
        "look at the board",
        "install packages",
        "copy the bundle",
        "verify there",
    } <= set(steps)
    assert board["seconds"] == pytest.approx(sum(steps.values()), abs=0.01)
    names = {package["name"] for package in board["packages"]}
    assert {"edgenet", "numpy", "ai-edge-litert", "opencv-python-headless"} <= names
    host_only = {"torch", "onnx", "onnxruntime", "openvino", "jax", "safetensors"}
    assert not names & {*host_only, "pydantic"}
    assert board["installed_bytes"] == sum(each["size_bytes"] for each in board["packages"])
    assert board["root"] == str(shared.home / ".local/share/edgenet")


def test_it_is_found_there(first, shared, small_bundle, monkeypatch):
    monkeypatch.setenv(COMMAND_VARIABLE, shared.ssh_command)
    with connect(shared.host) as connection:
        found = find_installation(connection)
        assert found.runtimes == ("litert",)
        folder = bundle_on(found, small_bundle)
        done = connection.run([*found.edgenet, "verify", folder, "--json"])
    assert done.status == 0
    assert json.loads(done.stdout)["bundle_sha256"] == small_bundle.sha256


def test_only_what_the_board_runs_is_there(first, small_bundle):
    (board,) = first["boards"]
    copy = load_bundle(type(small_bundle.root)(board["bundle_folder"]))
    assert copy.sha256 == small_bundle.sha256
    assert {artifact.runtime for artifact in copy.artifacts} == {"litert"}
    there = {path.suffix for path in copy.root.rglob("*") if path.is_file()}
    assert ".tflite" in there and not there & {".onnx", ".xml", ".bin"}


def test_the_built_in_bundle_works_there(first, shared):
    (board,) = first["boards"]
    program = f"{board['root']}/current/bin/edgenet"
    words = [program, "camera", "--source", "synthetic://", "--duration", "1", "--view", "off"]
    done = subprocess.run(words, cwd=shared.home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_second_one_sends_next_to_nothing(first, shared, small_bundle):
    (board,) = deploy(shared, small_bundle)["boards"]
    assert board["packages_from"] == "there already"
    assert board["sent_bytes"] < 100_000
    assert board["environment"] == first["boards"][0]["environment"]
    assert board["packages"] == first["boards"][0]["packages"]


def test_what_was_changed_there_is_put_right(first, shared, small_bundle):
    folder = shared.home / ".local/share/edgenet/bundles" / small_bundle.sha256[:16]
    (model,) = folder.glob("*int8.tflite")
    model.write_bytes(b"broken")
    (board,) = deploy(shared, small_bundle)["boards"]
    assert board["holds"] is True
    assert board["sent_bytes"] > (small_bundle.root / model.name).stat().st_size


def test_another_bundle_beside_it(first, shared, small_bundle, tmp_path):
    """One that differs by its labels: only those are sent."""
    changed = shutil.copytree(small_bundle.root, tmp_path / "changed")
    labels = changed / "labels.txt"
    labels.write_text("slipper\n" + labels.read_text().partition("\n")[2])
    rehash(changed)
    other = load_bundle(changed)
    (board,) = deploy(shared, other)["boards"]
    assert board["sent_bytes"] < 100_000
    assert board["bundle_folder"] != first["boards"][0]["bundle_folder"]
    assert load_bundle(small_bundle.root).sha256 == small_bundle.sha256


def rehash(folder):
    """Let a bundle's manifest say what its files are now."""
    from edgenet.bundle import describe_file

    manifest = json.loads((folder / "manifest.json").read_text())
    for entry in manifest["files"]:
        found = describe_file(folder, entry["path"])
        entry.update(size_bytes=found.size_bytes, sha256=found.sha256)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_the_text_says_all_that_counts(first, shared, small_bundle):
    line = ("deploy", small_bundle.root, "--host", shared.host, "--runtime", "litert")
    done = edgenet(shared, *line, "--precision", "int8")
    assert done.returncode == 0, done.stderr
    for part in (
        "ai-edge-litert",
        "in all",
        "verify there",
        "sent:",
        "litert int8: holds",
        "there already",
    ):
        assert part in done.stdout
    assert "float32" not in done.stdout


def test_uninstall_leaves_nothing(first, small_bundle, tmp_path):
    with served(tmp_path / "sshd", {"PATH": PATH}) as board:
        shutil.copytree(small_bundle.root, board.home / "theirs")
        line = ("deploy", "--host", board.host, "--uninstall")
        assert "nothing was there" in edgenet(board, *line).stdout
        deploy(board, small_bundle)
        assert (board.home / ".local/share/edgenet/current").exists()
        done = edgenet(board, *line)
        assert done.returncode == 0 and "board: removed " in done.stdout
        assert [path.name for path in board.home.iterdir() if path.name != ".cache"] == ["theirs"]


def test_a_board_that_is_gone_does_not_stop_the_others(first, shared, small_bundle):
    shared.add_host("gone", "HostName gone.invalid")
    line = ("deploy", small_bundle.root, "--runtime", "litert", "--json")
    done = edgenet(shared, *line, "--host", "gone", "--host", shared.host)
    document = json.loads(done.stdout)
    assert [board["host"] for board in document["boards"]] == [shared.host]
    assert [failed["host"] for failed in document["failed"]] == ["gone"]
    assert done.returncode == 1


def test_two_at_once(first, shared, small_bundle, monkeypatch):
    monkeypatch.setenv(COMMAND_VARIABLE, shared.ssh_command)
    root = str(shared.home / ".local/share/edgenet")
    with connect(shared.host) as connection, receiving(connection, sys.executable, root):
        done = edgenet(shared, "deploy", small_bundle.root, "--host", shared.host)
    assert "board: another deployment to this board is at work" in complaint(done)


# What cannot be done, each in one line.


def test_command_lines_that_are_wrong(board, small_bundle, tmp_path):
    for words, said in (
        (("deploy", small_bundle.root), "--host is missing"),
        (("deploy", "--host", "board"), "BUNDLE is missing"),
        (("deploy", tmp_path / "none", "--host", "board"), "no such folder"),
        (("deploy", small_bundle.root, "--host", "-oProxyCommand=x"), "that ssh understands"),
        (
            ("deploy", small_bundle.root, "--host", "board", "--runtime", "abacus"),
            "unknown runtime",
        ),
    ):
        assert said in complaint(edgenet(board, *words), code=2)
    assert list(board.home.iterdir()) == []


def test_a_host_that_cannot_be_reached(board, small_bundle):
    board.known_hosts.write_text("")
    line = ("deploy", small_bundle.root, "--host", board.host)
    assert "its key is not known here yet" in complaint(edgenet(board, *line))
    board.add_host("gone", "HostName gone.invalid")
    wrong = complaint(edgenet(board, "deploy", small_bundle.root, "--host", "gone"))
    assert "gone: no host of that name is known" in wrong


def test_a_bundle_from_a_newer_version(board, small_bundle, tmp_path):
    newer = shutil.copytree(small_bundle.root, tmp_path / "newer")
    manifest = newer / "manifest.json"
    manifest.write_text(
        manifest.read_text().replace('"schema_version": "1', '"schema_version": "9', 1)
    )
    done = edgenet(board, "deploy", newer, "--host", board.host)
    assert "upgrade edgenet" in complaint(done)
    assert list(board.home.iterdir()) == []


@pytest.mark.parametrize("path", ["../../x", "/tmp/x"])
def test_a_hostile_name_in_a_bundle(board, small_bundle, tmp_path, path):
    hostile = shutil.copytree(small_bundle.root, tmp_path / "hostile")
    manifest = json.loads((hostile / "manifest.json").read_text())
    manifest["files"][0]["path"] = path
    (hostile / "manifest.json").write_text(json.dumps(manifest))
    assert "manifest.json" in complaint(edgenet(board, "deploy", hostile, "--host", board.host))
    assert list(board.home.iterdir()) == []


def test_a_link_out_of_the_bundle(first, shared, small_bundle, tmp_path):
    linked = shutil.copytree(small_bundle.root, tmp_path / "linked")
    (linked / "labels.txt").rename(tmp_path / "labels.txt")
    (linked / "labels.txt").symlink_to(tmp_path / "labels.txt")
    line = ("deploy", linked, "--host", shared.host, "--runtime", "litert")
    assert "is a link out of the bundle" in complaint(edgenet(shared, *line))


def test_no_wheels_for_the_architecture(bare, small_bundle):
    board, programs = bare
    stand_in(programs, "uname", "echo s390x")
    line = ("deploy", small_bundle.root, "--host", board.host, "--runtime", "litert", "--offline")
    said = complaint(edgenet(board, *line))
    assert "board: no wheel of " in said and "on s390x with glibc" in said


def test_no_network_anywhere(bare, small_bundle, tmp_path):
    board, _ = bare
    nowhere = {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_FIND_LINKS": "",
        "PIP_EXTRA_INDEX_URL": "",
        "XDG_CACHE_HOME": str(tmp_path),
    }
    line = ("deploy", small_bundle.root, "--host", board.host, "--offline")
    said = complaint(edgenet(board, *line, **nowhere))
    assert "pip on this machine reaches no index" in said


def test_no_room(bare, small_bundle, small_disk):
    board, _ = bare
    (board.home / ".local/share").mkdir(parents=True)
    (board.home / ".local/share/edgenet").symlink_to(small_disk)
    line = ("deploy", small_bundle.root, "--host", board.host, "--runtime", "litert", "--offline")
    said = complaint(edgenet(board, *line))
    assert "MB are free at" in said and "MB are needed; make room there" in said
    assert not [path for path in small_disk.rglob("*") if path.is_file() and path.stat().st_size]


def test_a_clock_that_is_years_off_takes_wheels_along(bare, small_bundle):
    board, programs = bare
    stand_in(programs, "date", f"echo {int(time.time()) - 10 * 365 * 86400}")
    (told,) = deploy(board, small_bundle)["boards"]
    assert told["packages_from"] == "wheels carried along"
    assert any("clock is 3650 days behind" in note for note in told["notes"])


def bytes_in(folder: Path) -> int:
    """Return what a folder holds while files in it come, change their names and go."""
    total = 0
    for path in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def test_a_cut_in_the_middle_leaves_what_was_there(first, shared, small_bundle, tmp_path):
    """The old installation still verifies, and a second run goes on where the first was cut."""
    words = (
        "deploy",
        small_bundle.root,
        "--host",
        shared.host,
        "--runtime",
        "onnxruntime",
        "--offline",
    )
    incoming = shared.home / ".local/share/edgenet/incoming"
    with subprocess.Popen(
        [sys.executable, "-m", "edgenet", *map(str, words)],
        env={**os.environ, COMMAND_VARIABLE: shared.ssh_command},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            deadline = time.monotonic() + 120
            while bytes_in(incoming) < 1_000_000:
                assert running.poll() is None and time.monotonic() < deadline
                time.sleep(0.005)
            shared.drop_connections()
            _, stderr = running.communicate()
        finally:
            running.kill()
    assert running.returncode == 1
    assert "board: the connection was lost" in stderr.splitlines()[-1]
    program = first["boards"][0]["root"] + "/current/bin/edgenet"
    folder = first["boards"][0]["bundle_folder"]
    assert (
        subprocess.run([program, "verify", folder], capture_output=True, check=False).returncode
        == 0
    )
    done = edgenet(shared, *words, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["boards"][0]["runtimes"] == ["onnxruntime"]
