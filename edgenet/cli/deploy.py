"""`edgenet deploy`: a bundle, and what runs it, to a board over SSH."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgenet.cli.options import (
    JsonOption,
    PrecisionOption,
    TargetOption,
    bundle_path,
    precisions,
    runtime_names,
    split,
)
from edgenet.cli.output import StepProgress, print_json, warn
from edgenet.errors import EdgenetError, UsageError
from edgenet.remote.asking import asked_command

if TYPE_CHECKING:
    from edgenet.bundle import Bundle
    from edgenet.remote.deploy import Deployment, Wishes
    from edgenet.remote.service import ServiceWishes

EXAMPLES = """\b
Examples:
  edgenet deploy mobilenet --host pi@raspberrypi
  edgenet deploy mobilenet --host kitchen --host hall --runtime litert --precision int8
  edgenet deploy mobilenet --host pi5 --offline --json
  edgenet deploy mobilenet --host pi5 --service --view 0.0.0.0:8080
  edgenet deploy mobilenet --host pi5 --service -- --source csi://0
  edgenet deploy --host pi5 --uninstall
"""
NOTHING = "nothing was there"


def deploy(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            metavar="BUNDLE", parser=bundle_path, help="Folder written by edgenet convert."
        ),
    ] = None,
    camera_options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- OPTION", help="With --service: further options of edgenet camera."
        ),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST", help="A board, as ssh knows it; repeat it or use commas. Needed."
        ),
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="onnxruntime, openvino, litert. Default: the first that the board can have.",
        ),
    ] = None,
    precision: PrecisionOption = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Carry wheels along; the board fetches nothing.")
    ] = False,
    service: Annotated[
        bool,
        typer.Option(
            "--service",
            help="As a camera that starts at power-on; needs root there, in /opt and systemd.",
        ),
    ] = False,
    view: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where the service's page is. Default: 127.0.0.1:8080 there, through a tunnel.",
        ),
    ] = None,
    uninstall: Annotated[
        bool, typer.Option("--uninstall", help="Remove all that was deployed, and the service.")
    ] = False,
    target: TargetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a bundle and the light runner on boards, in the user's home, and verify it there.

    Only what is missing is sent. Nothing but --service needs root. What was there stays in use
    until the new is whole; after a lost connection, run it again.
    """
    from edgenet.board.target import load_target
    from edgenet.manifest import load_bundle
    from edgenet.remote.deploy import Wishes

    hosts = split(host)
    if not hosts:
        raise UsageError("--host is missing: which board? Give what ssh understands, as pi@pi5")
    wishes = Wishes(
        runtimes=runtime_names(runtime),
        precisions=precisions(precision),
        offline=offline,
        target=None if target is None else load_target(target),
        service=_service(view, camera_options or [], wanted=service),
    )
    if uninstall:
        _uninstall(hosts, wishes)
        return
    if bundle is None:
        raise UsageError("BUNDLE is missing: give a folder written by edgenet convert")
    _deploy(load_bundle(bundle), hosts, wishes, as_json=as_json)


def _service(view: str | None, options: list[str], *, wanted: bool) -> ServiceWishes | None:
    if not wanted:
        if view is not None or options:
            given = f"--view {view}" if view is not None else options[0]
            raise UsageError(f"{given}: is for a camera that starts at power-on; add --service")
        return None
    from edgenet.cli.camera import check_service_options
    from edgenet.remote.service import service_wishes
    from edgenet.stream.viewer import DEFAULT

    check_service_options(options)
    return service_wishes(view or DEFAULT, options)


def _deploy(bundle: Bundle, hosts: tuple[str, ...], wishes: Wishes, *, as_json: bool) -> None:
    from edgenet.report.deployment import deployment_text, deployments_document, failure_line

    deployments: list[Deployment] = []
    failures: dict[str, EdgenetError] = {}
    for name in hosts:
        try:
            deployments.append(_to_one(bundle, name, wishes))
        except EdgenetError as error:
            if len(hosts) == 1:
                raise
            failures[name] = error
            typer.echo(f"edgenet: {error}", err=True)
            continue
        if not as_json:
            typer.echo(deployment_text(deployments[-1]))
    if as_json:
        told = {name: str(error) for name, error in failures.items()}
        command = asked_command()
        print_json(deployments_document(bundle, deployments, told, command=command))
    if failures:
        raise EdgenetError(f"not deployed to {', '.join(failures)}: see above")
    if not all(deployed.holds for deployed in deployments):
        raise EdgenetError(failure_line(deployments))


def _to_one(bundle: Bundle, host: str, wishes: Wishes) -> Deployment:
    from edgenet.remote.deploy import deploy as run
    from edgenet.remote.ssh import connect

    started = time.monotonic()
    with connect(host) as connection, StepProgress() as progress:
        connecting_s = time.monotonic() - started
        return run(connection, bundle, wishes, progress, connecting_s=connecting_s)


def _uninstall(hosts: tuple[str, ...], wishes: Wishes) -> None:
    from edgenet.remote.deploy import uninstall
    from edgenet.remote.ssh import connect

    for name in hosts:
        with connect(name) as connection:
            removed = uninstall(connection, wishes, tell=warn)
        typer.echo(f"{name}: " + (f"removed {', '.join(removed)}" if removed else NOTHING))
