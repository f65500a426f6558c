"""Where pictures come from, as one writes it: a URI taken apart and checked, before anything opens.

    0, /dev/video0, v4l2:///dev/video0?size=1280x720&fps=30&fourcc=MJPG
    csi://0?size=1280x720&fps=30
    rtsp://USER:PASSWORD@HOST/PATH, http://USER:PASSWORD@HOST/PATH
    FILE?loop=1, FOLDER?loop=1&fps=10
    synthetic://?size=640x480&fps=30&frames=300

What may be shown of it is `shown`: nobody else has to know that a password is in it.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from edgenet.errors import UsageError

NETWORK = ("rtsp", "rtsps", "http", "https")
SMALLEST, LARGEST = 16, 8192
"""Sides of a picture that one may ask for."""
FASTEST = 1000.0
"""Pictures a second that one may ask for."""

SECRET = re.compile(
    r"(?i)([\w.-]*(?:passw|pwd|token|secret|key|auth|sig|user|usr|login|account)[\w.-]*?=)[^&;/?#]*"
)
"""Cameras want passwords in queries and even in paths: /user=admin&password=x&channel=1."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What one asks of a source; None is the source's own choice."""

    size: tuple[int, int] | None = None
    """(width, height)."""
    fps: float | None = None
    fourcc: str | None = None
    """Four letters, such as MJPG."""
    loop: bool = False
    """Begin again at the end."""
    frames: int | None = None
    """End after so many."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """One source, not opened yet."""

    kind: str
    """The module in `edgenet/stream/sources` that opens it."""
    target: str
    """A device, a number, a URL with its password, or a path."""
    options: Options
    shown: str
    """The URI without user, password or what looks like one."""


def parse_address(uri: str) -> Address:
    """Return what a URI says; raises `UsageError` for one that says nothing, or too much."""
    scheme, separator, _ = uri.partition("://")
    scheme = scheme.lower()
    if not separator:
        return _local(uri)
    if scheme in NETWORK:
        return _network(uri)
    parts = urlsplit(uri)
    target = parts.netloc + parts.path
    known = {
        "v4l2": ("size", "fps", "fourcc"),
        "csi": ("size", "fps"),
        "synthetic": ("size", "fps", "frames"),
        "file": ("loop",),
    }
    if scheme not in known:
        raise UsageError(
            f"unknown source {shown(uri)!r}: give 0, /dev/video0, v4l2://, csi://0, rtsp://, "
            "http://, a file, a folder, or synthetic://"
        )
    if scheme == "file":
        return _path(Path(unquote(target)), parts.query, uri)
    if scheme == "v4l2":
        target = _device(target or "0")
    if scheme == "synthetic" and target:
        raise UsageError(f"{uri}: synthetic:// takes options alone, as in synthetic://?fps=15")
    if scheme == "csi" and not (target or "0").isdecimal():
        raise UsageError(f"{uri}: csi:// takes the camera's number, such as csi://0")
    return Address(
        kind=scheme,
        target=target or ("0" if scheme == "csi" else ""),
        options=_options(parts.query, known[scheme], uri),
        shown=uri,
    )


def shown(uri: str) -> str:
    """Return a URI without its user and password, wherever cameras want them."""
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme.lower() not in NETWORK:
        return uri
    # Passwords hold slashes, question marks and even @ when people forget to encode them: the last
    # @ of all counts, so that too much is hidden rather than too little.
    rest = rest.rpartition("@")[2]
    return f"{scheme}://" + SECRET.sub(r"\1...", rest)


def _network(uri: str) -> Address:
    try:
        parts = urlsplit(uri)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(
            f"{shown(uri)}: is no address ({error}); in user and password write / as %2F, @ as %40"
        ) from None
    if not host:
        raise UsageError(f"{shown(uri)}: has no host; write rtsp://HOST/PATH or http://HOST/PATH")
    kind = "rtsp" if parts.scheme.startswith("rtsp") else "mjpeg"
    return Address(kind=kind, target=uri, options=Options(), shown=shown(uri))


def _local(uri: str) -> Address:
    """Return a camera's number, a device, or a path; what exists as it is written comes first."""
    if uri.isdecimal():
        return Address(kind="v4l2", target=_device(uri), options=Options(), shown=uri)
    if not uri:  # Path would make the folder one is in of it
        raise UsageError("the source is an empty word; give 0, a file or a URL, or leave it out")
    path, query = Path(uri), ""
    if not path.exists() and "?" in uri:
        before, _, query = uri.rpartition("?")
        path = Path(before)
    return _path(path, query, uri)


def _path(path: Path, query: str, uri: str) -> Address:
    if str(path).startswith("/dev/") or _is_device(path):
        options = _options(query, ("size", "fps", "fourcc"), uri)
        return Address(kind="v4l2", target=str(path), options=options, shown=uri)
    if path.is_dir():
        options = _options(query, ("fps", "loop"), uri)
        return Address(kind="folder", target=str(path), options=options, shown=uri)
    if path.exists():
        options = _options(query, ("loop",), uri)
        return Address(kind="file", target=str(path), options=options, shown=uri)
    raise UsageError(
        f"no source at {uri!r}: there is no such file or folder; cameras are 0, /dev/video0 or "
        "csi://0, streams rtsp:// or http://"
    )


def _is_device(path: Path) -> bool:
    try:
        return stat.S_ISCHR(path.stat().st_mode)
    except OSError:
        return False


def _device(text: str) -> str:
    return f"/dev/video{text}" if text.isdecimal() else text


def _options(query: str, allowed: tuple[str, ...], uri: str) -> Options:
    found: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in allowed:
            raise UsageError(
                f"{shown(uri)}: unknown option {name!r}; this source takes {', '.join(allowed)}"
            )
        if name in found:
            raise UsageError(f"{shown(uri)}: says {name!r} twice")
        try:
            found[name] = READERS[name](value)
        except ValueError:
            raise UsageError(f"{shown(uri)}: {name}={value} is not {MEANT[name]}") from None
    assert found.keys() <= {field.name for field in fields(Options)}
    return Options(**found)


def _size(text: str) -> tuple[int, int]:
    width, height = (_whole(side) for side in text.lower().split("x"))
    if not (SMALLEST <= width <= LARGEST and SMALLEST <= height <= LARGEST):
        raise ValueError
    return width, height


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ValueError
    return int(text)


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 < rate <= FASTEST:
        raise ValueError
    return rate


def _fourcc(text: str) -> str:
    if len(text) != 4 or not text.isascii() or not text.isprintable():
        raise ValueError
    return text


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError
    return text == "1"


READERS: Mapping[str, Callable[[str], object]] = {
    "size": _size,
    "fps": _rate,
    "fourcc": _fourcc,
    "loop": _switch,
    "frames": _whole,
}
MEANT = {
    "size": f"WIDTHxHEIGHT with sides from {SMALLEST} to {LARGEST}",
    "fps": f"a rate above 0 and up to {FASTEST:g}",
    "fourcc": "four letters such as MJPG",
    "loop": "0 or 1",
    "frames": "a number from 1 on",
}
