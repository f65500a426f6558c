"""edgenet: from a reference classifier to a bundle that runs the same on every board."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from edgenet.stream.model import Model

__version__ = "0.1.0"


def load(bundle: str | Path | None = None) -> Model:
    """Return the bundle at a path, or the one that comes with edgenet; see `Model.stream`.

    Raises `UsageError` when there is no such folder, `BrokenBundle` when it is not whole.
    """
    # Importing edgenet must cost nothing: this brings numpy and OpenCV.
    from edgenet.stream.model import load

    return load(bundle)
