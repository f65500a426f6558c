"""`--host` of several commands: the same command on boards over SSH, its results here.

What a command prints is made on the board, by the same functions as here, and passed on as it
comes; a record comes home whole. Files that are named on the command line are the user's, here.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from edgenet import __version__, interruption
from edgenet.cli.output import StepProgress, print_json, warn
from edgenet.errors import BadRecord, EdgenetError, UsageError
from edgenet.remote.asking import asked_command

if TYPE_CHECKING:
    from edgenet.bundle import Bundle
    from edgenet.data.sample import Dataset
    from edgenet.remote.hosts import Board, Ran
    from edgenet.remote.pictures import Parcel
    from edgenet.remote.relay import Errand
    from edgenet.report.hosts import HostResult

HostOption = Annotated[
    list[str] | None,
    typer.Option(
        "--host",
        metavar="HOST",
        help="Run there, over SSH, and bring the results here; repeat it or use commas.",
    ),
]
RECORD = "record.json"
"""What a record is called where the command works on the board."""
SAYS = b"edgenet: "
"""How a line of edgenet's own on stderr begins."""


@dataclass(frozen=True, kw_only=True)
class Trip:
    """A command that goes to boards. Parameters are called as in the command's function."""

    context: typer.Context
    hosts: Sequence[str]
    as_json: bool
    kind: str | None = None
    """Of the record that it brings home; None for what is no measurement."""
    named_after: Bundle | None = None
    """Beside which the record is kept."""
    output: Path | None = None
    """Where the user wants the record."""
    bundles: Mapping[str, Bundle] = field(default_factory=dict)
    """Bundles that must be there, by parameter."""
    pictures: Mapping[str, Dataset] = field(default_factory=dict)
    """Data sets to send, by parameter."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Small files to send, by parameter."""
    bring: Mapping[str, Path] = field(default_factory=dict)
    """Files to bring home besides the record, by parameter."""
    pipes: Mapping[str, BinaryIO] = field(default_factory=dict)
    """Files that are written here as the command goes on, by parameter."""
    instead: Mapping[str, str] = field(default_factory=dict)
    """Other values there, by parameter."""
    drop: Collection[str] = ()
    """Parameters that mean nothing there."""
    stdout_taken: bool = False
    """Whether stdout is for lines that the command prints as it goes on."""
    page: str | None = None
    """Where here the page is to be found, HOST:PORT; None for any port."""


def target_file(target: str | None) -> dict[str, Path]:
    """Return `--target` where it is a file that has to be sent; one that comes along need not be.

    Raises `UsageError` where there is none, `BadTarget` for what a board would refuse.
    """
    from edgenet.board.target import load_target, targets

    if target is None:
        return {}
    load_target(target)
    return {} if target in targets() else {"target": Path(target)}


def run_there(trip: Trip) -> None:
    """Run the command on each host, print and keep what comes of it.

    Raises `typer.Exit` with the board's exit code where there is one host and it is not 0, and
    `EdgenetError` where any of several failed.
    """
    from edgenet.remote.hosts import on_each
    from edgenet.remote.pictures import missing_words, pack

    _refuse_one_file_for_many(trip)
    parcels: dict[str, Parcel] = {}
    for name, dataset in trip.pictures.items():
        with StepProgress() as progress:
            done = progress.step(f"read {dataset.name}", total=len(dataset.samples))
            parcels[name] = pack(dataset, on_sample=done)
        if problem := missing_words(parcels[name]):
            warn(problem)
    tell = _Tell(many=len(trip.hosts) > 1)
    work = _work_of(trip, parcels, tell)
    ran = on_each(trip.hosts, work, failed=tell.failed)
    if len(ran) > 1:
        _finish_many(trip, ran)
    else:
        _finish_one(trip, ran[0])


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What came of the command on one board."""

    status: int
    out: bytes
    """What it printed, where that was not passed on at once."""
    record: Path | None
    """Where it is kept here; None where none was made."""
    brought: tuple[Path, ...]
    """Other files that came home."""


def _work_of(trip: Trip, parcels: Mapping[str, Parcel], tell: _Tell) -> Callable[[Board], _Found]:
    """Return what is done with each board."""

    def work(board: Board) -> _Found:
        from edgenet.remote.relay import Outlets

        if board.installation.version != __version__:
            tell.line(
                board.host,
                f"edgenet {board.installation.version} is there, this is {__version__}; edgenet "
                "deploy brings this one",
            )
        record = _record_here(trip, board.host)
        errand = _errand(trip, board, parcels, record)
        printed: list[bytes] = []
        at_once = not trip.as_json and len(trip.hosts) == 1
        outlets = Outlets(
            out=_print if at_once else printed.append,
            err=_Lines(_with_page(board, trip.page, tell)).take,
        )
        ended = board.relay.run(errand, outlets)
        return _Found(
            status=ended.status,
            out=b"".join(printed),
            record=record if RECORD in ended.brought else None,
            brought=tuple(
                errand.bring[name] for name in errand.bring if name in ended.brought - {RECORD}
            ),
        )

    return work


def _errand(trip: Trip, board: Board, parcels: Mapping[str, Parcel], record: Path | None) -> Errand:
    """Return what one board is to run; sends it the pictures that it lacks."""
    from edgenet.remote.installed import bundle_on
    from edgenet.remote.pictures import send
    from edgenet.remote.relay import Errand

    there: dict[str, str] = {
        **trip.instead,
        **{name: bundle_on(board.installation, bundle) for name, bundle in trip.bundles.items()},
    }
    for name, parcel in parcels.items():
        there[name] = send(parcel, board)
    there |= {name: _plain(name, path) for name, path in trip.files.items()}
    there |= {name: _plain(name, path) for name, path in trip.bring.items()}
    there |= {name: f"{name}.pipe" for name in trip.pipes}
    bring = {_plain(name, path): path for name, path in trip.bring.items()}
    if record is not None:
        there["output"], bring[RECORD] = RECORD, record
    # The document is printed where it is no record, or where it is what stdout is for.
    wants_json = trip.as_json or (trip.kind is None and len(trip.hosts) > 1)
    name = trip.context.command.name or ""
    words = _words(trip.context, instead=there, drop={"host", "as_json", *trip.drop})
    typed = _words(trip.context, instead={}, drop={"host"})
    return Errand(
        words=[name, *words, *(["--json"] if wants_json else [])],
        command=["edgenet", name, *typed, "--host", board.host],
        files={there[name]: path.read_bytes() for name, path in trip.files.items()},
        pipes={there[name]: stream for name, stream in trip.pipes.items()},
        bring=bring,
    )


def _plain(name: str, path: Path) -> str:
    return name + "".join(path.suffixes)


def _words(
    context: typer.Context, *, instead: Mapping[str, str], drop: Collection[str]
) -> list[str]:
    """Return a command line again, with some values changed or added and some parameters left out.

    What was not given is not in it, so that a board's own defaults count.
    """
    words: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        given = source is not None and source.name == "COMMANDLINE"
        if name in drop or not (given or name in instead):
            continue
        value = instead.get(name, context.params.get(name))
        if parameter.param_type_name == "argument":
            words.append(str(value))
            continue
        option = max(parameter.opts, key=len)
        for each in value if isinstance(value, list | tuple) else [value]:
            if each is True:
                words.append(option)
            elif each is not None and each is not False:
                words += [option, _written(each)]
    return words


def _written(value: object) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _refuse_one_file_for_many(trip: Trip) -> None:
    if len(trip.hosts) < 2:
        return
    taken = {"output": trip.output, **trip.bring, **trip.pipes, "view": trip.page}
    for name, value in taken.items():
        if value is not None:
            raise UsageError(
                f"--{name}: one place for the results of {len(trip.hosts)} hosts; leave it out, or "
                "run it for each host by itself"
            )


def _record_here(trip: Trip, host: str) -> Path | None:
    from edgenet.report.saving import check_writable, record_path

    if trip.kind is None or trip.named_after is None:
        return None
    path = trip.output or record_path(trip.named_after, trip.kind, host=host)
    check_writable(path)
    return path


def _finish_one(trip: Trip, ran: Ran[_Found]) -> None:
    from edgenet.report.reading import parse_document

    if ran.failure is not None:
        raise ran.failure
    found = ran.found
    assert found is not None
    if found.record is not None:
        parse_document(found.record.read_bytes(), origin=str(found.record))
    if trip.as_json and found.out:
        parse_document(found.out, origin=ran.host)
        _print(found.out)
    elif not trip.as_json:
        typer.echo(f"host: {ran.host}", err=trip.stdout_taken)
        if found.record is not None:
            typer.echo(f"record: {found.record}", err=trip.stdout_taken)
    for path in found.brought:
        typer.echo(f"recorded: {path}", err=True)
    if found.status:
        raise typer.Exit(found.status)


def _finish_many(trip: Trip, ran: Sequence[Ran[_Found]]) -> None:
    from edgenet.report.hosts import hosts_document, hosts_text

    for each in ran:
        if isinstance(each.failure, UsageError):
            raise each.failure
    results = [_result(each) for each in ran]
    if trip.as_json:
        print_json(hosts_document(results, command=asked_command()))
    else:
        typer.echo(hosts_text(results))
    if any(result.status == interruption.EXIT_CODE for result in results):
        raise typer.Exit(interruption.EXIT_CODE)
    failed = [result.host for result in results if result.status != 0]
    if failed:
        raise EdgenetError(f"{len(failed)} of {len(results)} hosts failed: {', '.join(failed)}")


def _result(ran: Ran[_Found]) -> HostResult:
    """Return what came of one host; a document that is not read here fails that host alone."""
    from edgenet.report.hosts import HostResult
    from edgenet.report.reading import parse_document

    found = ran.found
    if found is None:
        return HostResult(host=ran.host, failure=str(ran.failure))
    document = found.out if found.record is None else found.record.read_bytes()
    try:
        if document:
            parse_document(document, origin=str(found.record or ran.host))
    except BadRecord as error:
        return HostResult(host=ran.host, failure=str(error))
    return HostResult(
        host=ran.host, status=found.status, document=document or None, record=found.record
    )


class _Tell:
    """Lines on stderr from several threads, each of one host."""

    def __init__(self, *, many: bool) -> None:
        self._many = many
        self._printing = threading.Lock()

    def passed_on(self, host: str, line: bytes) -> None:
        """Print a line that a board's command printed on its stderr."""
        text = line.decode(errors="replace")
        if text == interruption.MESSAGE and not self._many:
            return  # it is said here too
        said = text.removeprefix(SAYS.decode())
        if self._many:
            text = f"{host}: {said}"
        elif said != text:
            text = f"edgenet: {host}: {said}"
        with self._printing:
            typer.echo(text, err=True)

    def line(self, host: str, message: str) -> None:
        """Print a line of this end."""
        with self._printing:
            warn(f"{host}: {message}")

    def failed(self, host: str, error: EdgenetError) -> None:
        """Print that a board has dropped out; of a single one it is told at the end."""
        if self._many:
            with self._printing:
                typer.echo(f"edgenet: {host}: dropped out: {error}", err=True)


class _Lines:
    """Makes whole lines of bytes that come as they like."""

    def __init__(self, told: Callable[[bytes], None]) -> None:
        self._told = told
        self._held = b""

    def take(self, data: bytes) -> None:
        """Pass on every line that is whole now."""
        *lines, self._held = (self._held + data).split(b"\n")
        for line in lines:
            self._told(line)


def _with_page(board: Board, page: str | None, tell: _Tell) -> Callable[[bytes], None]:
    """Return what takes a board's lines and leads to a page that one of them tells of."""
    from edgenet.remote.tunnel import led_here

    def take(line: bytes) -> None:
        tell.passed_on(board.host, led_here(line, board.connection, page))

    return take


def _print(data: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
