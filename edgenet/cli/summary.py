"""`edgenet summary`: what a MobileNet V1 costs, layer by layer."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from edgenet.cli.options import JsonOption
from edgenet.cli.output import print_json

EXAMPLES = """\b
Examples:
  edgenet summary
  edgenet summary --width-multiplier 0.5 --resolution 160
  edgenet summary --all --json
"""


def summary(
    width_multiplier: Annotated[
        float, typer.Option(metavar="A", help="Scales every layer's channels, 1/32 to 1.")
    ] = 1.0,
    resolution: Annotated[
        int, typer.Option(metavar="R", help="Side of the input in pixels, 32 to 512.")
    ] = 224,
    classes: Annotated[int, typer.Option(metavar="N", help="Outputs of the classifier.")] = 1000,
    everything: Annotated[
        bool, typer.Option("--all", help="The paper's grid of 16 models instead of one.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Count parameters and multiply-adds of MobileNet V1, the paper's way."""
    from edgenet.models import cost
    from edgenet.report import cost as report

    if everything:
        models = cost.grid(classes)
        _print(as_json, report.grid_document(models), report.grid_table(models))
        return
    model = cost.count(
        width_multiplier=width_multiplier, resolution=resolution, num_classes=classes
    )
    _print(as_json, report.model_document(model), report.model_table(model))


def _print(as_json: bool, document: dict[str, Any], text: str) -> None:
    if as_json:
        print_json(document)
    else:
        typer.echo(text)
