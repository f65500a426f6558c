"""`edgenet diagnose`: where INT8 loses what, and why."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from edgenet.cli.options import LARGEST_SEED, BundleArgument, JsonOption
from edgenet.cli.output import StepProgress, print_json
from edgenet.errors import UsageError, needs_extra

EXAMPLES = """\b
Examples:
  edgenet diagnose mobilenet
  edgenet diagnose mobilenet --data photographs --json
  edgenet diagnose mine --calibration my_pictures/ --form int8-tensorrt
"""


def diagnose(
    bundle: BundleArgument,
    form: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="int8 or int8-tensorrt. Default: the first there is."),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|CSV",
            help="The pictures that BUNDLE was calibrated on, if they were no embedded set.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|DIR|CSV",
            help="Labelled pictures to judge the steps on. Default: the held-out quarter of the "
            "calibration images, without accuracy.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Draw N of the images of --data.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, metavar="S", help="Of the draw.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Compare INT8 with float layer by layer, say what is wrong and what each correction bought."""
    with needs_extra("convert"):
        import torch

        from edgenet.convert.diagnose import diagnose as run
    from edgenet.data.dataset import open_dataset
    from edgenet.manifest import load_bundle
    from edgenet.report.diagnosis import diagnosis_document, diagnosis_text

    if limit is not None and data is None:
        raise UsageError("--limit is for --data; give labelled pictures to draw from")
    found = load_bundle(bundle)
    calibrated_on = None if calibration is None else open_dataset(calibration, labelled=False)
    labelled = None if data is None else open_dataset(data, labelled=True)
    if labelled is not None and limit is not None:
        labelled = labelled.draw(limit, seed=seed)
    torch.set_num_threads(1)  # as convert: sums in another order would give another form
    with StepProgress() as progress:
        result = run(
            found,
            form_name=form,
            calibration=calibrated_on,
            labelled=labelled,
            progress=progress,
        )
    if as_json:
        print_json(diagnosis_document(found, result, command=["edgenet", *sys.argv[1:]]))
    else:
        typer.echo(diagnosis_text(result))
