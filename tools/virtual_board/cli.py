"""The virtual board's command line: a Raspberry Pi 4 or 5 that boots in this machine's memory.

An arm64 Debian with a real kernel, SSH and a camera, emulated: what it computes is what a board
computes, how long it takes is not.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict

import camera
import machine
from commands import BoardError, require_tools, use_system_folders
from layers import System, build_system
from profiles import PROFILES
from user_mode import user_root
from workshop import Workshop, open_workshop

EPILOG = """\
examples:
  board start pi5
  board ssh -- edgenet --version
  board copy bundles/mobilenet /tmp
  board camera street.png
  board stop
"""


def main() -> int:
    """Run one command line and return its exit code; what can be put right is one line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    use_system_folders()
    options = _parser().parse_args()
    try:
        return int(options.run(open_workshop(), options) or 0)
    except BoardError as error:
        print(f"board: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="board",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    build = commands.add_parser("build", help="build what a board needs, and start none")
    build.set_defaults(run=_build)

    start = commands.add_parser("start", help="boot a board; builds what is missing first")
    start.add_argument("profile", choices=PROFILES)
    start.add_argument("--name", help="what to call it (default: the profile)")
    start.add_argument("--network", action="store_true", help="let the board out to the network")
    start.add_argument("--systemd", action="store_true", help="with systemd as its first process")
    start.add_argument("--port", type=int, help="SSH port on this machine (default: a free one)")
    start.set_defaults(run=_start)

    stop = commands.add_parser("stop", help="end boards")
    stop.add_argument("names", nargs="*", metavar="NAME", help="which (default: all)")
    stop.set_defaults(run=_stop)

    status = commands.add_parser("status", help="list the running boards")
    status.add_argument("--json", action="store_true")
    status.set_defaults(run=_status)

    ssh = commands.add_parser("ssh", help="run a command on a board, or log in")
    _add_name(ssh)
    ssh.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    ssh.set_defaults(run=_ssh)

    copy = commands.add_parser("copy", help="copy files and folders to a board")
    _add_name(copy)
    copy.add_argument("sources", nargs="+", metavar="FILE")
    copy.add_argument("target", metavar="FOLDER", help="on the board")
    copy.set_defaults(run=_copy)

    feed = commands.add_parser(
        "camera", help="let a board's camera see pictures, one after another"
    )
    _add_name(feed)
    feed.add_argument("--hold", type=float, default=1.0, metavar="SECONDS", help="for each picture")
    feed.add_argument(
        "pictures", nargs="*", metavar="PICTURE", help="640 x 480 arrives unchanged; none: stop"
    )
    feed.set_defaults(run=_camera)

    root = commands.add_parser("user-root", help="print the root folder for qemu-aarch64 -L")
    root.add_argument("profile", choices=PROFILES)
    root.set_defaults(run=_user_root)
    return parser


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", help="which board (default: the only one)")


def _build(workshop: Workshop, _: argparse.Namespace) -> None:
    _system(workshop)


def _start(workshop: Workshop, options: argparse.Namespace) -> None:
    board = machine.start(
        workshop,
        _system(workshop),
        PROFILES[options.profile],
        name=options.name or options.profile,
        port=options.port,
        network=options.network,
        systemd=options.systemd,
    )
    print(f"ssh -F {board.ssh_config} {board.name}")


def _system(workshop: Workshop) -> System:
    require_tools()
    with workshop.locked():
        return build_system(workshop)


def _stop(workshop: Workshop, options: argparse.Namespace) -> None:
    chosen = [machine.find(workshop, name) for name in options.names] or machine.boards(workshop)
    for board in chosen:
        machine.stop(board)


def _status(workshop: Workshop, options: argparse.Namespace) -> None:
    running = machine.boards(workshop)
    if options.json:
        print(
            json.dumps(
                [{**asdict(board), "ssh_config": str(board.ssh_config)} for board in running]
            )
        )
    for board in () if options.json else running:
        network = "with network" if board.network else "no network"
        print(f"{board.name}: {board.profile}, pid {board.pid}, port {board.port}, {network}")


def _ssh(workshop: Workshop, options: argparse.Namespace) -> None:
    words = machine.find(workshop, options.name).ssh(
        *options.command[options.command[:1] == ["--"] :]
    )
    os.execvp(words[0], words)


def _copy(workshop: Workshop, options: argparse.Namespace) -> int:
    board = machine.find(workshop, options.name)
    words = ["scp", "-q", "-r", "-F", str(board.ssh_config), *options.sources]
    return subprocess.run([*words, f"{board.name}:{options.target}"], check=False).returncode


def _camera(workshop: Workshop, options: argparse.Namespace) -> None:
    camera.show(machine.find(workshop, options.name), options.pictures, hold_s=options.hold)


def _user_root(workshop: Workshop, options: argparse.Namespace) -> None:
    system = _system(workshop)
    with workshop.locked():
        print(user_root(workshop, system, PROFILES[options.profile]))


if __name__ == "__main__":
    sys.exit(main())
