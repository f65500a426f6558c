"""The page of a camera on a board, reached from here: nothing there listens beyond its loopback."""

from __future__ import annotations

import re

from edgenet.remote.ssh import Connection
from edgenet.stream.listening import LOOPBACK, Address, parse_listening

PAGE = re.compile(rb"page: http://127\.0\.0\.1:(\d+)/(\S*)")
"""What `edgenet camera` says when its page is served."""


def led_here(line: bytes, connection: Connection, place: str | None) -> bytes:
    """Return a line of the board's; of one that tells of a page, with the page's address here.

    `place` is HOST:PORT here, None for any port of 127.0.0.1. Raises `ConnectionLost` or
    `AddressUnavailable` where there is no tunnel.
    """
    found = PAGE.fullmatch(line)
    if found is None:
        return line
    asked = Address(host=LOOPBACK, port=0)
    if place is not None:
        asked = parse_listening(place, option="--view")
    port = connection.forward(int(found[1]), here=asked)
    here = Address(host=asked.host, port=port).text
    return b"page: http://" + here.encode() + b"/" + found[2]
