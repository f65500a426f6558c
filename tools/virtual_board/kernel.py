"""Debian's arm64 kernel, and an initramfs with the few modules that the board needs.

The modules are the disk, the network, the file systems of the layers and `vivid`, the kernel's
virtual camera. The board itself has no modules to load later.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path

from commands import run
from debian import unpack
from workshop import Workshop, sources_of

MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "squashfs", "overlay", "vivid")
INITRAMFS = Path(__file__).parent / "guest/initramfs"


def build_kernel(workshop: Workshop, packages: Path) -> Path:
    """Return a folder with `vmlinuz` and `initrd.gz`."""
    return workshop.make(
        "kernel",
        (packages, MODULES, sources_of(Path(__file__), INITRAMFS)),
        lambda into: _build(into, packages, workshop.log),
    )


def _build(into: Path, packages: Path, log: Path) -> None:
    unpacked, tree = into / "unpacked", into / "initramfs"
    unpacked.mkdir()
    for pattern in ("linux-image-*-arm64_*.deb", "busybox-static_*.deb"):
        (package,) = packages.glob(pattern)
        unpack(package, unpacked)
    (image,) = (unpacked / "boot").glob("vmlinuz-*")
    shutil.copyfile(image, into / "vmlinuz")
    version = image.name.removeprefix("vmlinuz-")
    run(["depmod", "-b", unpacked, version], log=log)
    shutil.copytree(INITRAMFS, tree)
    (tree / "init").chmod(0o755)
    for folder in ("bin", "dev", "modules", "proc", "sys"):
        (tree / folder).mkdir()
    shutil.copy(unpacked / "bin/busybox", tree / "bin/busybox")
    for number, module in enumerate(_modules(unpacked, version, log)):
        shutil.copyfile(module, tree / "modules" / f"{number:02}-{module.name}")
    (into / "initrd.gz").write_bytes(gzip.compress(_archive(tree), compresslevel=1))
    shutil.rmtree(unpacked)
    shutil.rmtree(tree)


def _modules(unpacked: Path, version: str, log: Path) -> list[Path]:
    """Return the files of `MODULES` and of all that they need, in the order to load them."""
    found: dict[Path, None] = {}
    for module in MODULES:
        text = run(["modprobe", "-d", unpacked, "-S", version, "--show-depends", module], log=log)
        lines = (line.split() for line in text.splitlines())
        found |= {Path(words[1]): None for words in lines if words[0] == "insmod"}
    return list(found)


def _archive(tree: Path) -> bytes:
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    return subprocess.run(
        ["cpio", "--create", "--format=newc", "--owner=0:0", "--quiet"],
        input=names.encode(),
        cwd=tree,
        capture_output=True,
        check=True,
    ).stdout
