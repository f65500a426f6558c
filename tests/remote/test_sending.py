"""Sending to a board over a connection that is cut, held up or refused."""

import os
import sys
import threading

import pytest

from edgenet.errors import ConnectionLost, DeployRefused
from edgenet.remote.sending import content_of, content_of_bytes, receiving
from edgenet.remote.ssh import connect

MEGABYTE = 1 << 20


@pytest.fixture
def root(board):
    return board.home / "edgenet"


@pytest.fixture
def contents(tmp_path):
    """Three files of 8 MB that do not compress."""
    made = []
    for number in range(3):
        (tmp_path / f"{number}.bin").write_bytes(os.urandom(8 * MEGABYTE))
        made.append(content_of(tmp_path / f"{number}.bin"))
    return made


def test_a_cut_connection_costs_only_what_had_not_arrived(board, root, contents):
    known = content_of_bytes(b"known")
    with connect(board.host) as connection, receiving(connection, sys.executable, str(root)) as it:
        it.send([known])
        it.place("bundles/known", {"file": known}, notes={})
    sent = 0

    def cut(count):
        nonlocal sent
        sent += count
        if sent > 12 * MEGABYTE:
            board.drop_connections()

    with (
        pytest.raises(ConnectionLost, match="board: the connection was lost"),
        connect(board.host) as connection,
        receiving(connection, sys.executable, str(root)) as it,
    ):
        it.send(contents, on_bytes=cut)
    assert (root / "bundles/known/file").read_bytes() == b"known"
    with connect(board.host) as connection, receiving(connection, sys.executable, str(root)) as it:
        again = it.send(contents)
        it.place("data/all", {str(at): content for at, content in enumerate(contents)}, notes={})
    assert 0 < again <= 24 * MEGABYTE - 8 * MEGABYTE
    for at, content in enumerate(contents):
        assert (root / f"data/all/{at}").read_bytes() == content.read_from.read_bytes()


def test_a_file_goes_on_where_it_was_cut(board, root, contents):
    (content, *_) = contents
    data = content.read_from.read_bytes()
    with connect(board.host) as connection, receiving(connection, sys.executable, str(root)) as it:
        (root / "incoming" / f"{content.sha256}.part").write_bytes(data[: 5 * MEGABYTE])
        assert it.lacks([content]) == ((content, 5 * MEGABYTE),)
        assert it.send([content]) == 3 * MEGABYTE
        it.place("data/one", {"file": content}, notes={})
    assert (root / "data/one/file").read_bytes() == data


def test_what_arrived_wrong_before_is_found_out_and_sent_anew(board, root, contents):
    (content, *_) = contents
    with connect(board.host) as connection:
        with receiving(connection, sys.executable, str(root)) as it:
            (root / "incoming" / f"{content.sha256}.part").write_bytes(b"wrong")
            with pytest.raises(DeployRefused, match="arrived damaged; run the command again"):
                it.send([content])
        with receiving(connection, sys.executable, str(root)) as it:
            assert it.send([content]) == 8 * MEGABYTE


def test_a_full_disk_is_one_line(board, root, contents, small_disk):
    root.symlink_to(small_disk)
    with (
        connect(board.host) as connection,
        receiving(connection, sys.executable, str(root)) as it,
        pytest.raises(DeployRefused) as error,
    ):
        it.send(contents)
    assert "No space left on device" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_that_may_not_be_made(board):
    with (
        connect(board.host) as connection,
        pytest.raises(DeployRefused, match="board: /proc/nothing"),
        receiving(connection, sys.executable, "/proc/nothing"),
    ):
        pass


def test_a_python_that_is_not_there(board, root):
    with (
        connect(board.host) as connection,
        pytest.raises(ConnectionLost, match=r"board: its Python ended: .*no-such-python"),
        receiving(connection, "/no-such-python", str(root)),
    ):
        pass


def test_a_file_that_shrinks_while_it_is_sent(board, root, contents):
    (content, *_) = contents
    content.read_from.write_bytes(b"short")
    with (
        connect(board.host) as connection,
        pytest.raises(DeployRefused, match="became shorter"),
        receiving(connection, sys.executable, str(root)) as it,
    ):
        it.send([content])


def test_the_receiver_ends_with_the_block(board, root):
    with connect(board.host) as connection:
        for _ in range(2):  # the second would find the folder locked
            with receiving(connection, sys.executable, str(root)) as it:
                it.lacks([])
    assert threading.active_count() < 10
