"""Fields that every document has in the same form.

Whatever reads or compares documents needs them on a machine without OpenCV or any runtime: nothing
that measures is imported here.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edgenet.measure.accuracy import Proportion
from edgenet.measure.statistics import BEYOND, PairedDifference, Summary

TOO_FEW_BEYOND = f"fewer than {BEYOND} samples beyond it"


def summary_fields(summary: Summary) -> dict[str, Any]:
    """Return a latency as every document has it, in ms; a percentile not known is null."""
    fields = asdict(summary)
    reasons = {f"{name}_reason": TOO_FEW_BEYOND for name in fields if fields[name] is None}
    return {**fields, **reasons}


def proportion_fields(found: Proportion) -> dict[str, Any]:
    """Return a share in percent, as every document has it."""
    low, high = found.interval
    return {"percent": found.percent, "right": found.right, "interval": [low, high]}


def difference_fields(found: PairedDifference) -> dict[str, Any]:
    """Return a difference of pairs in percentage points, as every document has it."""
    return {
        "n": found.n,
        "lost": found.lost,
        "gained": found.gained,
        "points": found.points,
        "interval": list(found.interval),
        "p_value": found.p_value,
        "verdict": found.verdict.value,
    }


def unknown(name: str, reason: str) -> dict[str, Any]:
    """Return a field that is null, and its reason."""
    return {name: None, f"{name}_reason": reason}
