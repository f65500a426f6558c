"""The process that serves the page; `edgenet.stream.viewer.Viewer` starts it.

    python -m edgenet.stream.viewer.server CONTROL MEMORY LISTENER

It knows of the run what the run's messages say, asks for pictures while somebody waits for one,
and ends when the run does. Nothing here writes anything: every address is GET.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from edgenet.stream.listening import Address
from edgenet.stream.looking import Looking
from edgenet.stream.viewer.clients import Clients
from edgenet.stream.viewer.feed import Feed, Picture
from edgenet.stream.viewer.guard import Guard
from edgenet.stream.viewer.metrics import render_metrics
from edgenet.stream.viewer.picture import Kind, use_one_thread
from edgenet.stream.viewer.protocol import ImpatientProtocol

PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/viewer.css": ("viewer.css", "text/css; charset=utf-8"),
    "/viewer.js": ("viewer.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
WAIT_S = 5.0
"""For a new picture; then the answer is 204, and the client asks again."""
FIRST_WAIT_S = 1.0
"""Where a client has no picture yet, the last one is better than none."""
MOST_CONNECTIONS = 64
KEEP_ALIVE_S = 30
"""A browser that shows one picture in some seconds keeps its connection."""
BOUNDARY = "edgenet-frame"


class Page:
    """Answers of every address."""

    def __init__(self, feed: Feed, clients: Clients) -> None:
        self._feed = feed
        self._clients = clients
        folder = files("edgenet.stream.viewer") / "page"
        self._files = {
            path: ((folder / name).read_bytes(), kind) for path, (name, kind) in PAGE.items()
        }

    def routes(self) -> list[Route]:
        """Return what there is; no path leads to a folder."""
        return [
            *(Route(path, self.file) for path in PAGE),
            Route("/frame.jpg", self.frame),
            Route("/snapshot.jpg", self.snapshot),
            Route("/stream.mjpg", self.stream),
            Route("/status.json", self.status),
            Route("/metrics", self.metrics),
        ]

    async def file(self, request: Request) -> Response:
        """Return a part of the page."""
        body, kind = self._files[request.url.path]
        return Response(body, media_type=kind)

    async def frame(self, request: Request) -> Response:
        """Return the next picture after `?after=SEQUENCE`, its result in a header."""
        try:
            after = int(request.query_params.get("after", "-1"))
        except ValueError:
            raise HTTPException(400, "after= is the number of a frame") from None
        with self._clients.place(_client(request)):
            picture = await self._feed.next_picture(
                Kind.CLEAN, after=after, wait_s=WAIT_S if after >= 0 else FIRST_WAIT_S
            )
        if picture is None:
            return Response(status_code=204)
        return Response(picture.jpegs[Kind.CLEAN], media_type="image/jpeg", headers=_told(picture))

    async def snapshot(self, request: Request) -> Response:
        """Return one picture with its label in it."""
        with self._clients.place(_client(request)):
            picture = await self._feed.next_picture(Kind.LABELLED, after=-1, wait_s=FIRST_WAIT_S)
        if picture is None:
            raise HTTPException(503, "no picture just now", {"Retry-After": "1"})
        return Response(
            picture.jpegs[Kind.LABELLED], media_type="image/jpeg", headers=_told(picture)
        )

    async def stream(self, request: Request) -> Response:
        """Return pictures without end, for players that can do nothing else.

        Such a player may hold seconds of pictures in its own buffers; this process holds none.
        """
        return _Stream(self._feed, self._clients, f"stream {request.client}")

    async def status(self, _request: Request) -> Response:
        """Return how the run is doing; null before it has said so."""
        status = await self._feed.fresh_status()
        age_ms = None if status is None else self._status_age_s() * 1e3
        return JSONResponse(
            {"status": status, "status_age_ms": age_ms, "clients": self._clients.count}
        )

    async def metrics(self, request: Request) -> Response:
        """Return the same for Prometheus."""
        status = await self._feed.fresh_status()
        text, kind = render_metrics(
            status,
            status_age_s=self._status_age_s(),
            clients=self._clients.count,
            accept=request.headers.get("accept", ""),
        )
        return Response(text, headers={"Content-Type": kind})

    def _status_age_s(self) -> float:
        return (time.monotonic_ns() - self._feed.status_ns) / 1e9


class _Stream(StreamingResponse):
    """Pictures one after the other, each the newest when the one before it had gone out."""

    def __init__(self, feed: Feed, clients: Clients, name: str) -> None:
        super().__init__(
            self._parts(feed), media_type=f"multipart/x-mixed-replace; boundary={BOUNDARY}"
        )
        self._clients = clients
        self._name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold a place for as long as the client stays."""
        with self._clients.place(self._name):
            await super().__call__(scope, receive, send)

    async def _parts(self, feed: Feed) -> AsyncIterator[bytes]:
        last = -1
        while True:
            picture = await feed.next_picture(Kind.LABELLED, after=last, wait_s=WAIT_S)
            if picture is None:
                continue
            last, body = picture.sequence, picture.jpegs[Kind.LABELLED]
            yield (
                (
                    f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n"
                    f"X-Age-Ms: {picture.age_ms:.1f}\r\n\r\n"
                ).encode()
                + body
                + b"\r\n"
            )


def _client(request: Request) -> str:
    """Return who asks: a page says so itself, of others there is the address that they have."""
    named = request.query_params.get("client", "")[:40]
    return f"{request.client.host if request.client else ''} {named}"


def _told(picture: Picture) -> dict[str, str]:
    """Return the headers that say what a picture is of, and how old it is."""
    return {
        "X-Age-Ms": f"{picture.age_ms:.1f}",
        "X-Result": json.dumps(picture.result),
    }


class _Server(uvicorn.Server):
    """One that leaves signals alone: it ends when the run does."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing."""
        yield


async def serve(looking: Looking, listener: socket.socket) -> None:
    """Serve until the run ends."""
    settings = looking.settings
    feed, clients = Feed(looking), Clients(settings["most_clients"])
    app = Guard(
        Starlette(routes=Page(feed, clients).routes()),
        address=Address(host=settings["host"], port=settings["port"]),
        names=settings["names"],
        token=settings["token"],
    )
    server = _Server(
        uvicorn.Config(
            app,
            http=ImpatientProtocol,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
    )

    loop = asyncio.get_running_loop()

    def hear() -> None:
        if not feed.receive():
            os._exit(0)  # whoever still waits for a picture waits in vain

    def look_after_parent() -> None:
        if looking.is_orphan:
            os._exit(0)
        loop.call_later(1.0, look_after_parent)

    looking.control.setblocking(False)
    loop.add_reader(looking.control, hear)
    look_after_parent()
    looking.say(ready=True)
    await server.serve([listener])


def main(arguments: Sequence[str]) -> None:
    """Take over the descriptors, serve, end."""
    control, memory, listener = map(int, arguments)
    looking = Looking(control, memory)
    use_one_thread()
    asyncio.run(serve(looking, socket.socket(fileno=listener)))


if __name__ == "__main__":
    main(sys.argv[1:])
