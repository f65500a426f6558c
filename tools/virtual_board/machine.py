"""One running board: started, found again, stopped.

A board is a QEMU process and a folder with its state, its console and an SSH configuration that
any program which understands OpenSSH can use. It listens on this machine only. It does not outlive
a failed start, and a folder without its process is not a running board.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from commands import BoardError, run
from layers import System, client_key, host_key
from profiles import CORES, MEMORY_MIB, Profile
from workshop import Workshop, say, sources_of

BOOT_TIMEOUT_S = 240
"""Ten times what a busy machine needs."""
STOP_TIMEOUT_S = 10
LONGEST_SOCKET = 85
"""Bytes of a path that ssh can still use for its socket, after adding letters of its own."""
READY = "BOARD: ready"
KERNEL_WORDS = "console=ttyAMA0 quiet panic=-1"
SYSTEMD_WORDS = "board.systemd systemd.unit=multi-user.target systemd.show_status=no"
"""The first is for the initramfs."""


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board that was started."""

    name: str
    profile: str
    pid: int
    born: int
    """The process's start in clock ticks since boot: a number used again is another process."""
    port: int
    network: bool
    folder: str

    @property
    def ssh_config(self) -> Path:
        """Return the configuration with which `ssh -F` reaches the board by its name."""
        return Path(self.folder) / "ssh_config"

    @property
    def console(self) -> Path:
        """Return what the kernel and the start-up script have printed."""
        return Path(self.folder) / "console.log"

    def runs(self) -> bool:
        """Tell whether its process is there."""
        return _born(self.pid) == self.born

    def ssh(self, *words: str) -> list[str]:
        """Return the command that runs `words` on the board."""
        return [*self._ssh(), self.name, *words]

    def master(self, *options: str) -> list[str]:
        """Return the command that opens or, with options, tells the shared connection."""
        return [*self._ssh(), *(options or ("-M", "-N", "-f")), self.name]

    def _ssh(self) -> list[str]:
        return ["ssh", "-F", str(self.ssh_config)]


def boards(workshop: Workshop) -> list[Board]:
    """Return the running boards, by name."""
    states = sorted((workshop.folder / "running").glob("*/state.json"))
    found = [Board(**json.loads(state.read_text())) for state in states]
    return [board for board in found if board.runs()]


def find(workshop: Workshop, name: str | None) -> Board:
    """Return the running board `name`, or the only one there is."""
    running = boards(workshop)
    names = ", ".join(board.name for board in running)
    wanted = [board for board in running if name in (None, board.name)]
    if len(wanted) == 1:
        return wanted[0]
    if not running:
        raise BoardError("no board is running: `board start pi5` starts one")
    if name is None:
        raise BoardError(f"several boards are running: choose one with --name ({names})")
    raise BoardError(f"no board {name!r} is running, but: {names}")


def start(
    workshop: Workshop,
    system: System,
    profile: Profile,
    *,
    name: str,
    port: int | None,
    network: bool,
    systemd: bool,
) -> Board:
    """Boot a board and return it once it answers over SSH."""
    with _claimed(workshop, name) as folder:
        started = time.monotonic()
        tree = _device_tree(workshop, profile)
        chosen = port or _free_port()
        command = [
            *_qemu(system, profile, tree, folder / "console.log"),
            *("-append", f"{KERNEL_WORDS} {SYSTEMD_WORDS if systemd else ''}".strip()),
            *_network(chosen, let_out=network),
        ]
        with (folder / "qemu.log").open("w") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for whoever waits for the board, not for it
            )
        try:
            board = Board(
                name=name,
                profile=profile.name,
                pid=process.pid,
                born=_born(process.pid) or 0,
                port=chosen,
                network=network,
                folder=str(folder),
            )
            _write_ssh_config(workshop, board)
            # Before it is ready: if this process is killed, `stop` still finds the board.
            (folder / "state.json").write_text(json.dumps(asdict(board), indent=2) + "\n")
            _wait_until_ready(board, process)
        except BaseException:
            process.kill()
            process.wait()
            raise
    say(f"{name} answers {time.monotonic() - started:.1f} s after it was switched on")
    return board


def stop(board: Board) -> None:
    """End a board's process and forget it. Nothing is lost: it had nothing but memory."""
    subprocess.run(board.master("-O", "exit"), capture_output=True, check=False)
    for sent in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + STOP_TIMEOUT_S
        if board.runs():
            os.kill(board.pid, sent)
        while board.runs() and time.monotonic() < deadline:
            time.sleep(0.05)
    shutil.rmtree(board.folder)


@contextlib.contextmanager
def _claimed(workshop: Workshop, name: str) -> Iterator[Path]:
    """Give the empty folder of a board that does not run, to one starter at a time."""
    running = workshop.folder / "running"
    running.mkdir(parents=True, exist_ok=True)
    with _lock(running / f"{name}.lock", name):
        for board in boards(workshop):
            if board.name == name:
                raise BoardError(
                    f"{name} is running already (port {board.port}): `board stop {name}` ends it, "
                    "--name starts another"
                )
        folder = running / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield folder


@contextlib.contextmanager
def _lock(path: Path, name: str) -> Iterator[None]:
    """Hold a file that nobody else holds; it is gone afterwards."""
    while True:
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BoardError(f"{name} is being started by someone else") from None
            # Whoever held it before may have removed it since it was opened: a file of that name is
            # another one now, which a third may hold.
            if not _is_at(path, lock.fileno()):
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_at(path: Path, opened: int) -> bool:
    """Tell whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(opened), path.stat())
    except FileNotFoundError:
        return False


def _qemu(system: System, profile: Profile, tree: Path, console: Path) -> list[str]:
    """Return QEMU's command line, but for the kernel's words and the network."""
    words = [
        *_machine(profile),
        *("-accel", "tcg,thread=multi"),
        *("-display", "none", "-monitor", "none", "-serial", f"file:{console}", "-no-reboot"),
        *("-dtb", str(tree), "-kernel", str(system.kernel), "-initrd", str(system.initrd)),
    ]
    for number, image in enumerate(system.images):
        drive = f"if=none,id=layer{number},format=raw,readonly=on,file={image}"
        words += ["-drive", drive, "-device", f"virtio-blk-pci,drive=layer{number}"]
    return words


def _network(port: int, *, let_out: bool) -> list[str]:
    """Return QEMU's options; unless the board is let out, SSH from here gets in and nothing out."""
    isolation = "off" if let_out else "on"
    return [
        *("-netdev", f"user,id=net,restrict={isolation},hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:22"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
    ]


def _machine(profile: Profile) -> list[str]:
    return [
        *("qemu-system-aarch64", "-nodefaults", "-machine", "virt,gic-version=3"),
        *("-cpu", profile.processor, "-smp", str(CORES), "-m", str(MEMORY_MIB)),
    ]


def _device_tree(workshop: Workshop, profile: Profile) -> Path:
    """Return the device tree of QEMU's own machine, with the name of the board on it."""

    def write(into: Path) -> None:
        words = _machine(profile)
        words[words.index("-machine") + 1] += f",dumpdtb={into / 'dtb'}"
        run(words, log=workshop.log)
        for key, values in (("model", (profile.model,)), ("compatible", profile.compatible)):
            run(["fdtput", "-t", "s", into / "dtb", "/", key, *values], log=workshop.log)

    version = run(["qemu-system-aarch64", "--version"], log=workshop.log)
    inputs = (profile, version, sources_of(Path(__file__)))
    return workshop.make(f"device_tree_{profile.name}", inputs, write) / "dtb"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _write_ssh_config(workshop: Workshop, board: Board) -> None:
    known = Path(board.folder) / "known_hosts"
    known.write_text(f"{board.name} {host_key(workshop)}\n")
    board.ssh_config.write_text(
        f"Host {board.name}\n"
        "  HostName 127.0.0.1\n"
        f"  Port {board.port}\n"
        f"  HostKeyAlias {board.name}\n"
        f'  UserKnownHostsFile "{known}"\n'
        "  StrictHostKeyChecking yes\n"
        "  User pi\n"
        f'  IdentityFile "{client_key(workshop)}"\n'
        "  IdentitiesOnly yes\n"
        "  ConnectTimeout 30\n"
        # An emulated processor takes seconds to agree on keys; do it once.
        f"  ControlPath {_shared_socket(board)}\n"
    )


def _shared_socket(board: Board) -> str:
    path = f"{board.folder}/ssh"
    return f'"{path}"' if len(path.encode()) <= LONGEST_SOCKET else "none"


def _wait_until_ready(board: Board, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + BOOT_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BoardError(_why_it_ended(board))
        if board.console.exists() and READY in board.console.read_text(errors="replace"):
            # Nothing of it is captured: what stays behind would hold the pipes open.
            asked = subprocess.run(
                board.master(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )
            if asked.returncode == 0:
                return
        time.sleep(0.2)
    raise BoardError(f"{board.name} does not answer after {BOOT_TIMEOUT_S} s: {board.console}")


def _why_it_ended(board: Board) -> str:
    said = (Path(board.folder) / "qemu.log").read_text().strip()
    if "Could not set up host forwarding" in said:
        return f"port {board.port} of this machine is taken"
    last = said.splitlines()[-1] if said else f"see {board.console}"
    return f"{board.name} ended while starting: {last}"


def _born(pid: int) -> int | None:
    """Return when a process started, None if there is none or only its exit code is left."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold anything
    return None if fields[0] in ("Z", "X") else int(fields[19])
