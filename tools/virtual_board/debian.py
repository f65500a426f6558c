"""Debian bookworm for arm64: fetched with the machine's own apt, unpacked, never run.

Packages are only unpacked: no maintainer script runs, so neither root nor an emulator is needed
and it takes seconds. The price: what those scripts would have set up and a board needs is written
here by hand, and dpkg on the board believes that nothing is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from commands import BoardError, run
from image import ROOT, pack
from workshop import Workshop, sources_of

RELEASE = "bookworm"
PYTHON = "3.11"
"""The release's Python."""
PACKAGES = (
    *("base-files", "base-passwd", "bash", "coreutils", "dash", "debianutils", "diffutils"),
    *("findutils", "grep", "gzip", "hostname", "libc-bin", "login", "mawk", "mount", "passwd"),
    *("procps", "sed", "sudo", "tar", "usr-is-merged", "util-linux"),
    *("ca-certificates", "file", "iproute2", "openssh-server", "rsync", "v4l-utils"),
    *("python3", "python3-venv"),
    "systemd",
)
KERNEL_PACKAGES = ("busybox-static", "linux-image-arm64")
NOT_IN_ROOT = ("busybox-static", "linux-image", "initramfs-tools", "klibc-utils", "libklibc")
"""What is fetched for the kernel, or only because the kernel's package asks for it."""
LEFT_OUT = ("doc", "info", "lintian", "locale", "man")
"""Folders of /usr/share that no program reads."""
MERGED = ("bin", "lib", "sbin")
"""Folders that are links into /usr, made before packages are unpacked through them."""
ACCOUNTS = {
    "passwd": "sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\npi:x:1000:1000::/home/pi:/bin/bash\n",
    "group": "pi:x:1000:\n",
}
ALTERNATIVES = {"awk": "mawk", "which": "which.debianutils"}
GROUPS_OF_PI = ("video", "sudo")


def fetch(workshop: Workshop) -> Path:
    """Return a folder with the .deb files of the board and of its kernel."""
    wanted = (*PACKAGES, *KERNEL_PACKAGES)
    return workshop.make(
        "packages",
        (wanted, sources_of(*_apt_sources())),
        lambda into: _fetch(wanted, into, workshop.log),
    )


def debian_layer(workshop: Workshop, packages: Path) -> Path:
    """Return the layer with the board's packages."""

    def fill(into: Path) -> None:
        (into / ROOT).mkdir()
        _fill_root(into / ROOT, packages, workshop.log)
        pack(into, workshop.log)

    return workshop.make("debian", (packages, sources_of(Path(__file__))), fill)


def unpack(package: Path, into: Path) -> None:
    """Unpack one .deb without its documentation; links that are folders already are followed."""
    excluded = [f"--exclude=./usr/share/{name}" for name in LEFT_OUT]
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE
    ) as archive:
        done = subprocess.run(
            ["tar", "-x", "-p", "--no-same-owner", "--keep-directory-symlink", *excluded],
            cwd=into,
            stdin=archive.stdout,
            check=False,
        )
    if archive.returncode or done.returncode:
        raise BoardError(f"{package} cannot be unpacked; delete its folder and start again")


def compile_python(root: Path, folder: str, log: Path) -> None:
    """Compile the modules in `folder` of `root`: a user of the board could not keep the result.

    Bytecode belongs to one version of Python. A host with another one leaves it out, and every
    Python process on the board starts seconds later.
    """
    if f"{sys.version_info.major}.{sys.version_info.minor}" == PYTHON:
        places = ("-s", root, "-p", "/", root / folder)
        run([sys.executable, "-m", "compileall", "-q", *places], log=log)


def _fill_root(root: Path, packages: Path, log: Path) -> None:
    """Unpack the board's packages into the empty folder `root` and set up what is needed."""
    (root / "usr").mkdir()
    for name in MERGED:
        (root / "usr" / name).mkdir()
        (root / name).symlink_to(f"usr/{name}")
    for package in sorted(packages.glob("*.deb")):
        if not package.name.startswith(NOT_IN_ROOT):
            unpack(package, root)
    _check_release(root)
    _add_accounts(root / "etc", root / "usr/share/base-passwd")
    for name, program in ALTERNATIVES.items():
        (root / "usr/bin" / name).symlink_to(program)
    # The host's certificates: it may stand behind a proxy that has its own.
    shutil.copyfile(
        "/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs/ca-certificates.crt"
    )
    compile_python(root, f"usr/lib/python{PYTHON}", log)


def _fetch(wanted: tuple[str, ...], into: Path, log: Path) -> None:
    """Let apt work out and fetch packages, in a state of its own that knows arm64 only."""
    state = into / "apt"
    for folder in ("lists/partial", "archives/partial"):
        (state / folder).mkdir(parents=True)
    (state / "status").touch()
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",  # the folder may be closed to apt's own user
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Dir::State": state,
        "Dir::State::lists": state / "lists",
        "Dir::State::status": state / "status",
        "Dir::Cache": state,
        "Dir::Cache::archives": state / "archives",
    }
    named = os.environ.get("EDGENET_BOARD_SOURCES")
    if named:
        options |= {"Dir::Etc::SourceList": "/dev/null", "Dir::Etc::SourceParts": state / "parts"}
        (state / "parts").mkdir()
        (state / "parts" / Path(named).name).symlink_to(Path(named).absolute())
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    run([*apt, "update"], log=log)
    run([*apt, "install", "--yes", "--download-only", *wanted], log=log)
    for package in (state / "archives").glob("*.deb"):
        package.rename(into / package.name)
    shutil.rmtree(state)


def _apt_sources() -> list[Path]:
    named = os.environ.get("EDGENET_BOARD_SOURCES")
    paths = [Path(named)] if named else [Path("/etc/apt/sources.list.d")]
    return [path for path in (*paths, Path("/etc/apt/sources.list")) if path.exists()]


def _check_release(root: Path) -> None:
    text = (root / "etc/os-release").read_text(encoding="utf-8")
    if f"VERSION_CODENAME={RELEASE}\n" not in text:
        name = text.partition('PRETTY_NAME="')[2].partition('"')[0]
        raise BoardError(
            f"this machine's apt sources give {name}, the board is Debian {RELEASE}: set "
            "EDGENET_BOARD_SOURCES to an apt sources file (.list or .sources) that gives it"
        )


def _add_accounts(etc: Path, masters: Path) -> None:
    for name, added in ACCOUNTS.items():
        lines = (masters / f"{name}.master").read_text(encoding="utf-8").splitlines()
        if name == "group":
            lines = [
                f"{line}pi" if line.partition(":")[0] in GROUPS_OF_PI else line for line in lines
            ]
        (etc / name).write_text("\n".join(lines) + "\n" + added, encoding="utf-8")
    users = [line.partition(":")[0] for line in (etc / "passwd").read_text("utf-8").splitlines()]
    shadow = etc / "shadow"
    shadow.write_text("".join(f"{user}:*:19000:0:99999:7:::\n" for user in users))
    shadow.chmod(0o600)
