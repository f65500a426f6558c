"""The board's file system: read-only layers, one a reason to change, the upper hiding the lower.

    board           keys, settings and start-up script
    project         edgenet from this checkout
    tflite-runtime  LiteRT's predecessor with numpy 1, in /opt/tflite-runtime
    checkout        the runtimes and edgenet's other dependencies, in /opt/checkout
    debian          Debian bookworm

Each is kept as a folder, which user mode emulation reads, and as an uncompressed squashfs image,
which a board mounts: everything in it belongs to root, so the host needs none. A board writes into
memory above them; the next boot is fresh.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import debian
import wheels
from commands import run
from image import IMAGE, ROOT, pack
from kernel import build_kernel
from workshop import Workshop, sources_of

GUEST = Path(__file__).parent / "guest/root"


@dataclass(frozen=True, kw_only=True)
class System:
    """What a board boots."""

    kernel: Path
    initrd: Path
    images: tuple[Path, ...]
    roots: tuple[Path, ...]
    """The layers as images and as folders, the uppermost first."""


def build_system(workshop: Workshop) -> System:
    """Return the kernel and the layers; builds what is missing, downloads side by side."""
    with ThreadPoolExecutor(3) as pool:
        packages = pool.submit(debian.fetch, workshop)
        project = wheels.project_layer(workshop)
        names = reversed(wheels.ENVIRONMENTS)
        environments = [
            pool.submit(wheels.environment_layer, workshop, name, project) for name in names
        ]
        kernel = build_kernel(workshop, packages.result())
        base = debian.debian_layer(workshop, packages.result())
    layers = (_board_layer(workshop), project, *(each.result() for each in environments), base)
    return System(
        kernel=kernel / "vmlinuz",
        initrd=kernel / "initrd.gz",
        images=tuple(layer / IMAGE for layer in layers),
        roots=tuple(layer / ROOT for layer in layers),
    )


def client_key(workshop: Workshop) -> Path:
    """Return the private key with which the host logs in; made once."""
    return _keys(workshop) / "client"


def host_key(workshop: Workshop) -> str:
    """Return the board's public key, type and value."""
    return " ".join((_keys(workshop) / "host.pub").read_text().split()[:2])


def _board_layer(workshop: Workshop) -> Path:
    keys = _keys(workshop)

    def fill(into: Path) -> None:
        root = into / ROOT
        shutil.copytree(GUEST, root, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copyfile(keys / "host", root / "etc/ssh/host_key")
        shutil.copyfile(keys / "client.pub", root / "etc/ssh/authorized_keys")
        for path in root.rglob("*"):
            if path.is_symlink():
                continue  # what it leads to may be the host's
            # Whatever the umask: sshd and sudo refuse files that others can write.
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        (root / "etc/ssh/host_key").chmod(0o600)
        pack(into, workshop.log)

    return workshop.make("board", (sources_of(GUEST, keys, Path(__file__)),), fill)


def _keys(workshop: Workshop) -> Path:
    """Return the folder of two key pairs, the client's and the board's. They never change."""

    def generate(into: Path) -> None:
        for name in ("client", "host"):
            words = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", into / name)
            run(words, log=workshop.log)

    return workshop.make("keys", (), generate)
