"""The cameras of a machine as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from edgenet.report.table import render
from edgenet.stream.cameras import Camera, Cameras

SCHEMA_VERSION = "1.0"


def cameras_text(cameras: Cameras) -> str:
    """Return a table of what was found, and what is not here at all."""
    parts = []
    if cameras.found:
        rows = [(camera.uri, camera.name, _said(camera)) for camera in cameras.found]
        parts.append(render(("--source", "camera", ""), rows))
    else:
        parts.append("no camera")
    parts.append("\n".join(f"- {advice}" for advice in cameras.advice))
    return "\n\n".join(filter(None, parts))


def cameras_document(cameras: Cameras, *, command: Sequence[str]) -> dict[str, Any]:
    """Return the JSON document; what stands in no camera's way is null with a reason."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "cameras",
        "command": list(command),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cameras": [
            {
                **asdict(camera),
                **({} if camera.problem else {"problem_reason": "it opens"}),
            }
            for camera in cameras.found
        ],
        "advice": list(cameras.advice),
    }


def _said(camera: Camera) -> str:
    return camera.problem or ", ".join(camera.gives) or "it does not say what it gives"
