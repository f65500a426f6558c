"""`edgenet classify`: the labels of single pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgenet.cli.options import BundleArgument, JsonOption, precisions, runtime_names
from edgenet.cli.output import print_json, warn
from edgenet.errors import BadImage, UsageError

EXAMPLES = """\b
Examples:
  edgenet classify mobilenet cat.jpg
  edgenet classify mobilenet *.jpg --top 1 --runtime litert --precision int8
"""


def classify(
    bundle: BundleArgument,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures to label.")],
    top: Annotated[int, typer.Option(min=1, metavar="K", help="Labels a picture.")] = 5,
    runtime: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Default: the first installed one in the bundle."),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Default: float32, or what the bundle has."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the most likely labels of pictures."""
    for image in images:
        if not image.is_file():
            what = "is a folder; give pictures" if image.is_dir() else "no such file"
            raise UsageError(f"{image}: {what}")
    from edgenet.manifest import load_bundle
    from edgenet.measure.classify import classify as run
    from edgenet.report.classification import classification_document
    from edgenet.report.table import render

    found = load_bundle(bundle)
    artifacts = found.select(
        runtime_names([runtime] if runtime else None),
        precisions([precision] if precision else None),
    )
    outcomes = list(run(found, artifacts, images, count=top))
    results = [outcome for outcome in outcomes if not isinstance(outcome, BadImage)]
    unreadable = [outcome for outcome in outcomes if isinstance(outcome, BadImage)]
    if as_json and results:
        print_json(classification_document(found, results, unreadable))
    for result in () if as_json else results:
        name = result.artifact.label
        typer.echo(f"{result.file}  ({name} on {result.device})")
        rows = [(f"{100 * g.probability:.1f} %", str(g.index), g.label) for g in result.guesses]
        typer.echo(render(("softmax", "class", "label"), rows) + "\n")
    for error in unreadable[1:]:
        warn(str(error))
    if unreadable:
        raise unreadable[0]
