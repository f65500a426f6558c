"""Trees: what is recorded comes back, what is damaged is refused, nothing personal is kept."""

import getpass
import gzip
import io
import json
import re
import socket
import tarfile
from pathlib import Path

import pytest

from edgenet.board.doctor import examine
from edgenet.board.machine import FileRefused, Machine, Missing, Unreadable
from edgenet.board.tree import Recorder, documented, open_tree
from edgenet.errors import BadTree, NotWritable, UsageError

CPUINFO = "processor\t: 0\n\nRevision\t: d04170\nSerial\t\t: 100000009a8b7c6d\nModel\t\t: X"


def recorded(machine, path):
    """Examine a machine while recording, save, and examine what was saved."""
    recorder = Recorder(machine)
    before = examine(recorder)
    recorder.save(path, board=before.board.name, source="a test")
    with open_tree(str(path)) as tree:
        assert tree.description.kind == "recorded"
        return before, examine(tree)


@pytest.mark.parametrize("name", ["this.tar.gz", "this.tgz", "this_folder"])
def test_this_machine_comes_back(tmp_path, name):
    before, after = recorded(Machine(), tmp_path / name)
    assert after == before
    assert before.runtimes[0].works
    assert before.python and before.python.packages["numpy"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", documented())
def test_a_documented_board_comes_back(tmp_path, name):
    """Refused files, failed commands and colons in names included."""
    with open_tree(name) as machine:
        before, after = recorded(machine, tmp_path / "copy.tar.gz")
    assert after.board == before.board
    assert after.state == before.state
    assert after == before


def test_the_same_twice_is_the_same_bytes(tmp_path):
    with open_tree("orin_nano") as machine:
        for name in ("a.tar.gz", "b.tar.gz"):
            recorder = Recorder(machine)
            examine(recorder)
            recorder.save(tmp_path / name, board="x", source="a test")
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()


def test_nothing_personal(tmp_path, make_machine):
    recorder = Recorder(make_machine({"/proc/cpuinfo": CPUINFO}))
    assert "Serial" not in recorder.read("/proc/cpuinfo")
    recorder.save(tmp_path / "r", board="x", source="a test")
    kept = (tmp_path / "r/root/proc/cpuinfo").read_text()
    assert "Serial" not in kept
    assert "100000009a8b7c6d" not in kept
    assert "Revision" in kept and "Model" in kept


def test_this_machines_record_names_no_user_and_no_host(tmp_path):
    recorded(Machine(), tmp_path / "r.tar.gz")
    with tarfile.open(tmp_path / "r.tar.gz") as tar:
        texts = [tar.extractfile(member).read().decode() for member in tar]
        owners = {(member.uid, member.uname, member.mtime) for member in tar.getmembers()}
    assert owners == {(0, "", 0)}
    everything = "\n".join(texts)
    assert str(Path.home()) not in everything
    assert f"/{getpass.getuser()}/" not in everything
    # No word of any text: shorter names than this are parts of others ("vm" of VmallocTotal).
    assert len(host := socket.gethostname()) < 4 or not re.search(rf"\b{host}\b", everything)


def test_errors_come_back_as_they_were(make_machine, tmp_path):
    live = make_machine(
        {"/sys/there": "1"},
        failed_commands={"tool": "no answer in 5 s"},
        refused={"/sys/denied": "EACCES", "/sys/odd": "ESOMETHING"},
    )
    recorder = Recorder(live)
    for machine in (live, recorder):
        for path in ("/sys/denied", "/sys/odd"):
            with pytest.raises(FileRefused):
                machine.read(path)
        with pytest.raises(Missing):
            machine.read("/sys/missing")
        with pytest.raises(Unreadable, match="tool: no answer in 5 s"):
            machine.run("tool")
        assert machine.read("/sys/there") == "1"
    recorder.save(tmp_path / "again", board="x", source="a test")
    with open_tree(str(tmp_path / "again")) as again:
        with pytest.raises(FileRefused, match="/sys/denied: permission denied") as caught:
            again.read("/sys/denied")
        assert caught.value.denied
        with pytest.raises(Unreadable, match=r"^tool: no answer in 5 s$"):
            again.run("tool")
        with pytest.raises(Unreadable, match=r"^other: is not in this recorded tree$"):
            again.run("other")
        assert again.glob("/sys/*") == ("/sys/denied", "/sys/odd", "/sys/there")


def test_documented_trees_say_that_they_are():
    for name, folder in documented().items():
        description = json.loads((folder / "tree.json").read_text())
        assert description["kind"] == "documented", name
        assert "not measurements" in description["sources"][0]
        assert len(description["sources"]) > 2


def archive(path, *members):
    with tarfile.open(path, "w:gz") as tar:
        for name, data, kind in members:
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(data)
            member.linkname = "/etc/passwd"
            tar.addfile(member, io.BytesIO(data))


def good():
    return (documented()["pi_4"] / "tree.json").read_bytes()


@pytest.mark.parametrize(
    "member",
    [
        ("../outside", b"x", tarfile.REGTYPE),
        ("/etc/outside", b"x", tarfile.REGTYPE),
        ("root/link", b"", tarfile.SYMTYPE),
        ("root/hard", b"", tarfile.LNKTYPE),
        ("root/device", b"", tarfile.CHRTYPE),
        ("root/long", b"x" * 2_000_000, tarfile.REGTYPE),
    ],
    ids=lambda member: member[0],
)
def test_archives_that_were_tampered_with(tmp_path, member):
    archive(tmp_path / "t.tar.gz", ("tree.json", good(), tarfile.REGTYPE), member)
    refused = pytest.raises(BadTree, match="is nothing that doctor records")
    with refused, open_tree(str(tmp_path / "t.tar.gz")):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["t.tar.gz"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "is no whole .tar.gz"),
        (gzip.compress(b"hello"), "is no whole .tar.gz"),
        (b"", "is no whole .tar.gz"),
    ],
)
def test_archives_that_are_none(tmp_path, content, message):
    (tmp_path / "t.tar.gz").write_bytes(content)
    with pytest.raises(BadTree, match=message), open_tree(str(tmp_path / "t.tar.gz")):
        pass


def test_an_archive_that_is_cut_off(tmp_path):
    with open_tree("pi_4") as machine:
        recorder = Recorder(machine)
        examine(recorder)
        recorder.save(tmp_path / "t.tar.gz", board="x", source="a test")
    whole = (tmp_path / "t.tar.gz").read_bytes()
    for length in range(0, len(whole) - 1, 97):
        (tmp_path / "t.tar.gz").write_bytes(whole[:length])
        with pytest.raises(BadTree), open_tree(str(tmp_path / "t.tar.gz")):
            pass


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": "2.0"}, "schema_version.*use a newer edgenet"),
        ({"kind": "invented"}, "tree.json.kind must be one of"),
        ({"commands": {"uname -m": 3}}, "must be string"),
    ],
)
def test_descriptions_that_are_wrong(tmp_path, change, message):
    (tmp_path / "tree.json").write_text(json.dumps({**json.loads(good()), **change}))
    with pytest.raises(BadTree, match=message), open_tree(str(tmp_path)):
        pass


def test_no_tree(tmp_path):
    with (
        pytest.raises(BadTree, match=rf"{tmp_path.name}: has no tree\.json"),
        open_tree(str(tmp_path)),
    ):
        pass
    unknown = pytest.raises(UsageError, match=r"no tree 'pi_9': .* orin_nano, pi_4, pi_5, laptop")
    with unknown, open_tree("pi_9"):
        pass
    (tmp_path / "tree.json").write_text("{")
    with pytest.raises(BadTree, match=r"tree\.json is not JSON"), open_tree(str(tmp_path)):
        pass


def test_a_place_that_cannot_be_written():
    with pytest.raises(NotWritable, match=r"/proc/tree\.tar\.gz: cannot be written"):
        Recorder(Machine()).save(Path("/proc/tree.tar.gz"), board="x", source="a test")
    with pytest.raises(NotWritable, match="/proc/tree: cannot be written"):
        Recorder(Machine()).save(Path("/proc/tree"), board="x", source="a test")
