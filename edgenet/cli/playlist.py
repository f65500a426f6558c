"""`edgenet playlist`: labelled pictures for a camera to look at."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgenet.cli.options import LARGEST_SEED, finite
from edgenet.cli.output import warn
from edgenet.errors import UsageError
from edgenet.wording import counted

if TYPE_CHECKING:
    from edgenet.stream.outlets.gstreamer import RtspServer, VideoFile
    from edgenet.stream.outlets.mjpeg import MjpegServer
    from edgenet.stream.outlets.screen import Screen
    from edgenet.stream.playlist import Show

BITRATE_KBIT = 2000
QUALITY = 90
LISTEN = "127.0.0.1:8090"

EXAMPLES = """\b
Examples:
  edgenet playlist photographs --serve mjpeg
  edgenet playlist photos.csv --serve rtsp --bitrate 500 --seconds 2 --loop
  edgenet playlist photographs --limit 20 -o playlist.mp4
  edgenet playlist photographs --fullscreen --size 1920x1080
"""


class Served(str, Enum):
    """Streams that a playlist can be."""

    MJPEG = "mjpeg"
    RTSP = "rtsp"


def playlist(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="photographs, fashion-mnist, a folder with one sub-folder a class, or a CSV with "
            "the columns file,label. Give the same to edgenet camera --truth.",
        ),
    ],
    serve: Annotated[
        Served | None,
        typer.Option(help="Be a camera on the network; it begins when the first client comes."),
    ] = None,
    fullscreen: Annotated[
        bool, typer.Option("--fullscreen", help="Fill this machine's screen; Escape ends it.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.mp4", help="Write a video (H.264)."),
    ] = None,
    listen: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="Where to serve; port 0 is any free one. Whoever reaches it sees the pictures.",
        ),
    ] = LISTEN,
    seconds: Annotated[
        float,
        typer.Option(
            min=0.01, max=3600, metavar="S", callback=finite, help="To show each picture for."
        ),
    ] = 1.0,
    fps: Annotated[
        float,
        typer.Option(min=1, max=240, metavar="N", callback=finite, help="Frames a second."),
    ] = 30.0,
    size: Annotated[
        str, typer.Option(metavar="WxH", help="Of the frames, the marker's bands included.")
    ] = "640x480",
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Draw N of the pictures.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, metavar="S", help="Of the draw.")
    ] = 0,
    loop: Annotated[bool, typer.Option("--loop", help="Begin again behind the last one.")] = False,
    bitrate: Annotated[
        int | None,
        typer.Option(
            min=50,
            max=100_000,
            metavar="KBIT",
            help=f"A second, of rtsp and -o. Default: {BITRATE_KBIT}.",
        ),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(
            min=1, max=100, metavar="Q", help=f"Of mjpeg's JPEG pictures. Default: {QUALITY}."
        ),
    ] = None,
) -> None:
    """Show labelled pictures, each beside a marker that edgenet camera --truth reads."""
    from edgenet.data.dataset import open_dataset
    from edgenet.stream.marker import Layout
    from edgenet.stream.playlist import Pace, Show, play, playlist_of

    if [serve is not None, fullscreen, output is not None].count(True) != 1:
        raise UsageError("say where to show it: --serve mjpeg, --serve rtsp, --fullscreen or -o")
    if quality is not None and serve is not Served.MJPEG:
        raise UsageError("--quality is of --serve mjpeg")
    if bitrate is not None and output is None and serve is not Served.RTSP:
        raise UsageError("--bitrate is of --serve rtsp and -o")
    if loop and output is not None:
        raise UsageError("--loop never ends, and a file must")
    width, height = _size(size)
    layout, pace = Layout(width=width, height=height), Pace(seconds=seconds, frames_per_second=fps)
    found = playlist_of(open_dataset(data, labelled=True))
    samples = found.dataset.samples
    show = Show(
        playlist=found,
        chosen=found.dataset.drawn(limit or len(samples), seed=seed),
        pace=pace,
        layout=layout,
        loop=loop,
    )
    with _open(
        show,
        serve=serve,
        output=output,
        listen=listen,
        bitrate_kbit=bitrate or BITRATE_KBIT,
        quality=quality or QUALITY,
    ) as outlet:
        done = play(show, outlet, warn=warn)
    typer.echo(
        ("" if output is None else f"{output}: ")
        + f"{counted(len(show.chosen), 'picture')}, {counted(done.frames, 'frame')}"
        + (f", {done.skipped} skipped because this machine was late" if done.skipped else "")
    )


def _size(text: str) -> tuple[int, int]:
    across, _, down = text.lower().partition("x")
    if not (across.isdecimal() and down.isdecimal()):
        raise UsageError(f"--size {text}: is not WIDTHxHEIGHT, such as 640x480")
    return int(across), int(down)


def _open(
    show: Show,
    *,
    serve: Served | None,
    output: Path | None,
    listen: str,
    bitrate_kbit: int,
    quality: int,
) -> MjpegServer | RtspServer | Screen | VideoFile:
    """Return where it goes, and tell where to look for it."""
    if serve is None and output is None:
        from edgenet.stream.outlets.screen import Screen

        return Screen()
    from edgenet.stream.listening import parse_listening
    from edgenet.stream.outlets import LISTEN_OPTION

    address = parse_listening(listen, option=LISTEN_OPTION)
    if serve is Served.MJPEG:
        from edgenet.stream.outlets.mjpeg import MjpegServer

        server: MjpegServer | RtspServer = MjpegServer(address, quality=quality)
    else:
        from edgenet.stream.outlets.gstreamer import Coding, RtspServer, VideoFile

        coding = Coding(
            layout=show.layout,
            frames_per_second=show.pace.frames_per_second,
            bitrate_kbit=bitrate_kbit,
        )
        if output is not None:
            return VideoFile(output, coding)
        server = RtspServer(address, coding)
    typer.echo(server.url)
    typer.echo(
        ("" if output is None else f"{output}: ")
        + f"{counted(len(show.chosen), 'picture')} of {show.playlist.dataset.name}, from when the "
        f"first client comes{'' if show.loop else ', once'}; Ctrl-C ends it",
        err=True,
    )
    return server
