"""`edgenet verify`: does this machine answer as the host did?"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from edgenet.cli.options import (
    BundleArgument,
    JsonOption,
    PrecisionOption,
    RuntimeOption,
    precisions,
    runtime_names,
)
from edgenet.cli.output import StepProgress, print_json
from edgenet.errors import EdgenetError

EXAMPLES = """\b
Examples:
  edgenet verify mobilenet
  edgenet verify mobilenet --runtime litert --precision int8 --json
"""


def verify(
    bundle: BundleArgument,
    runtime: RuntimeOption = None,
    precision: PrecisionOption = None,
    threads: Annotated[int, typer.Option(min=1, metavar="N", help="Threads of each runtime.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Run the bundle's golden pictures here and compare each artefact with the host's logits."""
    from edgenet.bundle import load_bundle
    from edgenet.measure.verify import verify as run
    from edgenet.report.verification import (
        failure_line,
        verification_document,
        verification_text,
    )

    asked = runtime_names(runtime)
    found = load_bundle(bundle)
    artifacts = found.select(asked, precisions(precision))
    with StepProgress() as progress:
        done = progress.step(f"verify {len(artifacts)} artefacts", total=len(artifacts))
        result = run(found, artifacts, required=asked, threads=threads, on_artifact=done)
    if as_json:
        command = ["edgenet", *sys.argv[1:]]
        print_json(verification_document(found, result, command=command, threads=threads))
    else:
        typer.echo(verification_text(result))
    if not result.holds:
        raise EdgenetError(failure_line(found, result))
