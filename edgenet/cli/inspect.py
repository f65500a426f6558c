"""`edgenet inspect`: what is inside a bundle, and what its runtimes make of it."""

from __future__ import annotations

from typing import Annotated

import typer

from edgenet.cli.options import BundleArgument, JsonOption
from edgenet.cli.output import print_json

EXAMPLES = """\b
Examples:
  edgenet inspect mobilenet
  edgenet inspect mobilenet --operators
  edgenet inspect mobilenet --json
"""


def inspect(
    bundle: BundleArgument,
    operators: Annotated[
        bool, typer.Option("--operators", help="List every operator with its precision.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a bundle holds, after checking that every file of it is whole.

    What each operator computes in is what the runtime itself reports once the artefact is loaded.
    """
    from edgenet.manifest import load_bundle
    from edgenet.measure.operators import report_operators
    from edgenet.report.inspection import (
        bundle_document,
        bundle_text,
        operator_document,
        operator_text,
    )

    found = load_bundle(bundle)
    reports = report_operators(found)
    if as_json:
        print_json({**bundle_document(found), "operators": operator_document(reports)})
    else:
        typer.echo(bundle_text(found))
        typer.echo("\n" + operator_text(reports, every=operators))
