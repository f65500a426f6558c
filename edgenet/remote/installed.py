"""What `edgenet deploy` has put on a board: where it lies, what it is, which bundles are there.

    <root>/current -> venvs/<hash>      the environment in use
    <root>/venvs/<hash>/installation.json
    <root>/bundles/<first 16 digits of its sha256>/part.json

Reads only, in one round trip, without Python.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgenet.bundle import Bundle
from edgenet.errors import NotDeployed
from edgenet.manifest import PART
from edgenet.remote.ssh import Connection

HOME_FOLDER = ".local/share/edgenet"
"""In the user's home."""
SERVICE_ROOT = "/opt/edgenet"
INSTALLATION = "installation.json"
SCHEMA_MAJOR = "1"
DIGITS = 16
"""Of a bundle's sha256 in the name of its folder."""

LOOK = f"""
for root in "$HOME/{HOME_FOLDER}" {SERVICE_ROOT}; do
    venv=$(cd -P "$root/current" 2>/dev/null && pwd) || continue
    [ -r "$venv/{INSTALLATION}" ] || continue
    printf 'root %s\\n' "$(cd -P "$root" && pwd)"
    printf 'venv %s\\n' "$venv"
    printf 'installation %s\\n' "$(cat "$venv/{INSTALLATION}")"
    for part in "$root"/bundles/*/{PART}; do
        [ -r "$part" ] && printf 'bundle %s\\n' "$(cat "$part")"
    done
    exit 0
done
exit 0
"""
"""A POSIX shell's program; each of the files that it prints is one line."""


@dataclass(frozen=True, kw_only=True)
class Installation:
    """edgenet on a board."""

    host: str
    root: str
    """The folder of everything there, absolute."""
    python: str
    """The environment's Python, absolute."""
    edgenet: tuple[str, ...]
    """Words that start edgenet there."""
    version: str
    runtimes: tuple[str, ...]
    bundles: Mapping[str, str]
    """Absolute folders there, by the bundle's sha256."""


def find_installation(connection: Connection) -> Installation:
    """Return what is installed on a board: in the user's home, or else as a service.

    Raises `NotDeployed` where nothing is, or what only a newer edgenet understands.
    """
    host = connection.host
    done = connection.run(["sh", "-c", LOOK])
    root, venv, described = "", "", {}
    parts: list[dict[str, Any]] = []
    for line in done.stdout.decode(errors="replace").splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "root":
            root = rest
        elif kind == "venv":
            venv = rest
        elif kind == "installation":
            described = json_object(rest)
        elif kind == "bundle":
            parts.append(json_object(rest))
    if not root:
        raise NotDeployed(f"{host}: edgenet is not there; run: edgenet deploy BUNDLE --host {host}")
    if str(described.get("schema_version")).partition(".")[0] != SCHEMA_MAJOR:
        raise NotDeployed(
            f"{host}: {venv}/{INSTALLATION} is damaged or from a newer edgenet; upgrade this one, "
            f"or run: edgenet deploy BUNDLE --host {host}"
        )
    return Installation(
        host=host,
        root=root,
        python=f"{venv}/bin/python",
        edgenet=(f"{venv}/bin/edgenet",),
        version=described["edgenet"],
        runtimes=tuple(described["runtimes"]),
        bundles={
            sha256: bundle_folder(root, sha256)
            for part in parts
            if isinstance(sha256 := part.get("bundle_sha256"), str)
        },
    )


def bundle_folder(root: str, sha256: str) -> str:
    """Return where a bundle lies, or would lie, below a board's `root`."""
    return f"{root}/bundles/{sha256[:DIGITS]}"


def bundle_on(installation: Installation, bundle: Bundle) -> str:
    """Return the absolute folder of `bundle` on the board.

    Raises `NotDeployed` naming the command that brings it there.
    """
    try:
        return installation.bundles[bundle.sha256]
    except KeyError:
        raise NotDeployed(
            f"{installation.host}: {bundle.root} is not there, or was changed here since; run: "
            f"edgenet deploy {bundle.root} --host {installation.host}"
        ) from None


def json_object(text: str) -> dict[str, Any]:
    """Return the object that a board's line of JSON holds; an empty one where it holds none."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
