"""`edgenet doctor`: what this machine is, what works on it, and whether to measure on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgenet.cli.hosts import HostOption, Trip, run_there, target_file
from edgenet.cli.options import JsonOption, split
from edgenet.cli.output import print_json
from edgenet.errors import UsageError
from edgenet.remote.asking import asked_command, from_elsewhere

if TYPE_CHECKING:
    from edgenet.board.machine import Machine

EXAMPLES = """\b
Examples:
  edgenet doctor
  edgenet doctor --json
  edgenet doctor --record my_board.tar.gz
  edgenet doctor --tree my_board.tar.gz
  edgenet doctor --target ./my_board.toml
  edgenet doctor --host pi5
"""
ARCHIVE = ".tar.gz"


def doctor(
    context: typer.Context,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="raspberry_pi, jetson, x86, linux, or a TOML file of yours. Default: as detected.",
        ),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Keep all that was read, to send in: a .tar.gz, or a folder."
        ),
    ] = None,
    tree: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Examine what --record wrote, or pi_4, pi_5, orin_nano, laptop as documented, "
            "instead of this machine.",
        ),
    ] = None,
    host: HostOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what this machine is, which runtimes work on it, and whether to measure on it.

    Ends with 0 whatever it finds. Reads only; what --record keeps has no names of users or hosts
    and no serial numbers.
    """
    from edgenet.board.doctor import examine
    from edgenet.board.target import load_target
    from edgenet.board.tree import Recorder, check_new
    from edgenet.report.doctor import doctor_document, doctor_text

    if record is not None:
        if tree is not None:
            raise UsageError("--record is for this machine; --tree is recorded already")
        check_new(record)
    if host:
        run_there(_trip(context, split(host), target, record, tree, as_json=as_json))
        return
    chosen = None if target is None else load_target(target)
    with _machine(tree) as (machine, source):
        recorder = Recorder(machine) if record is not None else None
        found = examine(recorder or machine, chosen)
    command = asked_command()
    if as_json:
        print_json(doctor_document(found, source=source, command=command))
    else:
        typer.echo(doctor_text(found, source=source))
    if recorder is not None and record is not None:
        recorder.save(record, board=found.board.name, source="edgenet doctor --record")
        if not from_elsewhere():
            typer.echo(f"recorded: {record}", err=True)


def _trip(
    context: typer.Context,
    hosts: Sequence[str],
    target: str | None,
    record: Path | None,
    tree: str | None,
    *,
    as_json: bool,
) -> Trip:
    """Return what takes the examination to boards."""
    if tree is not None:
        raise UsageError("--tree is a board as files, read here; leave out --host")
    if record is not None and not record.name.endswith(ARCHIVE):
        raise UsageError(f"--record {record}: with --host, end the name of the file in {ARCHIVE}")
    return Trip(
        context=context,
        hosts=hosts,
        as_json=as_json,
        files=target_file(target),
        bring={} if record is None else {"record": record},
    )


@contextmanager
def _machine(tree: str | None) -> Iterator[tuple[Machine, str]]:
    """Give what is examined, and what to call it."""
    from edgenet.board.machine import Machine
    from edgenet.board.tree import open_tree

    if tree is None:
        yield Machine(), "this machine"
        return
    with open_tree(tree) as machine:
        kind = machine.description.kind
        yield machine, f"a {kind} tree, no machine"
