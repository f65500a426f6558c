"""A URL as a QR code in the terminal, for the phone that is held before it."""

from __future__ import annotations

from io import StringIO

from edgenet.errors import needs_extra

WHITE_ON_BLACK, PLAIN = "\033[97;40m", "\033[0m"
QUIET_ZONE = 2
"""The standard asks for 4; phones read 2, and the code then fits into 24 lines."""


def qr_code(url: str, *, coloured: bool) -> str:
    """Return lines of half blocks that a phone reads; `coloured` for a terminal of any colours.

    Without colours it is right on a dark background. Raises `MissingExtra` without segno.
    """
    with needs_extra("viewer"):
        import segno
    lines = StringIO()
    segno.make(url, error="l", micro=False).terminal(lines, border=QUIET_ZONE, compact=True)
    if not coloured:
        return lines.getvalue()
    # What is light in the code is a block, drawn in the foreground's colour.
    return "".join(f"{WHITE_ON_BLACK}{line}{PLAIN}\n" for line in lines.getvalue().splitlines())
