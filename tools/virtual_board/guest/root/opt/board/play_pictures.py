"""Plays pictures into the board's HDMI output, which is looped into its camera.

Ends the player before it, returns when the first picture can be seen and plays on behind it. A
picture of 640 x 480 is seen bit for bit by a reader that takes BGR frames, as OpenCV does; another
one is made to fit between black bars. A reader that asks for another pixel format sees noise:
`vivid` loops bytes, not colours.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import subprocess
import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 640, 480
BUFFERS = 4
INPUT, OUTPUT = Path("/dev/video0"), Path("/dev/video1")
PID, LOG = Path("/tmp/camera-player.pid"), Path("/tmp/camera-player.log")
Picture = npt.NDArray[np.uint8]


def read(path: str) -> Picture:
    """Return a picture as (480, 640, 3) BGR."""
    picture = cv2.imread(path, cv2.IMREAD_COLOR)
    if picture is None:
        raise SystemExit(f"{path}: not a picture that OpenCV reads")
    height, width = picture.shape[:2]
    if (width, height) == (WIDTH, HEIGHT):
        return picture.astype(np.uint8)
    scale = min(WIDTH / width, HEIGHT / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    framed = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    left, top = (WIDTH - size[0]) // 2, (HEIGHT - size[1]) // 2
    framed[top : top + size[1], left : left + size[0]] = cv2.resize(
        picture, size, interpolation=cv2.INTER_AREA
    )
    return framed


def connect() -> None:
    """Set both ends to the same size and format, and loop one into the other."""
    for words in (
        (INPUT, "--set-dv-bt-timings=index=0"),  # 640 x 480 at 59.94 Hz
        (OUTPUT, "--set-dv-bt-timings=index=0"),
        (INPUT, "--set-ctrl=loop_video=1,osd_text_mode=2"),
        (OUTPUT, f"--set-fmt-video-out=width={WIDTH},height={HEIGHT},pixelformat=BGR3,field=none"),
    ):
        subprocess.run(["v4l2-ctl", "-d", *words], check=True, stdout=subprocess.DEVNULL)


def end_the_last() -> None:
    """End the player before this one and wait until it has let go of the output."""
    if PID.exists():
        pid = int(PID.read_text())
        PID.unlink()
        while Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGTERM)
            time.sleep(0.05)


def play(pictures: list[Picture], hold_s: float, seen: int) -> None:
    """Play for ever; a byte into `seen` tells that the camera shows the first picture.

    The driver shows its last frame until it is given another, so a picture is written once.
    """
    stream = (f"--stream-out-mmap={BUFFERS}", "--stream-from=-")
    command = ("v4l2-ctl", "-d", str(OUTPUT), *stream)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as driver:
        assert driver.stdin
        for _ in range(BUFFERS):  # streaming begins when all are full
            driver.stdin.write(pictures[0].tobytes())
        for number, picture in enumerate(itertools.cycle(pictures)):
            driver.stdin.write(picture.tobytes())
            driver.stdin.flush()
            if number == 0:
                os.write(seen, b"1")
            time.sleep(hold_s)


def main() -> None:
    """Leave a player running."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hold", type=float, default=1.0)
    parser.add_argument("pictures", nargs="*", help="none: end the player that is there")
    options = parser.parse_args()
    pictures = [read(path) for path in options.pictures]
    end_the_last()
    if not pictures:
        return
    connect()
    ready, seen = os.pipe()
    pid = os.fork()
    if pid:
        os.close(seen)
        PID.write_text(str(pid))
        raise SystemExit(0 if os.read(ready, 1) else "the player has ended")
    os.setsid()
    with LOG.open("wb", buffering=0) as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    os.close(ready)
    play(pictures, options.hold, seen)


if __name__ == "__main__":
    main()
