"""`edgenet evaluate`: accuracy and agreement of every artefact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgenet.cli.hosts import HostOption, Trip, run_there
from edgenet.cli.options import (
    LARGEST_SEED,
    BundleArgument,
    JsonOption,
    PrecisionOption,
    RecordOption,
    RuntimeOption,
    precisions,
    runtime_names,
    split,
)
from edgenet.cli.output import StepProgress, print_json, stored_after, tell_record, warn
from edgenet.errors import UsageError
from edgenet.remote.asking import asked_command
from edgenet.wording import counted

if TYPE_CHECKING:
    from edgenet.bundle import Bundle

EXAMPLES = """\b
Examples:
  edgenet evaluate mobilenet
  edgenet evaluate mobilenet --data photos.csv --limit 500 --json
  edgenet evaluate fashion --data fashion-mnist --runtime litert
  edgenet evaluate mobilenet --host pi4 --host pi5
"""


def evaluate(
    context: typer.Context,
    bundle: BundleArgument,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|DIR|CSV",
            help="photographs, fashion-mnist, a folder with one sub-folder a class, or a CSV with "
            "the columns file,label. Default: what fits built-in weights.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Draw N of the images.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, metavar="S", help="Of the draw.")
    ] = 0,
    runtime: RuntimeOption = None,
    precision: PrecisionOption = None,
    output: RecordOption = None,
    host: HostOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure top-1, top-5 and agreement with the reference on labelled pictures."""
    from edgenet.data.dataset import open_dataset
    from edgenet.data.labels import accepted_in
    from edgenet.manifest import load_bundle
    from edgenet.measure.evaluate import evaluate as run
    from edgenet.report.evaluation import evaluation_text
    from edgenet.report.record import evaluation_document
    from edgenet.report.saving import check_writable, record_path

    asked = runtime_names(runtime)
    found = load_bundle(bundle)
    found.require_classifier("evaluate")
    artifacts = found.select(asked, precisions(precision))
    chosen = _default_data(found) if data is None else data
    dataset = open_dataset(chosen, labelled=True)
    if limit is not None:
        dataset = dataset.draw(limit, seed=seed)
    if host:
        accepted_in(dataset, found.labels)  # refused here rather than there
        run_there(
            Trip(
                context=context,
                hosts=split(host),
                as_json=as_json,
                kind="evaluation",
                named_after=found,
                output=output,
                bundles={"bundle": found},
                pictures={"data": dataset},
                drop=("limit", "seed"),
            )
        )
        return
    check_writable(output or record_path(found, "evaluation"))
    with StepProgress() as progress:
        done = progress.step(
            f"evaluate {counted(len(artifacts), 'artefact')} on {dataset.name}",
            total=len(dataset.samples),
        )
        result = run(found, dataset, artifacts, required=asked, on_sample=done)
    for message in result.unreadable:
        warn(f"not counted: {message}")
    document = evaluation_document(found, result, command=asked_command(), threads=1)
    path = output or record_path(found, "evaluation")
    with stored_after(document, path):
        if as_json:
            print_json(document)
        else:
            typer.echo(evaluation_text(result))
    if not as_json:
        typer.echo()
        tell_record(path)


def _default_data(bundle: Bundle) -> str:
    from edgenet.measure.quality import DATA_OF_WEIGHTS

    try:
        return DATA_OF_WEIGHTS[bundle.model.weights]
    except KeyError:
        raise UsageError(
            f"no built-in data fit the weights {bundle.model.weights!r}; "
            "give --data a folder with one sub-folder a class, or a CSV"
        ) from None
