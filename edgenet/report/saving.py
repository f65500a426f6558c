"""Where a document is kept, and how it gets there.

Like `edgenet.report.fields` it needs the base install alone.
"""

from __future__ import annotations

import json
import os
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgenet.bundle import Bundle, shipped_bundle
from edgenet.errors import NotWritable, UsageError
from edgenet.writing import write_whole, writing

NO_NAME = re.compile(r"[^\w.@-]")
"""What of a host's name does not go into that of a file."""


def save_document(document: dict[str, Any], path: Path) -> None:
    """Write a document as JSON, whole or not at all; folders above it are made."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(document, ensure_ascii=False) + "\n").encode())


def check_writable(path: Path) -> None:
    """Raise before the work what `save_document` would raise after it, as far as can be known."""
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; give -o the name of a file")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UsageError(f"{above}: is a file, so nothing fits into it; choose another -o")
    if not os.access(above, os.W_OK):
        raise NotWritable(f"{path}: cannot be written; choose another place with -o")


def record_path(bundle: Bundle, kind: str, *, host: str | None = None) -> Path:
    """Return where a measurement of now goes: `records/` beside the bundle, keyed by it.

    For the bundle that comes with edgenet that would be the installed package: there, `records/` of
    the working folder. `host` is where it was taken, if not here; the name of the file tells it.
    """
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H%M%S.%fZ")
    where = "" if host is None else f"_{NO_NAME.sub('-', host)}"
    name = f"{bundle.sha256[:12]}_{kind}{where}_{now}.json"
    packaged = bundle.root.resolve() == shipped_bundle().resolve()
    beside = Path.cwd() if packaged else bundle.root.absolute().parent
    return beside / "records" / name
