"""Recipes: how ranges are found and what is corrected, as data in `calibration/recipes/`.

A recipe is a JSON object; `minmax.json` there shows every key. A user's own file takes the same
keys, and one that is not known is refused rather than ignored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from edgenet.errors import BadData, UsageError

METHODS = ("minmax", "percentile", "mse", "entropy")
"""Ways to find a tensor's range, see `ranges.py`."""
DEFAULT = "minmax"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the INT8 numbers are found."""

    ranges: str
    """One of `METHODS`."""
    percentile: float = 99.99
    """Share of a tensor's values in percent that its range holds; for `percentile` only."""
    equalise: bool = True
    """Bring channels that share a scale to one range (`equalise.py`)."""
    spare_channels: bool = True
    """Let channels that nobody listens to repeat sensitive ones (`spare.py`)."""
    learned_rounding: bool = True
    """Round weights so that their errors make up for each other (`correct.py`)."""
    bias_correction: bool = True
    """Shift biases until each channel's mean is the reference's (`correct.py`)."""

    def summary(self) -> str:
        """Return the recipe in a few words, for the manifest."""
        ranges = f"percentile {self.percentile:g}" if self.ranges == "percentile" else self.ranges
        steps = {
            "equalised": self.equalise,
            "spare channels": self.spare_channels,
            "learned rounding": self.learned_rounding,
            "bias correction": self.bias_correction,
        }
        return ", ".join([ranges, *(name for name, taken in steps.items() if taken)])


def load_recipe(source: str) -> Recipe:
    """Return the recipe of a built-in name or of a JSON file.

    Raises `UsageError` when there is none, `BadData` naming what is wrong in the file.
    """
    built_in = files("edgenet.calibration") / "recipes" / f"{source}.json"
    if source in METHODS:
        return parse_recipe(built_in.read_text("utf-8"), origin=source)
    path = Path(source)
    if not path.is_file():
        raise UsageError(
            f"no recipe {source!r}: choose from {', '.join(METHODS)} or give a JSON file"
        )
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise BadData(f"{path}: is not UTF-8 text (byte {error.start})") from None
    return parse_recipe(text, origin=str(path))


def parse_recipe(text: str, *, origin: str) -> Recipe:
    """Return the recipe in a JSON text; `origin` stands in front of what is wrong with it."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadData(f"{origin}: is not JSON ({error})") from None
    if not isinstance(values, dict):
        raise BadData(f'{origin}: a recipe is a JSON object, such as {{"ranges": "minmax"}}')
    known = {field.name: field for field in fields(Recipe)}
    for key in values:
        if key not in known:
            raise BadData(f"{origin}: unknown key {key!r}; a recipe has {', '.join(known)}")
    if "ranges" not in values:
        raise BadData(f'{origin}: lacks "ranges"; choose from {", ".join(METHODS)}')
    for key, value in values.items():
        _check_value(key, value, origin)
    return Recipe(**values)


def _check_value(key: str, value: Any, origin: str) -> None:
    if key == "ranges":
        right, wanted = value in METHODS, f"one of {', '.join(METHODS)}"
    elif key == "percentile":
        number = isinstance(value, int | float) and not isinstance(value, bool)
        right, wanted = number and 50 < value <= 100, "a number above 50, up to 100"
    else:
        right, wanted = isinstance(value, bool), "true or false"
    if not right:
        raise BadData(f"{origin}: {key} is {json.dumps(value)}, expected {wanted}")
