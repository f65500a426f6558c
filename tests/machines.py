"""Machines to examine: small ones made of a few files, and copies of the documented trees."""

import json
import shutil

import pytest

from edgenet.board.tree import COLON, Tree, documented, open_tree


@pytest.fixture
def make_machine(tmp_path):
    """Return a function that makes a machine of these files, answers and refusals."""

    def make(files=(), commands=(), failed_commands=(), refused=(), name="machine"):
        folder = tmp_path / name
        for path, text in dict(files).items():
            target = folder / f"root{path.replace(':', COLON)}"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        folder.mkdir(exist_ok=True)
        description = {
            "schema_version": "1.0",
            "kind": "documented",
            "board": name,
            "sources": ["a test"],
            "commands": dict(commands),
            "failed_commands": dict(failed_commands),
            "refused": dict(refused),
        }
        (folder / "tree.json").write_text(json.dumps(description))
        with open_tree(str(folder)) as machine:
            return machine

    return make


@pytest.fixture
def copy_of(tmp_path):
    """Return a function that copies a documented tree: its machine, and the folder of its files."""

    def copy(name):
        folder = tmp_path / name
        shutil.copytree(documented()[name], folder)
        with open_tree(str(folder)) as machine:
            assert isinstance(machine, Tree)
            return machine, folder / "root"

    return copy
