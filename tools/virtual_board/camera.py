"""What a board's camera sees.

The kernel's `vivid` driver is a camera as far as any program can tell: it has formats, buffers and
a rate of its own. Here its HDMI output is looped into its HDMI input, and a process on the board
plays pictures into the output.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from commands import BoardError
from machine import Board

PLAYER = "/opt/board/play_pictures.py"
PYTHON = "/opt/edgenet/bin/python"
FOLDER = "/tmp/camera"


def show(board: Board, pictures: Sequence[str], *, hold_s: float) -> None:
    """Copy `pictures` to the board and return once its camera shows the first, until the next."""
    missing = [picture for picture in pictures if not Path(picture).is_file()]
    if missing:
        raise BoardError(f"no such picture: {', '.join(missing)}")
    # Numbered: two may have the same name.
    names = [f"{number:04}{Path(each).suffix}" for number, each in enumerate(pictures)]
    _on(board, f"rm -rf {FOLDER} && mkdir {FOLDER}")
    for name, picture in zip(names, pictures, strict=True):
        words = ["scp", "-q", "-F", str(board.ssh_config), picture, f"{board.name}:{FOLDER}/{name}"]
        subprocess.run(words, check=True)
    _on(board, f"cd {FOLDER} && {PYTHON} {PLAYER} --hold {hold_s} {' '.join(names)}")


def _on(board: Board, command: str) -> None:
    done = subprocess.run(board.ssh(command), capture_output=True, text=True, check=False)
    if done.returncode:
        raise BoardError(f"camera: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
