"""The board's end: what it takes and refuses, and that nothing outside its folder is written."""

import ast
import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgenet.errors import DeployRefused
from edgenet.remote import receiver as source
from edgenet.remote.sending import PipFailed, content_of_bytes, receiving
from edgenet.remote.ssh import connect

CAT, DOG = content_of_bytes(b"cat" * 1000), content_of_bytes(b"dog" * 1000)


@pytest.fixture
def root(board):
    return board.home / ".local/share/edgenet"


@pytest.fixture
def there(board, root):
    with connect(board.host) as connection, receiving(connection, sys.executable, str(root)) as it:
        yield it


def everything(folder):
    """Return all below a folder, links as links."""
    return {
        path: path.is_symlink() or path.is_dir() or path.read_bytes() for path in folder.rglob("*")
    }


def test_python_3_8_reads_it():
    tree = ast.parse(Path(source.__file__).read_text(), feature_version=(3, 8))
    imported = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {name.name for node in imported for name in node.names if isinstance(node, ast.Import)}
    names |= {node.module for node in imported if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


def test_a_folder_is_made_of_what_was_sent(there, root):
    assert there.send([CAT, DOG]) == 6000
    assert there.lacks([CAT, DOG]) == ()
    folder = there.place("data/0123", {"pets/cat": CAT, "dog": DOG}, notes={"note.json": "{}\n"})
    assert folder == str(root / "data/0123")
    assert everything(Path(folder)) == {
        root / "data/0123/pets": True,
        root / "data/0123/pets/cat": b"cat" * 1000,
        root / "data/0123/dog": b"dog" * 1000,
        root / "data/0123/note.json": b"{}\n",
    }


def test_what_a_folder_has_is_not_sent_again(there, root):
    there.send([CAT])
    there.place("data/old", {"cat": CAT}, notes={})
    (root / "incoming" / CAT.sha256).unlink()
    assert there.send([CAT, DOG]) == 3000
    there.place("data/new", {"cat": CAT, "dog": DOG}, notes={})
    assert (root / "data/new/cat").read_bytes() == b"cat" * 1000


def test_what_was_changed_there_is_sent_again(there, root):
    there.send([CAT])
    there.place("data/pets", {"cat": CAT}, notes={})
    (root / "incoming" / CAT.sha256).unlink()
    (root / "data/pets/cat").write_bytes(b"cow" * 1000)
    assert there.send([CAT]) == 3000
    there.place("data/pets", {"cat": CAT}, notes={})
    assert (root / "data/pets/cat").read_bytes() == b"cat" * 1000


def test_a_folder_is_replaced_as_a_whole(there, root):
    there.send([CAT, DOG])
    there.place("bundles/pets", {"a": CAT, "b": DOG}, notes={})
    there.place("bundles/pets", {"c": CAT}, notes={})
    assert [path.name for path in (root / "bundles/pets").iterdir()] == ["c"]
    assert [path.name for path in (root / "bundles").iterdir()] == ["pets"]


HOSTILE = ("../x", "../../x", "/tmp/x", "a/../../x", "a//b", "./x", "", "a\0b", "..", "a\\..\\x")


@pytest.mark.parametrize("path", HOSTILE)
def test_a_hostile_path_is_refused(there, board, path):
    there.send([CAT])
    before = everything(board.home)
    listed = [{"path": path, "sha256": CAT.sha256, "size_bytes": CAT.size_bytes}]
    with pytest.raises(DeployRefused, match="leaves its folder"):
        there.ask("folder", at="bundles/x", files=listed, notes={})
    assert everything(board.home) == before


@pytest.mark.parametrize(
    "at", ["bundles/../../x", "bundles/..", "/tmp/x", "incoming/x", "bundles/a/b", "x"]
)
def test_a_hostile_place_is_refused(there, at):
    there.send([CAT])
    with pytest.raises(DeployRefused, match="no folder of a deployment"):
        there.place(at, {"cat": CAT}, notes={})


@pytest.mark.parametrize("sha256", ["../../x", "/etc/passwd", "", "A" * 64])
def test_a_hostile_hash_is_refused(there, sha256):
    with pytest.raises(DeployRefused, match="no hash"):
        there.ask("want", files=[{"sha256": sha256, "size_bytes": 1}])


@pytest.mark.parametrize("name", ["bundles", "incoming", "venvs"])
def test_a_link_where_a_folder_belongs_is_refused(board, root, tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    root.mkdir(parents=True)
    (root / name).symlink_to(outside)
    with (
        connect(board.host) as connection,
        pytest.raises(DeployRefused, match=f"board: {root}/{name}: is a symbolic link"),
        receiving(connection, sys.executable, str(root)),
    ):
        pass
    assert list(outside.iterdir()) == []


def test_a_link_that_waits_is_replaced_not_followed(there, root, tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    (root / "incoming" / CAT.sha256).symlink_to(victim)
    there.send([CAT])
    assert victim.read_bytes() == b""
    assert not (root / "incoming" / CAT.sha256).is_symlink()


def test_nothing_is_written_through_a_link_that_stands_for_half_a_content(there, root, tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    (root / "incoming" / f"{CAT.sha256}.part").symlink_to(victim)
    with pytest.raises(DeployRefused, match="symbolic links"):
        there.send([CAT])
    assert victim.read_bytes() == b""


def test_a_link_that_stands_for_a_bundle_is_replaced_not_followed(there, root, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "bundles/pets").symlink_to(outside)
    there.send([CAT])
    there.place("bundles/pets", {"cat": CAT}, notes={})
    assert list(outside.iterdir()) == []
    assert not (root / "bundles/pets").is_symlink()


def test_what_arrives_damaged_is_thrown_away(there, root):
    wrong = content_of_bytes(b"cat")
    lied = type(wrong)(sha256=DOG.sha256, size_bytes=3, read_from=b"cat")
    with pytest.raises(DeployRefused, match="arrived damaged"):
        there.send([lied])
    assert list((root / "incoming").iterdir()) == []


def test_one_deployment_at_a_time(there, board, root):
    with (
        connect(board.host) as connection,
        pytest.raises(DeployRefused, match="board: another deployment to this board is at work"),
        receiving(connection, sys.executable, str(root)),
    ):
        pass


def test_what_was_cut_off_is_cleared(board, root):
    for name in ("bundles/.new-abc", "venvs/.new-def"):
        (root / name).mkdir(parents=True)
        (root / name / "file").write_text("half")
    with connect(board.host) as connection, receiving(connection, sys.executable, str(root)):
        assert list((root / "bundles").iterdir()) == list((root / "venvs").iterdir()) == []


def make_wheel(path, name, files):
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in files.items():
            archive.writestr(inside, text)
        record = "".join(f"{inside},,\n" for inside in files)
        archive.writestr(f"{name}-1.dist-info/RECORD", record)
    return path


def environment(there, wheels, **changes):
    contents = {path.name: content_of_bytes(path.read_bytes()) for path in wheels}
    there.send(list(contents.values()))
    words = {
        "name": "env",
        "wheels": {name: content.sha256 for name, content in contents.items()},
        "like": None,
        "pip": None,
        "system_site": False,
        "installation": {"schema_version": "1.0", "edgenet": "1"},
    }
    return there.ask("environment", **{**words, **changes})


def test_an_environment_runs_what_its_wheels_hold(there, root, tmp_path):
    wheel = make_wheel(
        tmp_path / "greeting-1-py3-none-any.whl",
        "greeting",
        {
            "greeting.py": "print('hello')\n",
            "greeting-1.data/platlib/inner/module.py": "",
            "greeting-1.data/scripts/greet": "#!python\n",
            "numpy/tests/test_it.py": "",
        },
    )
    made = environment(there, [wheel])
    assert made["packages"] == [{"name": "greeting", "version": "1", "size_bytes": 15}]
    venv = root / "venvs/env"
    (packages,) = venv.glob("lib/python*/site-packages")
    assert sorted(path.name for path in packages.iterdir()) == [
        "greeting-1.dist-info",
        "greeting.py",
        "inner",
    ]
    done = subprocess.run(
        [venv / "bin/python", "-c", "import greeting, sys; print(sys.prefix)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["hello", str(venv)]
    described = json.loads((venv / "installation.json").read_text())
    assert described["python"].startswith("3.") and described["edgenet"] == "1"
    assert "\n" not in (venv / "installation.json").read_text().strip()


def test_an_environment_like_another_keeps_its_packages_and_not_its_edgenet(there, root, tmp_path):
    other = make_wheel(tmp_path / "a-1-py3-none-any.whl", "a", {"a.py": "x = 1"})
    old = make_wheel(tmp_path / "old.whl", "edgenet", {"edgenet/old.py": "x = 1"})
    new = make_wheel(tmp_path / "new.whl", "edgenet", {"edgenet/new.py": "x = 2"})
    environment(there, [other, old], name="first")
    environment(there, [new], name="second", like="first")
    (packages,) = (root / "venvs/second").glob("lib/python*/site-packages")
    assert {path.name for path in packages.iterdir()} == {
        "a.py",
        "a-1.dist-info",
        "edgenet",
        "edgenet-1.dist-info",
    }
    assert [path.name for path in (packages / "edgenet").iterdir()] == ["new.py"]
    (before,) = (root / "venvs/first").glob("lib/python*/site-packages/edgenet")
    assert [path.name for path in before.iterdir()] == ["old.py"]


@pytest.mark.parametrize("path", ["../evil.py", "/tmp/evil.py", "x.data/purelib/../../../evil.py"])
def test_a_hostile_wheel_is_refused_and_leaves_nothing(there, root, tmp_path, path):
    wheel = make_wheel(tmp_path / "evil.whl", "evil", {"good.py": "", path: "x"})
    with pytest.raises(DeployRefused, match="leaves its folder"):
        environment(there, [wheel])
    assert list((root / "venvs").iterdir()) == []


def test_an_environment_that_runs_is_kept(there, root, tmp_path):
    library = subprocess.run(
        ["gcc", "-shared", "-o", tmp_path / "lib.so", "-x", "c", "-"], input=b"int x;", check=True
    )
    assert library.returncode == 0
    wheel = make_wheel(tmp_path / "a.whl", "a", {"lib.so": (tmp_path / "lib.so").read_bytes()})
    environment(there, [wheel], name="old")
    (loaded,) = (root / "venvs/old").glob("lib/python*/site-packages/lib.so")
    code = f"import ctypes; ctypes.CDLL({str(loaded)!r}); print(flush=True); input()"
    words = [sys.executable, "-c", code]
    running = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    running.stdout.readline()
    for name in ("unused", "new"):
        make_wheel(tmp_path / f"{name}.whl", name, {f"{name}.py": ""})
        environment(there, [tmp_path / f"{name}.whl"], name=name)
    there.ask("switch", name="new")
    there.ask("tidy")
    assert {path.name for path in (root / "venvs").iterdir()} == {"old", "new"}
    assert (root / "current").resolve() == root / "venvs/new"
    running.communicate(b"\n")
    (root / "incoming").mkdir()
    there.ask("tidy")
    assert {path.name for path in (root / "venvs").iterdir()} == {"new"}


def test_pips_last_words_come_home(there, root, tmp_path):
    pip = [sys.executable, "-c", "print('ERROR: it cannot'); raise SystemExit(1)"]
    with pytest.raises(PipFailed, match="ERROR: it cannot"):
        environment(there, [], pip=pip)
    assert list((root / "venvs").iterdir()) == []


def test_removing_leaves_nothing(there, board, root):
    there.send([CAT])
    there.ask("remove")
    assert list(board.home.iterdir()) == []


def test_removing_leaves_what_is_not_ours(there, board, root):
    other = root.parent / "other"
    other.write_text("theirs")
    there.ask("remove")
    assert everything(board.home) == {root.parent.parent: True, root.parent: True, other: b"theirs"}


def test_the_digest_is_the_files():
    assert CAT.sha256 == hashlib.sha256(b"cat" * 1000).hexdigest()
