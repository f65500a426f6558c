"""What commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import typer

from edgenet import interruption
from edgenet.remote.asking import from_elsewhere


def print_json(document: Any) -> None:
    """Print one JSON document on stdout."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


@contextmanager
def stored_after(document: dict[str, Any], path: Path) -> Iterator[None]:
    """Store a measurement once it was printed, even if stdout took no more of it.

    A measurement takes minutes and cannot be had again: neither a full disk nor a closed pipe may
    lose it. Raises `NotWritable`.
    """
    from edgenet.report.saving import save_document

    try:
        yield
    finally:
        save_document(document, path)


def warn(message: str) -> None:
    """Print one line of warning on stderr."""
    typer.echo(f"edgenet: warning: {message}", err=True)


def tell_record(path: Path, *, err: bool = False) -> None:
    """Print where the record is; whoever asked from another machine is told that by their own."""
    if not from_elsewhere():
        typer.echo(f"record: {path}", err=err)


class StepProgress:
    """Steps with their time on stderr: a moving bar on a terminal, a line a step elsewhere.

    Wherever a step begins or a part of it is done, a Ctrl-C that got lost is raised again.
    """

    def __enter__(self) -> StepProgress:
        interruption.check()
        self._bar: Any = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
            )

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, description: str, *, total: int = 1) -> Callable[[], None]:
        """Begin a step of `total` parts; the function returned marks one as done."""
        interruption.check()
        if self._bar is not None:
            task = self._bar.add_task(description, total=total)

            def advance() -> None:
                interruption.check()
                self._bar.advance(task)

            return advance
        started, left = time.monotonic(), total

        def done() -> None:
            nonlocal left
            interruption.check()
            left -= 1
            if left == 0:
                seconds = time.monotonic() - started
                typer.echo(f"{description}: {seconds:.1f} s", err=True)

        return done

    def warn(self, message: str) -> None:
        """Print one line of warning."""
        warn(message)
