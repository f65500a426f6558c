"""What a board's camera sees.

The kernel's `vivid` driver is a camera as far as any program can tell: it has formats, buffers and
a rate of its own. Here its HDMI output is looped into its HDMI input, and a process on the board
plays pictures into the output.
"""

from __future__ import annotations

import io
import shlex
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from commands import BoardError
from machine import Board

PLAYER = "/opt/board/play_pictures.py"
PYTHON = "/opt/checkout/bin/python"
FOLDER = "/tmp/camera"


def show(board: Board, pictures: Sequence[str], *, hold_s: float) -> None:
    """Return once the board's camera shows the first of `pictures`; it goes on with the others.

    Without any, the player that costs the board a part of its processor is ended.
    """
    missing = [picture for picture in pictures if not Path(picture).is_file()]
    if missing:
        raise BoardError(f"no such picture: {', '.join(missing)}")
    # Numbered: two may have the same name.
    names = [f"{number:04}{Path(each).suffix}" for number, each in enumerate(pictures)]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, picture in zip(names, pictures, strict=True):
            archive.add(picture, name)
    play = shlex.join([PYTHON, PLAYER, "--hold", str(hold_s), *names])
    line = f"rm -rf {FOLDER} && mkdir {FOLDER} && cd {FOLDER} && tar -x && {play}"
    done = subprocess.run(
        board.ssh(line), input=packed.getvalue(), capture_output=True, check=False
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip() or "no message"
        raise BoardError(f"camera: {said.splitlines()[-1]}")
