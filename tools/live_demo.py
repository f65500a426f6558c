"""The last step of `make demo`: ten seconds over labelled pictures, as a live stream.

    python tools/live_demo.py BUNDLE [--seconds 10]

`edgenet playlist` serves the pictures as MJPEG on a free port, `edgenet camera --truth` looks at
them and prints its record. The server ends with this program, whatever happens; the exit code is
the camera's.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EDGENET = (sys.executable, "-m", "edgenet")
DATA = "photographs"
EACH_S = "0.2"
"""Six frames of each picture, two of them far enough from a change to count."""
PATIENCE_S = 10.0
"""For a server that was asked to end."""


@contextmanager
def served() -> Iterator[str]:
    """Give the URL of the pictures, served until the block ends."""
    server = subprocess.Popen(
        [
            *(*EDGENET, "playlist", DATA, "--serve", "mjpeg"),
            *("--listen", "127.0.0.1:0", "--seconds", EACH_S, "--loop"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        # The URL is printed when it listens; nothing at all when it has ended.
        url = server.stdout.readline().strip()
        if not url:
            raise SystemExit(server.wait() or 1)
        yield url
    finally:
        server.terminate()
        try:
            server.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def main() -> int:
    """Run it; return the camera's exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    # Ctrl-C reaches all three of us: the camera prints what it has, and we wait for that.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    looked = ("camera", str(given.bundle), "--truth", DATA)
    with served() as url:
        code = subprocess.run(
            [*EDGENET, *looked, "--source", url, "--duration", str(given.seconds)], check=False
        ).returncode
    if code == 0:
        print(_how_to_look_on(looked))
    return code


def _how_to_look_on(looked: tuple[str, ...]) -> str:
    return f"""
The page: http://127.0.0.1:8080/, while a camera runs. After `. {_activate()}`:
  edgenet playlist {DATA} --serve mjpeg --loop &
  edgenet {" ".join(looked)} --source http://127.0.0.1:8090/stream.mjpg
Ctrl-C ends the camera, `kill %1` the playlist. With a camera of your own: edgenet camera"""


def _activate() -> str:
    path = Path(sys.prefix, "bin", "activate")
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


if __name__ == "__main__":
    sys.exit(main())
