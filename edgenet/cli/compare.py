"""`edgenet compare`: what changed between two measurements, and whether that may pass."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from edgenet.cli.options import JsonOption
from edgenet.cli.output import print_json
from edgenet.errors import EdgenetError, UsageError

EXAMPLES = """\b
Examples:
  edgenet compare base.json new.json
  edgenet compare base.json new.json --max-slowdown 5% --max-drop 0.5
  edgenet compare base.json new.json --max-drop 1 --markdown
  edgenet compare comparison.json --max-slowdown 5%
"""


def compare(
    base: Annotated[
        Path,
        typer.Argument(
            metavar="BASE",
            help="Record of edgenet evaluate or profile; or, alone, what edgenet profile "
            "--against wrote.",
        ),
    ],
    new: Annotated[
        Path | None, typer.Argument(metavar="NEW", help="Record to hold against BASE.")
    ] = None,
    max_slowdown: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT", help="Fail unless each p50, or own time, surely grew by no more."
        ),
    ] = None,
    max_drop: Annotated[
        str | None,
        typer.Option(metavar="POINTS", help="Fail unless top-1 surely fell by no more."),
    ] = None,
    allow_undecided: Annotated[
        bool, typer.Option("--allow-undecided", help="Let a gate pass that cannot be told.")
    ] = False,
    allow_unlike: Annotated[
        bool,
        typer.Option("--allow-unlike", help="Compare what was not measured alike, and say so."),
    ] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown for a pull request.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the JSON document there too."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two stored measurements artefact by artefact, or judge a comparison made in turns.

    With a limit, ends with 1 unless it holds for the whole interval. Two records of one launch each
    cannot tell latencies apart; edgenet profile NEW --against BASE can.
    """
    from edgenet.measure.comparison import check_alike
    from edgenet.measure.comparison import compare as run
    from edgenet.measure.gates import Limits, Outcome, judge
    from edgenet.report.comparison import (
        comparison_document,
        comparison_markdown,
        comparison_text,
        outcome_line,
    )
    from edgenet.report.reading import read_comparison, read_document
    from edgenet.report.saving import check_writable, save_document

    if markdown and as_json:
        raise UsageError("--markdown and --json exclude each other; -o writes the JSON beside")
    limits = Limits(
        max_slowdown_percent=_limit("--max-slowdown", max_slowdown, unit="percent, as in 5%"),
        max_drop_points=_limit(
            "--max-drop", max_drop, unit="percentage points up to 100, as in 0.5", most=100
        ),
    )
    if output is not None:
        check_writable(output)
    if new is None:
        found = read_comparison(base)
        if not allow_unlike:
            check_alike(found)
    else:
        found = run(read_document(base), read_document(new), allow_unlike=allow_unlike)
    gates = judge(found, limits)
    document = comparison_document(found, gates, command=["edgenet", *sys.argv[1:]])
    if as_json:
        print_json(document)
    else:
        typer.echo((comparison_markdown if markdown else comparison_text)(found, gates))
    if output is not None:
        save_document(document, output)
    passing = {Outcome.HOLDS, *([Outcome.CANNOT_TELL] if allow_undecided else [])}
    if any(gate.outcome not in passing for gate in gates):
        told = found.new.source, found.base.source
        raise EdgenetError(f"{' against '.join(told)}: {outcome_line(gates)}")


def _limit(
    option: str, text: str | None, *, unit: str, most: float = sys.float_info.max
) -> float | None:
    """Return a limit; the percent sign may be left out."""
    if text is None:
        return None
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = math.nan
    if not 0 <= value <= most:
        raise UsageError(f"{option} {text!r} is no limit; give {unit}")
    return value
