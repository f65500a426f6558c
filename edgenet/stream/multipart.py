"""Parts of a multipart/x-mixed-replace stream, cut out of bytes as they come. No input or output.

Servers disagree about the standard: boundaries with and without their two dashes, parts with and
without Content-Length. The boundary is looked for, so that a wrong length costs one part.
"""

from __future__ import annotations

import re

LARGEST_PART = 32 * 2**20
LARGEST_HEAD = 64 * 2**10


class NotMultipart(Exception):
    """Bytes without end or boundary."""


class Parts:
    """Collects bytes until parts are whole."""

    def __init__(self, boundary: str) -> None:
        self._delimiter = b"--" + boundary.strip('"').strip("-").encode()
        self._bytes = bytearray()
        self._in_body = False
        self._length: int | None = None
        self._seen = 0
        """Of the body, as far as it was searched for the next boundary."""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the bodies that `data` completes; raises `NotMultipart`."""
        self._bytes += data
        whole = []
        while (body := self._next()) is not None:
            whole.append(body)
        return whole

    def _next(self) -> bytes | None:
        if not self._in_body and not self._pass_head():
            return None
        if self._length is None:
            return self._until_boundary()
        if self._length > LARGEST_PART:
            raise NotMultipart
        if len(self._bytes) < self._length:
            return None
        return self._cut(self._length)

    def _pass_head(self) -> bool:
        start = self._bytes.find(self._delimiter)
        if start < 0:
            del self._bytes[: max(0, len(self._bytes) - len(self._delimiter))]
            return False
        end = self._bytes.find(b"\r\n\r\n", start)
        if end < 0:
            if len(self._bytes) - start > LARGEST_HEAD:
                raise NotMultipart
            return False
        length = re.search(rb"(?i)\ncontent-length:[ \t]*(\d{1,12})", self._bytes[start:end])
        del self._bytes[: end + 4]
        self._in_body, self._seen = True, 0
        self._length = int(length[1]) if length else None
        return True

    def _until_boundary(self) -> bytes | None:
        end = self._bytes.find(self._delimiter, self._seen)
        if end < 0:
            self._seen = max(0, len(self._bytes) - len(self._delimiter))
            if self._seen > LARGEST_PART:
                raise NotMultipart
            return None
        return self._cut(end).rstrip(b"\r\n-")

    def _cut(self, length: int) -> bytes:
        body = bytes(self._bytes[:length])
        del self._bytes[:length]
        self._in_body = False
        return body
