"""The connection to a board, against a real sshd."""

import http.client
import http.server
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from virtual_board import is_alive

from edgenet.errors import BoardUnreachable, ConnectionLost, UsageError
from edgenet.remote.ssh import COMMAND_VARIABLE, connect


@pytest.fixture
def connection(board):
    with connect(board.host) as opened:
        yield opened


def test_a_command_gets_its_words_and_its_input_as_they_are(connection):
    words = ["printf", "%s|", "two words", "it's", "$HOME", "a;b", "*", ""]
    assert connection.run(words).stdout == b"two words|it's|$HOME|a;b|*||"
    data = bytes(range(256)) * 4096
    assert connection.run(["cat"], stdin=data).stdout == data


def test_what_a_command_says_and_how_it_ends(connection):
    done = connection.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (done.status, done.stdout, done.stderr) == (3, b"out\n", "err\n")


def test_a_command_that_ends_as_ssh_does_when_it_fails_is_no_lost_connection(connection):
    assert connection.run(["sh", "-c", "exit 255"]).status == 255
    assert connection.run(["true"]).status == 0


def test_home_is_the_boards_own(board, connection):
    assert connection.run(["sh", "-c", 'echo "$HOME"']).stdout.decode().strip() == str(board.home)


def test_sent_bytes_are_counted(connection):
    before = connection.sent_bytes
    connection.run(["cat"], stdin=b"x" * 1000)
    assert connection.sent_bytes - before == 1000 + len("cat")


def test_a_started_command_talks_back_and_forth(connection):
    with connection.start(["cat"]) as process:
        for word in (b"one\n", b"two\n"):
            process.stdin.write(word)
            process.stdin.flush()
            assert process.stdout.readline() == word
        process.stdin.close()
        assert process.wait() == 0


def test_a_port_of_the_boards_loopback_is_reached(connection):
    with (
        http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = connection.forward(server.server_port)
        assert port not in (server.server_port, connection.forward(other.getsockname()[1]))
        answer = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        answer.request("HEAD", "/")
        assert answer.getresponse().status == 200
        answer.close()
        server.shutdown()


def test_nothing_of_a_connection_is_left(board):
    with connect(board.host) as opened:
        folder, master = Path(opened._folder), opened._master.pid
        assert folder.stat().st_mode & 0o077 == 0
        opened.run(["true"])
    assert not folder.exists()
    assert not is_alive(master)
    opened.close()


def test_a_connection_does_not_outlive_its_program(board, tmp_path):
    """Not even one that is killed, which can tidy up nothing."""
    code = (
        "import os, signal, sys; from edgenet.remote.ssh import connect; c = connect('board')\n"
        "print(c._master.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [os.sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    deadline = time.monotonic() + 20
    while is_alive(int(done.stdout)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_start_up_file_may_chatter(board):
    (board.home / ".bashrc").write_text("echo welcome\n")
    with connect(board.host) as opened:
        assert opened.run(["true"]).status == 0


def test_a_long_temporary_folder_is_no_obstacle(board, tmp_path, monkeypatch):
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with connect(board.host) as opened:
        assert opened.run(["true"]).status == 0


def test_settings_of_the_user_do_not_get_in_the_way(board):
    board.add_host(
        "fancy",
        "ControlMaster auto",
        f"ControlPath {board.folder}/theirs",
        "RemoteCommand tmux",
        "RequestTTY force",
        f"LocalForward {board.port} 127.0.0.1:1",
    )
    with connect("fancy") as opened:
        assert opened.run(["echo", "plain"]).stdout == b"plain\n"
    assert not (board.folder / "theirs").exists()


def lines_of(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_refused_connection(board):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    board.add_host("off", f"Port {port}")
    with pytest.raises(BoardUnreachable) as error:
        connect("off")
    assert "off: connection refused; is SSH switched on there" in lines_of(error)


def test_an_unknown_name(board):
    board.add_host("nowhere", "HostName no-such-board.invalid")
    with pytest.raises(BoardUnreachable) as error:
        connect("nowhere")
    assert "nowhere: no host of that name is known" in lines_of(error)


def test_a_board_that_does_not_answer(board, monkeypatch):
    monkeypatch.setenv(COMMAND_VARIABLE, f"{board.ssh_command} -o ConnectTimeout=1")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the call and says nothing
        board.add_host("silent", f"Port {silent.getsockname()[1]}")
        with pytest.raises(BoardUnreachable) as error:
            connect("silent")
    assert "is it on and in this network?" in lines_of(error)


def test_an_unknown_key(board):
    board.known_hosts.write_text("")
    with pytest.raises(BoardUnreachable) as error:
        connect(board.host)
    assert "board: its key is not known here yet; run `ssh board` once" in lines_of(error)
    assert board.known_hosts.read_text() == ""


def test_another_key_than_the_known_one(board):
    other = (board.folder / "client_key.pub").read_text().split()
    board.known_hosts.write_text(f"[127.0.0.1]:{board.port} {other[0]} {other[1]}\n")
    with pytest.raises(BoardUnreachable) as error:
        connect("somebody@board")
    assert "its key is another than the one known here" in lines_of(error)
    assert "ssh-keygen -R board" in lines_of(error)


def test_a_wrong_user(board):
    with pytest.raises(BoardUnreachable) as error:
        connect("nobody-of-this-name@board")
    assert "refuses this user or key" in lines_of(error)
    assert "ssh-copy-id nobody-of-this-name@board" in lines_of(error)


def test_a_user_without_a_shell(board):
    config = board.folder / "sshd_config"
    assert "ForceCommand" not in config.read_text()
    keys = board.folder / "client_key.pub"
    keys.write_text(f'command="echo This account is not available.; exit 1" {keys.read_text()}')
    with pytest.raises(BoardUnreachable) as error:
        connect(board.host)
    assert "logs in and runs no command (This account is not available.)" in lines_of(error)


@pytest.mark.parametrize("host", ["-oProxyCommand=touch x", "", "two words", "line\nbreak"])
def test_what_is_no_host(host):
    with pytest.raises(UsageError):
        connect(host)


@pytest.mark.parametrize("command", ["no-such-ssh", "ssh 'unfinished", "   "])
def test_a_wrong_ssh_command_is_named(monkeypatch, command):
    monkeypatch.setenv(COMMAND_VARIABLE, command)
    with pytest.raises((BoardUnreachable, UsageError)) as error:
        connect("board")
    assert COMMAND_VARIABLE in lines_of(error)


def test_a_connection_that_is_cut_while_a_command_runs(board, connection):
    threading.Timer(0.5, board.drop_connections).start()
    with pytest.raises(ConnectionLost) as error:
        connection.run(["sleep", "20"])
    assert "board: the connection was lost" in lines_of(error)


def test_nothing_connects_anew_once_the_connection_is_gone(board, connection):
    board.drop_connections()
    with pytest.raises(ConnectionLost):
        connection.run(["true"])
    with pytest.raises(ConnectionLost):
        connection.forward(80)


def test_a_command_that_takes_too_long(connection):
    with pytest.raises(ConnectionLost) as error:
        connection.run(["sleep", "20"], timeout_s=0.3)
    assert "no answer in 0.3 s to sleep" in lines_of(error)
