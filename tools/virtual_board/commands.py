"""Programs of the host: which are needed, how they are run, what is said when they fail.

Everything that runs here and what it prints is kept in a log; a failure is one line that names it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

TOOLS = {
    "apt-get": "apt",
    "cpio": "cpio",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "fdtput": "device-tree-compiler",
    "mksquashfs": "squashfs-tools",
    "modprobe": "kmod",
    "qemu-system-aarch64": "qemu-system-arm",
    "ssh": "openssh-client",
    "tar": "tar",
}
"""Debian packages by the program that is needed from them."""


class BoardError(Exception):
    """Something that the person at the keyboard can put right; one line."""


def use_system_folders() -> None:
    """Let depmod and the like be found by an ordinary user, whose PATH may not have sbin."""
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def require_tools() -> None:
    """Raise `BoardError` that names every missing program and the packages to install."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        packages = " ".join(sorted({TOOLS[tool] for tool in missing}))
        raise BoardError(f"missing {', '.join(missing)}: apt-get install {packages}")


def run(
    command: Sequence[str | Path], *, log: Path, environment: Mapping[str, str] | None = None
) -> str:
    """Return what `command` prints; its errors go to `log`, and their last line into the error."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    with log.open("a", encoding="utf-8") as out:
        out.write(f"$ {shlex.join(words)}\n{done.stdout}{done.stderr}")
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise BoardError(f"{words[0]} failed ({done.returncode}): {said} (all of it: {log})")
    return done.stdout
