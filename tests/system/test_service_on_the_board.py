"""A camera as a service: deployed to a board that systemd runs, killed, stopped, moved and removed.

One boot of its own. The service's limits are made shorter by a drop-in, as its owner could.
"""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from conftest import convert_quietly
from virtual_board import started

from edgenet.bundle import Precision
from edgenet.convert.pipeline import WRITERS
from edgenet.remote.service import PRIVATE_STATE, SERVICE_ROOT, STATE, TOKEN, UNIT, UNIT_FILE
from edgenet.remote.ssh import COMMAND_VARIABLE, connect

EDGENET = Path(sys.executable).with_name("edgenet")
PORT = 8090
DROP_IN = "[Service]\nWatchdogSec=20\nTimeoutStartSec=280\n"
ODD = """*=true 100% %h $HOME ${HOME} 'a b' "c;d" back\\\\slash"""
PATIENCE_S = 240


def deploy(board, *words):
    """Run `edgenet deploy` against a board and return what came of it."""
    return subprocess.run(
        [EDGENET, "deploy", "--host", board.name, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, COMMAND_VARIABLE: f"ssh -F {board.ssh_config}"},
    )


def show(board, *names):
    """Return properties of the unit."""
    text = board.run(f"sudo systemctl show -p {','.join(names)} {UNIT}")
    found = dict(line.split("=", 1) for line in text.splitlines())
    return [found[name] for name in names]


def wait_for_start(board, number):
    """Return the process of the unit's start `number`, once it has labelled a frame."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        restarts, state, pid = show(board, "NRestarts", "SubState", "MainPID")
        if (int(restarts), state) == (number, "running"):
            return pid
        time.sleep(1)
    raise AssertionError(board.run(f"sudo journalctl -u {UNIT} --no-pager -n 30"))


@pytest.fixture(scope="module")
def bundle(fashion, tmp_path_factory):
    """INT8 for LiteRT alone: copied in a moment."""
    int8 = [
        each
        for each in WRITERS
        if each.runtime == "litert" and each.precision is Precision.INT8 and not each.variant
    ]
    return convert_quietly(fashion, tmp_path_factory.mktemp("service") / "int8", targets=int8)


@pytest.fixture(scope="module")
def board():
    with started("pi5", f"tests-service-{os.getpid()}", "--systemd") as board:
        yield board


@pytest.fixture(scope="module")
def service(board, bundle):
    """What deploy says of the service, which has labelled a frame of the board's own camera."""
    board.run(
        f"sudo mkdir -p {UNIT_FILE}.d && printf {DROP_IN!r} | sudo tee {UNIT_FILE}.d/test.conf"
    )
    done = deploy(
        *(board, bundle.root, "--offline", "--json", "--service", "--view", f"0.0.0.0:{PORT}"),
        *("--", "--source", "/dev/video0", "--on", ODD),
    )
    assert done.returncode == 0, done.stderr
    assert f"with sudo it fills {SERVICE_ROOT}, writes {UNIT_FILE}" in done.stderr
    (entry,) = json.loads(done.stdout)["boards"]
    assert entry["holds"] is True
    assert entry["root"] == SERVICE_ROOT
    return entry["service"]


def test_it_runs_and_says_how_it_goes(board, service):
    assert " %, age " in service["status"]
    assert show(board, "ActiveState", "UnitFileState", "NRestarts", "WatchdogUSec") == [
        *("active", "enabled", "0", "20s"),
    ]
    assert board.run("sudo systemctl --failed --no-legend") == ""


def test_its_words_are_those_that_were_given(board, service):
    (pid,) = show(board, "MainPID")
    words = board.run(f"sudo cat /proc/{pid}/cmdline").split("\0")[:-1]
    assert words[1:] == service["command"], "after the environment's Python"
    assert words[-1] == ODD


def test_its_user_may_do_nothing_else(board, service):
    (pid,) = show(board, "MainPID")
    status = dict(
        line.split(":\t", 1) for line in board.run(f"sudo cat /proc/{pid}/status").splitlines()
    )
    uid = int(status["Uid"].split()[0])
    assert uid >= 61184, "of the range for users that exist only while their service does"
    assert status["Groups"].split()[0] == board.run("getent group video").split(":")[2]
    assert (status["NoNewPrivs"], int(status["CapEff"], 16), status["Seccomp"]) == ("1", 0, "2")
    inside = f"sudo nsenter -t {pid} -m -S {uid} -G {uid} -- sh -c"
    for path in ("/opt/edgenet", "/etc", "/usr", "/home", "/root", "/var/lib"):
        assert board.run(f"{inside} 'touch {path}/mark 2>/dev/null || echo no'") == "no\n", path
    assert board.run(f"{inside} 'ls /home/pi 2>/dev/null || echo no'") == "no\n"
    assert board.run(f"sudo cat {TOKEN}").strip() in service["url"]


def fetched(port, path, token=None):
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


def test_its_page_and_metrics_answer_those_with_the_token(board, service, monkeypatch):
    monkeypatch.setenv(COMMAND_VARIABLE, f"ssh -F {board.ssh_config}")
    address, _, token = service["url"].partition("?token=")
    assert address == f"http://10.0.2.15:{PORT}/"
    assert service["tunnel"] is None
    with connect(board.name) as connection:
        port = connection.forward(PORT)
        until = time.monotonic() + 60
        while 'stage="infer"' not in (metrics := fetched(port, "/metrics", token)):
            assert time.monotonic() < until, metrics
            time.sleep(1)
        assert "<canvas" in fetched(port, "/", token)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            fetched(port, "/metrics")
    assert token not in board.run(f"sudo journalctl -u {UNIT} --no-pager")


def test_it_comes_back_when_it_is_killed_and_when_it_hangs(board, service):
    token = board.run(f"sudo cat {TOKEN}")
    pid = wait_for_start(board, 0)
    board.run(f"sudo kill -KILL {pid}")
    again = wait_for_start(board, 1)
    assert again != pid
    board.run(f"sudo kill -STOP {again}")
    last = wait_for_start(board, 2)
    assert last not in (pid, again)
    journal = board.run(f"sudo journalctl -u {UNIT} --no-pager")
    assert journal.count("Watchdog timeout (limit 20s)") == 1
    assert board.run(f"sudo cat {TOKEN}") == token


def test_it_writes_into_its_state_and_nowhere_else(board, service):
    (pid,) = show(board, "MainPID")
    uid = board.run(f"sudo stat -c %u /proc/{pid}").strip()
    found = board.run(f"sudo find / -xdev -uid {uid} -not -path '{PRIVATE_STATE}/*'").split()
    assert [path for path in found if not path.startswith("/proc/")] == [PRIVATE_STATE]
    board.run(f"sudo systemctl stop {UNIT}")
    assert show(board, "Result", "ActiveState") == ["success", "inactive"]
    record = json.loads(board.run(f"sudo cat {STATE}/camera.json"))
    assert record["kind"] == "camera"
    assert board.run(f"sudo stat -c %a {STATE}/camera.json {STATE}/").split() == ["600", "700"]


def test_without_a_camera_it_says_so_and_goes_on_trying(board, bundle, service):
    done = deploy(
        *(board, bundle.root, "--offline", "--service", "--view", f"0.0.0.0:{PORT}"),
        *("--", "--source", "/dev/video9"),
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "no label yet" in last
    assert "/dev/video9" in last
    assert show(board, "ActiveState", "UnitFileState") == ["activating", "enabled"]


def test_uninstall_leaves_nothing(board, service):
    done = deploy(board, "--uninstall")
    assert done.returncode == 0, done.stderr
    assert "with sudo the service is ended" in done.stderr
    for path in (UNIT_FILE, SERVICE_ROOT):
        assert path in done.stdout
    paths = " ".join((UNIT_FILE, f"{UNIT_FILE}.d", SERVICE_ROOT, STATE, PRIVATE_STATE))
    assert board.run(f"sudo ls -d {paths} 2>/dev/null || true") == ""
    assert board.run(f"sudo systemctl list-units --all --no-legend {UNIT}") == ""
    again = deploy(board, "--uninstall")
    assert (again.returncode, again.stdout) == (0, f"{board.name}: nothing was there\n")


def test_a_board_that_systemd_does_not_run_takes_none(pi5, bundle):
    done = deploy(pi5, bundle.root, "--offline", "--service")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "is not run by systemd" in done.stderr.splitlines()[-1]
    assert pi5.run(f"ls -d {SERVICE_ROOT} 2>/dev/null || true") == ""
