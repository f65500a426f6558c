"""What is found on a board, as files that lie there."""

import json

import pytest

from edgenet.errors import NotDeployed
from edgenet.remote.installed import (
    HOME_FOLDER,
    bundle_folder,
    bundle_on,
    find_installation,
)
from edgenet.remote.ssh import connect


def put_installation(root, **changes):
    venv = root / "venvs/0123abcd"
    venv.mkdir(parents=True)
    described = {
        "schema_version": "1.0",
        "edgenet": "0.1.0",
        "python": "3.11.2",
        "runtimes": ["litert"],
        **changes,
    }
    (venv / "installation.json").write_text(json.dumps(described))
    (root / "current").symlink_to("venvs/0123abcd")
    return venv


def put_bundle(root, sha256):
    folder = root / "bundles" / sha256[:16]
    folder.mkdir(parents=True)
    part = {"schema_version": "1.0", "bundle_sha256": sha256, "left_out": []}
    (folder / "part.json").write_text(json.dumps(part))
    return folder


def find(board):
    with connect(board.host) as connection:
        return find_installation(connection)


def test_a_bare_board(board):
    with pytest.raises(NotDeployed) as error:
        find(board)
    assert str(error.value) == (
        "board: edgenet is not there; run: edgenet deploy BUNDLE --host board"
    )


def test_an_installation_and_its_bundles(board, small_bundle):
    root = board.home / HOME_FOLDER
    venv = put_installation(root)
    folder = put_bundle(root, small_bundle.sha256)
    put_bundle(root, "f" * 64)
    found = find(board)
    assert (found.root, found.python) == (str(root), f"{venv}/bin/python")
    assert found.edgenet == (f"{venv}/bin/edgenet",)
    assert (found.version, found.runtimes) == ("0.1.0", ("litert",))
    assert found.bundles.keys() == {small_bundle.sha256, "f" * 64}
    assert (
        bundle_on(found, small_bundle)
        == str(folder)
        == bundle_folder(str(root), small_bundle.sha256)
    )


def test_a_bundle_that_is_not_there(board, small_bundle):
    put_installation(board.home / HOME_FOLDER)
    with pytest.raises(NotDeployed) as error:
        bundle_on(find(board), small_bundle)
    assert f"edgenet deploy {small_bundle.root} --host board" in str(error.value)


@pytest.mark.parametrize("changes", [{"schema_version": "2.0"}, {"schema_version": None}])
def test_an_installation_of_a_newer_edgenet(board, changes):
    put_installation(board.home / HOME_FOLDER, **changes)
    with pytest.raises(NotDeployed) as error:
        find(board)
    assert "newer" in str(error.value)


def test_a_damaged_installation(board):
    venv = put_installation(board.home / HOME_FOLDER)
    (venv / "installation.json").write_text("{")
    with pytest.raises(NotDeployed):
        find(board)


def test_an_installation_that_was_cut_off_is_none(board):
    root = board.home / HOME_FOLDER
    (root / "venvs").mkdir(parents=True)
    (root / "current").symlink_to("venvs/gone")
    with pytest.raises(NotDeployed):
        find(board)
