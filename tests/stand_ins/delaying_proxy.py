"""A network between a camera and us: what the camera sends arrives later, at the rate it was sent.

As a program it prints the port of 127.0.0.1 that it listens on, and ends when its stdin does:

    python tests/stand_ins/delaying_proxy.py PORT --ms 300
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
from contextlib import suppress

CHUNK_BYTES = 65536


async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter, delay_s: float):
    """Write what is read, each piece `delay_s` after it came, until the end of either."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def read():
        # Never waits for the target: a piece that lies in the kernel would get no time of coming.
        data = b"-"
        while data:
            with suppress(ConnectionError):
                data = await source.read(CHUNK_BYTES)
            await pieces.put((loop.time() + delay_s, data))

    reading = asyncio.ensure_future(read())
    with suppress(ConnectionError):
        while True:
            due, data = await pieces.get()
            await asyncio.sleep(due - loop.time())
            if not data:
                break
            target.write(data)
            await target.drain()
    reading.cancel()
    target.close()


async def serve(port: int, delay_s: float):
    """Listen, and connect each client with `port` of this machine."""

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        try:
            source, back = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        ways = [
            asyncio.ensure_future(pass_on(source, writer, delay_s)),
            asyncio.ensure_future(pass_on(reader, back, 0.0)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        for end in (writer, back):
            end.close()

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop, over = asyncio.get_running_loop(), asyncio.Event()

    def wait_for_the_end():
        sys.stdin.read()
        loop.call_soon_threadsafe(over.set)

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    await over.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("port", type=int)
    parser.add_argument("--ms", type=float, required=True)
    given = parser.parse_args()
    asyncio.run(serve(given.port, given.ms / 1000))


if __name__ == "__main__":
    main()
