"""Options that more than one command takes."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgenet.errors import UsageError

if TYPE_CHECKING:
    from edgenet.bundle import Precision


def bundle_path(text: str) -> Path:
    """Return the path of a bundle; raises `typer.BadParameter` for an empty text.

    `Path("")` is the folder one is in, which a script's variable that was not set does not mean.
    """
    if not text:
        raise typer.BadParameter("is empty; give a bundle made by edgenet convert")
    return Path(text)


BundleArgument = Annotated[
    Path,
    typer.Argument(metavar="BUNDLE", parser=bundle_path, help="Folder written by edgenet convert."),
]
RuntimeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--runtime",
        metavar="NAME",
        help="onnxruntime, openvino, litert or tensorrt; repeat it or use commas. Default: all.",
    ),
]
PrecisionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--precision",
        metavar="NAME",
        help="float32, float16 or int8; repeat it or separate by commas. Default: all.",
    ),
]
RecordOption = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="Record. Default: in records/ beside BUNDLE."
    ),
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target", metavar="NAME|FILE", help="The board's description. Default: as detected."
    ),
]
LARGEST_SEED = 2**32 - 1
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def finite(value: float | None) -> float | None:
    """Return an option's number; raises `typer.BadParameter` for inf and nan.

    A range leaves out no nan, and one without an upper end no inf.
    """
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no number to go by")
    return value


def split(values: list[str] | None) -> tuple[str, ...]:
    """Return the names in a repeated option whose values may hold commas."""
    names = [name.strip() for value in values or () for name in value.split(",")]
    return tuple(dict.fromkeys(names))


def runtime_names(values: list[str] | None) -> tuple[str, ...]:
    """Return the runtimes asked for; raises `UsageError` for one that does not exist.

    A variant of the INT8 model that is meant for another runtime counts as one.
    """
    from edgenet import runtimes
    from edgenet.bundle import VARIANTS

    chosen, known = split(values), (*runtimes.names(), *VARIANTS)
    for name in chosen:
        if name not in known:
            raise UsageError(f"unknown runtime {name!r}: choose from {', '.join(known)}")
    return chosen


def precisions(values: list[str] | None) -> tuple[Precision, ...]:
    """Return the precisions asked for; raises `UsageError` for one that does not exist."""
    from edgenet.bundle import Precision

    known = [precision.value for precision in Precision]
    for name in split(values):
        if name not in known:
            raise UsageError(f"unknown precision {name!r}: choose from {', '.join(known)}")
    return tuple(Precision(name) for name in split(values))


def thread_counts(values: list[str] | None) -> tuple[int, ...]:
    """Return the numbers of threads; no more than the processors that this process may use."""
    cores = len(os.sched_getaffinity(0))
    given, counts = ",".join(values or ()), []
    for text in split(values) or ("1",):
        if not text.isdecimal() or not 1 <= int(text) <= cores:
            raise UsageError(
                f"--threads {given!r}: give whole numbers from 1 to {cores}, the processors that "
                "this process may run on"
            )
        counts.append(int(text))
    return tuple(counts)
