"""`edgenet verify`: does this machine answer as the host did?"""

from __future__ import annotations

from typing import Annotated

import typer

from edgenet.cli.hosts import HostOption, Trip, run_there
from edgenet.cli.options import (
    BundleArgument,
    JsonOption,
    PrecisionOption,
    RuntimeOption,
    precisions,
    runtime_names,
    split,
)
from edgenet.cli.output import StepProgress, print_json
from edgenet.errors import EdgenetError
from edgenet.remote.asking import asked_command
from edgenet.wording import counted

EXAMPLES = """\b
Examples:
  edgenet verify mobilenet
  edgenet verify mobilenet --runtime litert --precision int8 --json
  edgenet verify mobilenet --host pi5
"""


def verify(
    context: typer.Context,
    bundle: BundleArgument,
    runtime: RuntimeOption = None,
    precision: PrecisionOption = None,
    threads: Annotated[int, typer.Option(min=1, metavar="N", help="Threads of each runtime.")] = 1,
    host: HostOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the bundle's golden pictures here and compare each artefact with the host's logits."""
    from edgenet.manifest import load_bundle
    from edgenet.measure.verify import verify as run
    from edgenet.report.verification import (
        failure_line,
        verification_document,
        verification_text,
    )

    asked = runtime_names(runtime)
    found = load_bundle(bundle)
    artifacts = found.select(asked, precisions(precision))
    if host:
        trip = Trip(context=context, hosts=split(host), as_json=as_json, bundles={"bundle": found})
        run_there(trip)
        return
    with StepProgress() as progress:
        done = progress.step(f"verify {counted(len(artifacts), 'artefact')}", total=len(artifacts))
        result = run(found, artifacts, required=asked, threads=threads, on_artifact=done)
    if as_json:
        command = asked_command()
        print_json(verification_document(found, result, command=command, threads=threads))
    else:
        typer.echo(verification_text(result))
    if not result.holds:
        raise EdgenetError(failure_line(found, result))
