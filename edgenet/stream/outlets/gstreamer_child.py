"""Encodes raw frames as H.264 with GStreamer: a program of its own, run by the system's Python.

    /usr/bin/python3 gstreamer_child.py '{"width": 640, "height": 480, ...}'

GStreamer's Python bindings come with Debian and are in no virtual environment, so this must import
nothing of ours and nothing else that is not Debian's. Frames of BGR come in on stdin, until its
end. On stdout goes a line "ready PORT" or "ready", and a line "watched" when the first client
comes. What goes wrong is said on stderr, with exit code 1.

`path` in the request writes an MP4 file; otherwise an RTSP server listens on `address` and `port`
and serves at `mount`.
"""

from __future__ import annotations

import json
import sys
import threading
from fractions import Fraction
from typing import Any

try:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer
except (ImportError, ValueError) as error:
    sys.exit(f"missing: {error}")


def main() -> None:
    """Do what the request in the first argument asks for."""
    request: dict[str, Any] = json.loads(sys.argv[1])
    Gst.init(None)
    for element in ("x264enc", "videoconvert", "rtph264pay", "mp4mux"):
        if Gst.ElementFactory.find(element) is None:
            sys.exit(f"missing: GStreamer's {element}")
    if "path" in request:
        write(request)
    else:
        serve(request)


def encoder(request: dict[str, Any], options: str) -> str:
    """Return the front of a pipeline: raw frames in, H.264 out."""
    rate = Fraction(request["frames_per_second"]).limit_denominator(1001)
    raw = (
        f"video/x-raw,format=BGR,width={request['width']},height={request['height']},"
        f"framerate={rate.numerator}/{rate.denominator}"
    )
    # BT.601 whatever the size: that is what a reader takes for granted who is told nothing.
    return (
        f"appsrc name=source format=time caps={raw} {options} ! videoconvert ! "
        "video/x-raw,format=I420,colorimetry=bt601 ! "
        f"x264enc bitrate={request['bitrate_kbit']} key-int-max={max(1, round(rate))}"
    )


def frames(request: dict[str, Any]) -> Any:
    """Yield frames as they come, until stdin ends."""
    size = request["width"] * request["height"] * 3
    while len(data := sys.stdin.buffer.read(size)) == size:
        yield data


def write(request: dict[str, Any]) -> None:
    """Write the frames into a file, every one of them."""
    front = encoder(request, "block=true max-buffers=8")
    pipeline = Gst.parse_launch(f"{front} speed-preset=medium ! mp4mux ! filesink name=file")
    pipeline.get_by_name("file").set_property("location", request["path"])
    source = pipeline.get_by_name("source")
    pipeline.set_state(Gst.State.PLAYING)
    say("ready")
    duration = Gst.SECOND / request["frames_per_second"]
    for number, data in enumerate(frames(request)):
        buffer = Gst.Buffer.new_wrapped(data)
        buffer.pts = round(number * duration)
        buffer.duration = round(duration)
        if source.emit("push-buffer", buffer) != Gst.FlowReturn.OK:
            break
    source.emit("end-of-stream")
    message = pipeline.get_bus().timed_pop_filtered(
        Gst.CLOCK_TIME_NONE, Gst.MessageType.EOS | Gst.MessageType.ERROR
    )
    pipeline.set_state(Gst.State.NULL)
    if message.type == Gst.MessageType.ERROR:
        sys.exit(str(message.parse_error()[0].message))


def serve(request: dict[str, Any]) -> None:
    """Serve the newest frames to every client, until stdin ends."""
    loop = GLib.MainLoop()
    sources: list[Any] = []
    watched = threading.Event()
    front = encoder(request, "is-live=true do-timestamp=true leaky-type=downstream max-buffers=2")
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        f"( {front} tune=zerolatency speed-preset=veryfast ! "
        "rtph264pay name=pay0 pt=96 config-interval=1 )"
    )
    factory.set_shared(True)
    factory.set_latency(0)

    def configure(_factory: Any, media: Any) -> None:
        source = media.get_element().get_by_name_recurse_up("source")
        sources.append(source)
        media.connect("unprepared", lambda _media: sources.remove(source))
        if not watched.is_set():  # once: nobody reads further lines, and a full pipe would block
            watched.set()
            say("watched")

    factory.connect("media-configure", configure)
    server = GstRtspServer.RTSPServer()
    server.set_address(request["address"])
    server.set_service(str(request["port"]))
    server.get_mount_points().add_factory(request["mount"], factory)
    if not server.attach(None):
        sys.exit("cannot listen")
    say(f"ready {server.get_bound_port()}")

    def feed() -> None:
        for data in frames(request):
            for source in tuple(sources):
                source.emit("push-buffer", Gst.Buffer.new_wrapped(data))
        GLib.idle_add(loop.quit)

    threading.Thread(target=feed, daemon=True).start()
    loop.run()


def say(line: str) -> None:
    """Tell the parent."""
    print(line, flush=True)


if __name__ == "__main__":
    main()
