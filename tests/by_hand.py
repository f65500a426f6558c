"""edgenet on a board of the tests, as `edgenet deploy` leaves it; what runs is this checkout."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from ssh_server import LocalBoard

from edgenet import __version__
from edgenet.bundle import Bundle
from edgenet.remote.installed import HOME_FOLDER, bundle_folder


def put_edgenet(board: LocalBoard, *bundles: Bundle, version: str = __version__) -> Path:
    """Install edgenet and bundles, and return the folder of everything there."""
    root = board.home / HOME_FOLDER
    venv = root / "venvs/0123abcd"
    (venv / "bin").mkdir(parents=True)
    python = venv / "bin/python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    described = {
        "schema_version": "1.0",
        "edgenet": version,
        "python": sys.version.split()[0],
        "runtimes": ["litert", "onnxruntime", "openvino"],
    }
    (venv / "installation.json").write_text(json.dumps(described))
    (root / "current").symlink_to("venvs/0123abcd")
    for bundle in bundles:
        put_bundle(root, bundle)
    return root


def put_bundle(root: Path, bundle: Bundle) -> Path:
    """Copy a bundle to a board, all of it, and return its folder there."""
    folder = Path(bundle_folder(str(root), bundle.sha256))
    shutil.copytree(bundle.root, folder)
    part = {"schema_version": "1.0", "bundle_sha256": bundle.sha256, "left_out": []}
    (folder / "part.json").write_text(json.dumps(part))
    return folder


def running_on(board: LocalBoard) -> list[int]:
    """Return the processes of a board's user, all but those of sshd and of its login shells."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            environment = path.read_bytes().split(b"\0")
            words = path.with_name("cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended meanwhile, or is not ours
        if f"HOME={board.home}".encode() in environment and b"python" in words[0]:
            found.append(int(path.parent.name))
    return found
