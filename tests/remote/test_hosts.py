"""Commands with --host, over a real sshd to a board that is this machine."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import fastjsonschema
import pytest
from by_hand import put_edgenet, running_on

from edgenet.cli import run
from edgenet.report.reading import read_document

ROOT = Path(__file__).parents[2]
HOSTS_SCHEMA = ROOT / "edgenet/schemas/hosts.schema.json"
SYNTHETIC = "synthetic://?fps=30"
SMALL = "small"
PATIENCE_S = 60
TIMING_S = 6


@pytest.fixture
def deployed(board, small_bundle, tmp_path, monkeypatch):
    """A board with edgenet and the small bundle; the bundle is `small` in the current folder."""
    put_edgenet(board, small_bundle)
    shutil.copytree(small_bundle.root, tmp_path / "here/small")
    monkeypatch.chdir(tmp_path / "here")
    return board


def start(*words):
    return subprocess.Popen(
        [sys.executable, "-m", "edgenet", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(child):
    out, err = child.communicate(timeout=PATIENCE_S)
    return child.returncode, out, err


def edgenet(*words):
    return finish(start(*words))


def wait_for(found):
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found():
            return
        time.sleep(0.05)
    raise AssertionError("did not come about in time")


def processor_s(pid):
    """Return for how long a process has had a processor; 0 for one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for_line(stream, pattern):
    """Return the match in the first line that has one; the lines before are read away."""
    for line in stream:
        if found := re.search(pattern, line):
            return found
    raise AssertionError(f"no line with {pattern}")


# One host: as if it ran here.


def test_verify_says_there_what_it_says_here(deployed):
    code, there, err = edgenet("verify", SMALL, "--host", "board")
    assert code == 0, err
    _, here, _ = edgenet("verify", SMALL)
    assert there == f"{here}host: board\n"
    assert "verify 9 artefacts" in err


def test_verify_as_json(deployed, small_bundle):
    line = ["verify", str(SMALL), "--runtime", "litert", "--json"]
    code, out, err = edgenet(*line, "--host", "board")
    assert code == 0, err
    document = json.loads(out)
    assert document["kind"] == "verification"
    assert document["bundle_sha256"] == small_bundle.sha256
    assert document["command"] == ["edgenet", *line, "--host", "board"]


def test_doctor(deployed):
    code, out, err = edgenet("doctor", "--host", "board", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["kind"] == "examination"
    assert document["command"] == ["edgenet", "doctor", "--json", "--host", "board"]


def test_doctor_brings_a_tree_home(deployed, tmp_path):
    code, _, err = edgenet("doctor", "--host", "board", "--record", "tree.tar.gz")
    assert code == 0, err
    assert err.splitlines()[-1] == "recorded: tree.tar.gz"
    code, out, err = edgenet("doctor", "--tree", "tree.tar.gz", "--json")
    assert code == 0, err
    assert json.loads(out)["source"] == "a recorded tree, no machine"


def test_a_target_of_ones_own_goes_along(deployed, tmp_path):
    target = tmp_path / "mine.toml"
    text = (ROOT / "targets/x86/target.toml").read_text("utf-8")
    target.write_text(re.sub("(?m)^advice = .*$", 'advice = "use them all"', text), "utf-8")
    code, out, err = edgenet("doctor", "--host", "board", "--target", target)
    assert code == 0, err
    assert "use them all" in out


def test_profile_brings_its_record_home(deployed, small_bundle):
    options = ["--runtime", "null", "--quick", "--duration", "0.2"]
    code, out, err = edgenet("profile", SMALL, *options, "--host", "board")
    assert code == 0, err
    record = re.search(r"^record: (.*)$", out, re.MULTILINE)[1]
    assert re.fullmatch(
        rf"{Path.cwd()}/records/{small_bundle.sha256[:12]}_profile_board_[^/]*\.json",
        record,
    )
    found = read_document(Path(record))
    assert found.kind == "profile"
    assert found.bundle_sha256 == small_bundle.sha256
    again = f"edgenet profile {SMALL} {' '.join(options)} --host board"
    assert sorted(re.search(r"^again: (.*)$", out, re.MULTILINE)[1].split()) == sorted(
        again.split()
    )
    assert out.splitlines()[-2:] == ["host: board", f"record: {record}"]


def test_a_record_of_ones_own_name(deployed):
    options = ["--runtime", "null", "--quick", "--duration", "0.2", "--json", "-o", "mine.json"]
    code, out, err = edgenet("profile", SMALL, *options, "--host", "board")
    assert code == 0, err
    assert json.loads(Path("mine.json").read_text()) == json.loads(out)
    assert sorted(path.name for path in Path().iterdir()) == ["mine.json", SMALL]


def test_the_exit_code_is_the_boards(deployed):
    line = ["profile", SMALL, "--host", "board"]
    code, out, err = edgenet(*line, "--threads", "100000")
    assert (code, out) == (2, "host: board\n")
    assert re.search("^edgenet: board: --threads '100000'", err, re.MULTILINE)


def test_a_file_that_was_changed_there(deployed):
    """The board refuses it; one line says where."""
    (there,) = (deployed.home / ".local/share/edgenet/bundles").iterdir()
    (model,) = there.glob("*float32.tflite")
    model.write_bytes(model.read_bytes() + b"\0")
    code, _, err = edgenet("verify", SMALL, "--runtime", "litert", "--host", "board")
    assert code == 1
    (line,) = (line for line in err.splitlines() if line.startswith("edgenet: board: "))
    assert "float32.tflite" in line


def test_another_version_there(board, small_bundle):
    put_edgenet(board, small_bundle, version="0.0.9")
    _, _, err = edgenet("verify", small_bundle.root, "--runtime", "litert", "--host", "board")
    assert "edgenet: warning: board: edgenet 0.0.9 is there, this is " in err


def test_an_edgenet_that_knows_no_hosts(deployed):
    (python,) = deployed.home.glob(".local/share/edgenet/venvs/*/bin/python")
    python.write_text("#!/bin/sh\necho No module named edgenet.remote.attended >&2\nexit 1\n")
    code, _, err = edgenet("verify", SMALL, "--host", "board")
    assert code == 1
    (line,) = err.splitlines()
    assert "No module named edgenet.remote.attended" in line
    assert "edgenet deploy BUNDLE --host board" in line


def test_a_bundle_that_was_not_deployed(board, small_bundle):
    put_edgenet(board)
    code, out, err = edgenet("profile", small_bundle.root, "--runtime", "null", "--host", "board")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == (
        f"edgenet: board: {small_bundle.root} is not there, or was changed here since; run: "
        f"edgenet deploy {small_bundle.root} --host board"
    )


# Several hosts.


@pytest.fixture
def two(deployed):
    """Two names of one board, and `gone`, at which nothing listens."""
    for name in ("pi4", "pi5"):
        deployed.add_host(name)
    deployed.add_host("gone", "Port 9")
    return deployed


def test_several_hosts_in_one_table(two):
    line = ["verify", SMALL, "--runtime", "litert", "--precision", "int8"]
    code, out, err = edgenet(*line, "--host", "pi4,pi5")
    assert code == 0, err
    head, _, *rows = out.split("\n\n")[0].splitlines()
    assert head.split()[:2] == ["host", "artefact"]
    assert [row.split()[0] for row in rows] == ["pi4", "pi5"]
    assert all(row.endswith("holds") for row in rows)
    assert {line.split(":")[0] for line in err.splitlines()} == {"pi4", "pi5"}


def test_one_that_cannot_be_reached_keeps_no_other(two):
    options = ["--runtime", "null", "--quick", "--duration", "0.2", "--json"]
    line = ["profile", SMALL, *options, "--host", "gone", "--host", "pi5"]
    code, out, err = edgenet(*line)
    assert code == 1
    document = json.loads(out)
    fastjsonschema.compile(json.loads(HOSTS_SCHEMA.read_text()))(document)
    gone, pi5 = document["hosts"]
    assert (gone["host"], gone["exit_code"], gone["document"]) == ("gone", None, None)
    assert "connection refused" in gone["exit_code_reason"]
    assert pi5["exit_code"] == 0
    assert pi5["document"]["kind"] == "profile"
    assert json.loads(Path(pi5["record"]).read_text()) == pi5["document"]
    assert "dropped out" in err
    assert err.splitlines()[-1] == "edgenet: 1 of 2 hosts failed: gone"


def test_profiles_side_by_side(two):
    options = ["--runtime", "null", "--quick", "--duration", "0.2"]
    hosts = ["--host", "pi4", "--host", "pi5"]
    code, out, err = edgenet("profile", SMALL, *options, *hosts)
    assert code == 0, err
    table, notes = out.split("\n\n")[:2]
    assert [row.split()[:2] for row in table.splitlines()[2:]] == [["pi4", "null"], ["pi5", "null"]]
    records = re.findall(r"^(pi\d): record: (.*)$", notes, re.MULTILINE)
    assert [host for host, _ in records] == ["pi4", "pi5"]
    assert all(f"_profile_{host}_" in record for host, record in records)
    assert "pi4: quick" in notes


def test_one_is_cut_off_and_the_other_goes_on(two, small_bundle, tmp_path):
    """A board of its own for the one that is cut, so that the other's connection stays."""
    from ssh_server import served

    with served(tmp_path / "other") as other:
        put_edgenet(other, small_bundle)
        two.add_host(
            "cut",
            f"Port {other.port}",
            f"IdentityFile {other.folder / 'client_key'}",
            f"UserKnownHostsFile {other.known_hosts}",
        )
        camera = ["camera", SMALL, "--source", SYNTHETIC, "--duration", "6"]
        child = start(*camera, "--runtime", "litert", "--host", "cut", "--host", "pi5")
        wait_for_line(child.stderr, "^cut: synthetic://")
        other.drop_connections()
        code, out, err = finish(child)
        assert code == 1
        assert "cut: FAILED: cut: the connection was lost" in out
        assert [row.split()[0] for row in out.split("\n\n")[0].splitlines()[2:]] == ["pi5"]
        assert "edgenet: 1 of 2 hosts failed: cut" in err
        wait_for(lambda: not running_on(other))


def test_documents_of_a_newer_edgenet(two):
    """What the boards' edgenet says passes through, but for the version of its documents."""
    (python,) = two.home.glob(".local/share/edgenet/venvs/*/bin/python")
    speak = r's/\("schema_version": "\)1/\19/'
    python.write_text(f"#!/bin/sh\n{sys.executable} \"$@\" | sed -u '{speak}'\n")
    code, out, err = edgenet("doctor", "--host", "pi4,pi5")
    assert code == 1
    assert re.search(r"schema 9\.\d+ is not the 1\.x that this edgenet reads; upgrade edgenet", out)
    assert err.splitlines()[-1] == "edgenet: 2 of 2 hosts failed: pi4, pi5"


# Nothing is left behind.


def test_ctrl_c_ends_the_camera_well(deployed):
    line = ["camera", SMALL, "--source", SYNTHETIC, "--runtime", "litert"]
    child = start(*line, "--host", "board")
    wait_for_line(child.stderr, "Ctrl-C ends it")
    time.sleep(1)
    child.send_signal(signal.SIGINT)
    code, out, err = finish(child)
    assert code == 0, err
    assert "frames labelled in" in out
    record = out.splitlines()[-1].removeprefix("record: ")
    assert read_document(Path(record)).kind == "camera"
    assert not running_on(deployed)
    assert list((deployed.home / ".local/share/edgenet/records").iterdir()) == []


def test_ctrl_c_keeps_what_was_measured(deployed):
    line = ["profile", SMALL, "--runtime", "litert", "--layers", "off"]
    child = start(*line, "--duration", "60", "--host", "board")
    # Importing a runtime takes a second or two of a processor; what takes longer is timing.
    wait_for(lambda: max(map(processor_s, running_on(deployed)), default=0) > TIMING_S)
    child.send_signal(signal.SIGINT)
    code, out, err = finish(child)
    assert code == 130
    assert "interrupted: what is here is right" in out
    assert err.splitlines().count("edgenet: interrupted") == 1
    assert read_document(Path(out.splitlines()[-1].removeprefix("record: "))).kind == "profile"
    assert not running_on(deployed)


@pytest.mark.parametrize("how", [signal.SIGKILL, "cut"])
def test_nothing_runs_on_when_this_end_is_gone(deployed, how):
    line = ["camera", SMALL, "--source", SYNTHETIC, "--runtime", "litert"]
    child = start(*line, "--host", "board")
    wait_for_line(child.stderr, "Ctrl-C ends it")
    assert running_on(deployed)
    if how == "cut":
        deployed.drop_connections()
    else:
        child.send_signal(how)
    code, _, err = finish(child)
    wait_for(lambda: not running_on(deployed))
    assert list((deployed.home / ".local/share/edgenet/records").iterdir()) == []
    if how == "cut":
        assert code == 1
        assert err.splitlines()[-1].startswith("edgenet: board: the connection was lost")


# The camera.


def test_the_page_comes_through_the_tunnel(deployed):
    line = ["camera", SMALL, "--source", SYNTHETIC, "--runtime", "litert"]
    child = start(*line, "--host", "board")
    url = wait_for_line(child.stderr, r"^page: (http://127\.0\.0\.1:\d+/)$")[1]
    with urllib.request.urlopen(url, timeout=10) as page:
        assert b"<html" in page.read()
    with urllib.request.urlopen(f"{url}metrics", timeout=10) as metrics:
        assert b"edgenet" in metrics.read()
    child.send_signal(signal.SIGINT)
    code, _, err = finish(child)
    assert code == 0, err
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=2)


def test_the_page_where_it_is_wanted(deployed):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = ["camera", SMALL, "--source", SYNTHETIC, "--duration", "1"]
        line += ["--runtime", "litert", "--host", "board", "--view", f"127.0.0.1:{port}"]
        code, _, err = edgenet(*line)
        assert code == 1
        assert f"port {port} on 127.0.0.1 is in use" in err.splitlines()[-1]
    wait_for(lambda: not running_on(deployed))
    code, _, err = edgenet(*line)
    assert code == 0, err
    assert f"page: http://127.0.0.1:{port}/" in err.splitlines()


def test_files_of_a_camera_run_come_home(deployed):
    line = ["camera", SMALL, "--source", SYNTHETIC, "--runtime", "litert"]
    line += ["--duration", "2", "--events", "events.jsonl", "--record", "run.tar"]
    code, out, err = edgenet(*line, "--host", "board")
    assert code == 0, err
    events = [json.loads(line) for line in Path("events.jsonl").read_text().splitlines()]
    assert events[0]["previous"] is None
    record = json.loads(Path(out.splitlines()[-1].removeprefix("record: ")).read_text())
    assert record["records"][0]["device"]
    code, out, err = edgenet("camera", SMALL, "--replay", "run.tar", "--json")
    assert code == 0, err
    assert json.loads(out)["records"][0]["camera"]["labelled"] > 10


def test_events_as_they_come(deployed):
    line = ["camera", SMALL, "--source", SYNTHETIC, "--runtime", "litert"]
    child = start(*line, "--events", "-", "--host", "board")
    assert json.loads(child.stdout.readline())["previous"] is None
    child.send_signal(signal.SIGINT)
    code, out, err = finish(child)
    assert code == 0
    assert "frames labelled in" in err
    assert "frames labelled in" not in out


def test_cameras_of_a_board(deployed):
    code, out, err = edgenet("camera", "--list", "--json", "--host", "board")
    assert code == 0, err
    assert json.loads(out)["kind"] == "cameras"


# The command line alone is wrong.


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["camera", "--host", "a", "--window"], "--window"),
        (["camera", "--host", "a", "--replay", "run.tar"], "--replay"),
        (["camera", "--host", "a", "--view", "0.0.0.0:8080"], "127.0.0.1:8080"),
        (["camera", "--host", "a", "--host", "b", "--events", "-"], "--events -"),
        (["camera", "--host", "a", "--host", "b", "--list"], "--list"),
        (["camera", "--host", "a", "--host", "b", "--view", "127.0.0.1:8080"], "--view"),
        (["doctor", "--host", "a", "--tree", "pi_5"], "--tree"),
        (["doctor", "--host", "a", "--record", "folder"], ".tar.gz"),
        (["camera", "--host", "a", "--token-file", "token"], "--token-file"),
        (["doctor", "--host", "-oProxyCommand=sh"], "-oProxyCommand=sh"),
        (["verify", "BUNDLE", "--host", "a", "--runtime", "tpu"], "unknown runtime 'tpu'"),
        (["profile", "BUNDLE", "--host", "a", "--host", "b", "-o", "r.json"], "--output"),
        (["profile", "BUNDLE", "--host", "a", "--host", "b", "--against", "BUNDLE"], "--against"),
        (["evaluate", "BUNDLE", "--host", "a", "--data", "nowhere"], "no data at 'nowhere'"),
        (["profile", "BUNDLE", "--host", "a", "--target", "nowhere"], "no target 'nowhere'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage(words, says, small_bundle, capsys, monkeypatch):
    monkeypatch.setenv("EDGENET_SSH_COMMAND", "false")
    line = [str(small_bundle.root) if word == "BUNDLE" else word for word in words]
    assert run(line) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (told,) = err.splitlines()
    assert says in told


def test_a_host_that_is_none(capsys, monkeypatch):
    """Also among others: nothing of the line is done as if it were right."""
    monkeypatch.setenv("EDGENET_SSH_COMMAND", "false")
    assert run(["doctor", "--host", "a,-oProxyCommand=sh"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "-oProxyCommand=sh" in err.splitlines()[-1]


def test_an_old_record_is_not_told_of_as_new(deployed):
    Path("mine.json").write_text("{}")
    line = ["profile", SMALL, "--runtime", "null", "--threads", "100000", "-o", "mine.json"]
    code, out, _ = edgenet(*line, "--host", "board")
    assert (code, out) == (2, "host: board\n")
    assert Path("mine.json").read_text() == "{}"
