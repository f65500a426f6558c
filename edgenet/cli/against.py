"""`edgenet profile NEW --against BASE`: two bundles in turns, instead of one by itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgenet.cli.output import StepProgress, print_json, stored_after, tell_record
from edgenet.errors import RuntimeRefused, UsageError
from edgenet.remote.asking import asked_command

if TYPE_CHECKING:
    from edgenet.bundle import Precision
    from edgenet.measure.versus import Plan, Side

BY_ITSELF = "profile each bundle by itself"
OWN_RULES = "it has its own rules, 20 rounds a launch; --launches says how many of these"
ALONE = {
    **dict.fromkeys(("paced", "soak", "layers"), BY_ITSELF),
    **dict.fromkeys(("duration", "quick"), OWN_RULES),
}
"""Options of a profile that a comparison in turns has no use for, and what there is instead."""
PICTURES = 1000
"""How many labelled pictures stand behind the difference in accuracy."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line asks for."""

    new: Path
    runtimes: tuple[str, ...]
    precisions: tuple[Precision, ...]
    data: str | None
    target: str | None
    output: Path | None
    as_json: bool


def refuse_what_does_not_fit(context: typer.Context, against: Path | None) -> None:
    """Raise `UsageError` for options that belong to the other kind of profile."""
    given = {
        name
        for name in (*ALONE, "launches")
        if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    }
    if against is None and "launches" in given:
        raise UsageError("--launches is of a comparison: give --against BUNDLE too")
    wrong = sorted(given.intersection(ALONE))
    if against is not None and wrong:
        raise UsageError(f"--{wrong[0]} does not go with --against: {ALONE[wrong[0]]}")


def profile_against(asked: Asked, against: Path, plan: Plan) -> None:
    """Compare two bundles in turns, print and store what changed."""
    from edgenet.board.detect import detect
    from edgenet.board.machine import Machine
    from edgenet.board.target import load_target
    from edgenet.data.dataset import open_dataset
    from edgenet.measure.quality import pictures_for
    from edgenet.measure.versus import Place, versus
    from edgenet.report.comparison import comparison_document, comparison_text
    from edgenet.report.saving import check_writable, record_path

    command = asked_command()
    base, new = _side(against, asked), _side(asked.new, asked)
    path = asked.output or record_path(new.bundle, "comparison")
    check_writable(path)
    machine = Machine()
    board = detect(machine, None if asked.target is None else load_target(asked.target))
    dataset = None
    if asked.data is not None:
        new.bundle.require_classifier("--data")
        dataset = open_dataset(asked.data, labelled=True)
    elif new.bundle.is_classifier:
        dataset = pictures_for(new.bundle)
    with StepProgress() as progress:
        found = versus(
            base,
            new,
            plan,
            dataset=None if dataset is None else dataset.draw(PICTURES, seed=0),
            place=Place(machine=machine, board=board),
            command=command,
            step=progress.step,
        )
    document = comparison_document(found, (), command=command)
    with stored_after(document, path):
        if asked.as_json:
            print_json(document)
        else:
            typer.echo(comparison_text(found, ()))
    if not asked.as_json:
        tell_record(path)
    turns = found.interleaving
    if turns is None or not turns.complete:
        raise KeyboardInterrupt
    if asked.runtimes and turns.not_run:
        names = "; ".join(label for label, _ in turns.not_run)
        raise RuntimeRefused(f"{names}: asked for, and did not run; see above")


def _side(root: Path, asked: Asked) -> Side:
    from edgenet.manifest import load_bundle
    from edgenet.measure.profile import runnable
    from edgenet.measure.versus import Side

    bundle = load_bundle(root)
    return Side(bundle=bundle, artifacts=runnable(bundle, asked.runtimes, asked.precisions))
