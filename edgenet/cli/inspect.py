"""`edgenet inspect`: what is inside a bundle."""

from __future__ import annotations

import typer

from edgenet.cli.options import BundleArgument, JsonOption
from edgenet.cli.output import print_json

EXAMPLES = """\b
Examples:
  edgenet inspect mobilenet
  edgenet inspect mobilenet --json
"""


def inspect(bundle: BundleArgument, as_json: JsonOption = False) -> None:
    """Show what a bundle holds, after checking that every file of it is whole."""
    from edgenet.bundle import load_bundle
    from edgenet.report.inspection import bundle_document, bundle_text

    found = load_bundle(bundle)
    if as_json:
        print_json(bundle_document(found))
    else:
        typer.echo(bundle_text(found))
