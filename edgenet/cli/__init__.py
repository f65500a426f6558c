"""The command line: one file a command, which parses, calls one function and prints its result.

Importing this must stay cheap: torch, converters, runtimes and OpenCV are imported inside the
commands that need them.
"""

from __future__ import annotations

import signal
import sys
import traceback
from types import FrameType
from typing import Annotated, Any, cast

import typer

from edgenet import __version__, interruption
from edgenet.cli import (
    camera,
    classify,
    compare,
    convert,
    deploy,
    diagnose,
    doctor,
    evaluate,
    inspect,
    playlist,
    profile,
    summary,
    verify,
)
from edgenet.errors import EdgenetError

# typer.BadParameter is public; the class above it, which every usage fault shares, is not.
_USAGE_FAULT = cast("type[Exception]", typer.BadParameter.__mro__[1])

app = typer.Typer(
    name="edgenet",
    help="Convert image classifiers for edge devices and measure what they really do there.",
    epilog="Add --debug to any command to see the traceback of a failure.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (
    summary,
    convert,
    classify,
    inspect,
    evaluate,
    diagnose,
    verify,
    profile,
    compare,
    doctor,
    camera,
    playlist,
    deploy,
)
for command in COMMANDS:
    name = command.__name__.rpartition(".")[2]
    app.command(name, epilog=command.EXAMPLES)(getattr(command, name))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgenet {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Take the options that stand before a command."""


def main() -> None:
    """Run the command line of this process and exit."""
    interruption.watch()
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; failures become one line on stderr."""
    debug = "--debug" in arguments
    given = [argument for argument in arguments if argument != "--debug"]
    try:
        code = app(
            given or ["--help"],
            prog_name="edgenet",
            standalone_mode=False,
        )
        interruption.check()
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except Exception as error:
        if interruption.happened():  # whatever became of it on its way here
            return _interrupted()
        return _fail(*_told(error), debug=debug and not isinstance(error, _USAGE_FAULT))
    if code == interruption.EXIT_CODE:
        return _interrupted()
    return code if isinstance(code, int) else 0


def _told(error: Exception) -> tuple[str, int]:
    """Return the one line that tells a failure, and the exit code."""
    if isinstance(error, EdgenetError):
        return str(error), error.exit_code
    if isinstance(error, _USAGE_FAULT):
        return _usage_message(error), 2
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}", 1
    return f"bug in edgenet: {type(error).__name__}: {error} (--debug shows where)", 1


def _usage_message(fault: Any) -> str:
    """Return the parser's message as a sentence, and where to read more."""
    context = fault.ctx.command_path if fault.ctx else "edgenet"
    return f"{fault.format_message().rstrip('.')}. See {context} --help."


def _fail(message: str, code: int, *, debug: bool = False) -> int:
    if debug:
        traceback.print_exc()
    print("edgenet: " + " ".join(message.split()), file=sys.stderr)
    return code


def _interrupted() -> int:
    interruption.settle()
    print(interruption.MESSAGE, file=sys.stderr)
    return interruption.EXIT_CODE


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    """Leave through the exception path, so that nothing half written stays behind."""
    raise SystemExit(128 + signal.SIGTERM)
