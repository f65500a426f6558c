"""Resident memory of this process, as the kernel counts it."""

from __future__ import annotations

from pathlib import Path


def resident_bytes() -> int | None:
    """Return what is resident now; None where the system does not tell."""
    return _status_bytes("VmRSS")


def peak_resident_bytes() -> int | None:
    """Return the most that ever was; `ru_maxrss` would hold the parent's peak over exec."""
    return _status_bytes("VmHWM")


def added_bytes(peak: int | None, before: int | None) -> int | None:
    """Return what came on top of `before`; None where one of both is not known.

    The peak alone has the pages of shared libraries in it, more or fewer by what else has them
    mapped and cached: it tells two installations of one version apart by tens of megabytes.
    """
    return None if peak is None or before is None else max(peak - before, 0)


def _status_bytes(field: str) -> int | None:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return 1024 * int(value.split()[0])
    return None
