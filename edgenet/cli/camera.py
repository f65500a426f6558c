"""`edgenet camera`: label a live picture, and say how late each label is."""

from __future__ import annotations

import getpass
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgenet import interruption
from edgenet.cli.hosts import HostOption, Trip, run_there, target_file
from edgenet.cli.options import (
    JsonOption,
    RecordOption,
    TargetOption,
    bundle_path,
    finite,
    precisions,
    runtime_names,
    split,
    thread_counts,
)
from edgenet.cli.output import print_json, stored_after, tell_record, warn
from edgenet.errors import AddressUnavailable, MissingExtra, UsageError
from edgenet.remote.asking import asked_command, from_elsewhere

if TYPE_CHECKING:
    from edgenet.bundle import Bundle
    from edgenet.preprocess import Preprocessing
    from edgenet.stream.delivery import Sink
    from edgenet.stream.drift import Measure
    from edgenet.stream.loading import Loaded
    from edgenet.stream.onlookers import View
    from edgenet.stream.reader import Fault, Opened
    from edgenet.stream.recording import Replay
    from edgenet.stream.result import Result
    from edgenet.stream.run import LiveRun
    from edgenet.stream.truth import Running
    from edgenet.stream.viewer import Viewer
    from edgenet.stream.watch import LiveTruth

EXAMPLES = """\b
Examples:
  edgenet camera
  edgenet camera mobilenet --source 'v4l2:///dev/video0?size=1280x720&fps=30'
  edgenet camera mobilenet --source rtsp://camera/stream --runtime litert
  edgenet camera --on 'tabby=./feed.sh' --mqtt mqtt://user:password@broker/door
  edgenet camera --source synthetic:// --duration 10 --json
  edgenet camera --view 0.0.0.0:8080
  edgenet camera mobilenet --source http://127.0.0.1:8090/ --truth photographs
  edgenet camera mobilenet --source rtsp://camera/stream --shadow
  edgenet camera --record run.tar --duration 60
  edgenet camera mobilenet --replay run.tar --precision float32
  edgenet camera mobilenet --host pi5
"""
STDOUT = "-"
OFF = "off"
HERE_ALONE = {
    "token_file": "the page comes through a tunnel, and needs no token there",
    "window": "opens on this desktop, and the camera would run elsewhere",
    "replay": "labels a recording that is here",
}
"""Options that make no sense with --host, and why."""
FOR_A_SERVICE = (
    *("source", "runtime", "precision", "threads", "crop", "realtime", "on", "mqtt"),
    *("smooth", "unknown", "shadow"),
)
"""Parameters that a camera which runs for ever may be given; where its page is says deploy."""
SHOWN_S = 0.25
"""Between two states of the line on a terminal."""


def camera(
    context: typer.Context,
    bundle: Annotated[
        Path | None,
        typer.Argument(
            metavar="BUNDLE",
            parser=bundle_path,
            show_default=False,
            help="Folder written by edgenet convert. Default: the INT8 ImageNet bundle inside.",
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="0, /dev/video0, v4l2://..., csi://0, rtsp://..., http://..., a file, a folder, "
            "or synthetic://. Default: the first camera found.",
        ),
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="onnxruntime, openvino, litert or tensorrt, or null, which computes nothing; "
            "repeat it or use commas. Default: the first that runs, in the board's order.",
        ),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="float32, float16 or int8; repeat it or separate by commas. Default: int8 first.",
        ),
    ] = None,
    threads: Annotated[str, typer.Option(metavar="N", help="Number of threads.")] = "1",
    crop: Annotated[
        str | None, typer.Option(metavar="X,Y,W,H", help="Watch this region, in pixels.")
    ] = None,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="A file at its own rate; late frames are dropped.")
    ] = False,
    duration: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            metavar="S",
            callback=finite,
            help="End after so many seconds. Default: Ctrl-C.",
        ),
    ] = None,
    events: Annotated[
        str | None,
        typer.Option(metavar="FILE|-", help="A JSON line whenever the label changes."),
    ] = None,
    on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL=COMMAND",
            help="Run a command when the label changes to LABEL ('unknown', '*' for any).",
        ),
    ] = None,
    mqtt: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Publish the label; Home Assistant finds it by itself."),
    ] = None,
    smooth: Annotated[
        str, typer.Option(metavar="N/M", help="The label changes when N of M frames say so.")
    ] = "3/5",
    unknown: Annotated[
        float, typer.Option(metavar="P", help="Softmax below which a frame says 'unknown'.")
    ] = 0.3,
    record: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep frames, times and labels, to replay them."),
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Label the frames of a recording again."),
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="The pictures that edgenet playlist shows to this camera: count what is right.",
        ),
    ] = None,
    clock_offset: Annotated[
        float | None,
        typer.Option(
            metavar="MS",
            callback=finite,
            help="What the clock of the playlist's machine shows more than this one.",
        ),
    ] = None,
    shadow: Annotated[
        bool,
        typer.Option(
            "--shadow",
            help="Hold a frame a second against the bundle's float artefact, on the side: "
            "agreement, and alarms when the stream drifts from the calibration set.",
        ),
    ] = False,
    view: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT|off",
            help="Where the page is; beyond this machine it has a token. Default: 127.0.0.1:8080 "
            "where the extra viewer is installed, but not with --json or --replay.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keeps the page's token; made if it is not there. Default: a new token each time.",
        ),
    ] = None,
    window: Annotated[bool, typer.Option("--window", help="A window on this desktop.")] = False,
    list_cameras: Annotated[
        bool, typer.Option("--list", help="Say which cameras this machine has, and end.")
    ] = False,
    target: TargetOption = None,
    output: RecordOption = None,
    host: HostOption = None,
    as_json: JsonOption = False,
) -> None:
    """Label a live picture: how late each label is, stage by stage, until Ctrl-C.

    Ctrl-C and SIGTERM end it with its summary and exit code 0.
    """
    if host:
        _refuse_what_does_not_fit(source, replay, events, view, as_json=as_json)
        with ExitStack() as files:
            run_there(
                _trip(
                    context,
                    files,
                    hosts=split(host),
                    root=bundle,
                    truth=truth,
                    events=events,
                    record=record,
                    view=view,
                    target=target,
                    output=output,
                    as_json=as_json,
                )
            )
        return
    if list_cameras:
        _list_cameras(as_json=as_json)
        return
    with interruption.ends_well() as stopped, ExitStack() as views:
        _refuse_what_does_not_fit(source, replay, events, view, as_json=as_json)
        if truth is not None and crop is not None:
            raise UsageError("--truth and --crop: the labels are of whole pictures; leave out one")
        if token_file is not None and view == OFF:
            raise UsageError("--token-file is for the page, and --view off has none; leave out one")
        if clock_offset is not None and truth is None:
            raise UsageError("--clock-offset is of a playlist's machine: give --truth too")
        from edgenet.board.detect import detect
        from edgenet.board.machine import Machine
        from edgenet.board.target import load_target
        from edgenet.manifest import load_bundle
        from edgenet.measure.profile import runnable
        from edgenet.report.camera import camera_text
        from edgenet.report.camera_record import camera_document
        from edgenet.report.saving import check_writable, record_path
        from edgenet.stream.events import parse_smoothing
        from edgenet.stream.loading import in_order
        from edgenet.stream.shadow import Sampling, require_reference
        from edgenet.stream.supervision import supervision_of
        from edgenet.stream.watch import Plan, watch

        # First of all: what `--on` starts later must not take itself for this service.
        supervision = supervision_of(os.environ)
        command = _shown_command(asked_command())
        asked = runtime_names(runtime)
        found = load_bundle(bundle or _shipped())
        found.require_classifier("camera")
        if shadow:
            require_reference(found)
        board = detect(Machine(), None if target is None else load_target(target))
        artifacts = in_order(runnable(found, asked, precisions(precision)), board.target)
        path = output or record_path(found, "camera")
        check_writable(path)
        recorded = None if replay is None else _replay_of(replay)
        # The words of the command line are checked before a camera is looked for.
        plan = Plan(
            preprocessing=_watched(found.preprocessing, crop),
            realtime=realtime,
            threads=_threads(threads),
            seconds=duration,
            sinks=_sinks(found, events, on or (), mqtt),
            smoothing=parse_smoothing(smooth, threshold=unknown),
            record=record,
            replay=recorded,
            truth=_live_truth(truth, found, clock_offset),
            shadow=Sampling() if shadow else None,
            source=_source(source) if recorded is None else lambda: recorded,
            views=_open_views(
                views,
                # Programs that read our output, and replays, are not looked at unless asked.
                view or ("off" if as_json or events == STDOUT or replay else None),
                window=window,
                token_file=token_file,
            ),
            supervision=supervision,
        )
        run = watch(found, artifacts, plan, target=board.target, stopped=stopped, told=_Told(found))
        document = camera_document(found, run, board=board, command=command)
        with stored_after(document, path):
            if as_json:
                print_json(document)
            else:
                text = camera_text(run, board=board, command=command)
                typer.echo(text, err=events == STDOUT)
        if not as_json:
            tell_record(path, err=events == STDOUT)
        if run.failure is not None:
            raise run.failure


def check_service_options(options: Sequence[str]) -> None:
    """Raise what the command line would for options that are wrong, or not for a service."""
    from edgenet.cli import app

    command = typer.main.get_group(app).commands["camera"]
    context = command.make_context("camera", list(options))
    for parameter in command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE" and name not in FOR_A_SERVICE:
            told = next(iter(parameter.opts), name) if name != "bundle" else context.params[name]
            raise UsageError(
                f"{told}: is not for a service; it takes "
                + ", ".join(f"--{each}" for each in FOR_A_SERVICE)
            )
    runtime_names(context.params["runtime"])
    precisions(context.params["precision"])


def _refuse_what_does_not_fit(
    source: str | None,
    replay: Path | None,
    events: str | None,
    view: str | None,
    *,
    as_json: bool,
) -> None:
    from edgenet.stream.listening import parse_listening

    if view is not None and view != OFF:
        parse_listening(view, option="--view")
    if as_json and events == STDOUT:
        raise UsageError("--json and --events - both want stdout: give --events a file")
    if replay is not None and source is not None:
        raise UsageError("--replay is a source already; leave out --source")


def _trip(
    context: typer.Context,
    files: ExitStack,
    *,
    hosts: Sequence[str],
    root: Path | None,
    truth: str | None,
    events: str | None,
    record: Path | None,
    view: str | None,
    target: str | None,
    output: Path | None,
    as_json: bool,
) -> Trip:
    """Return what takes the command to boards; `files` closes what is written meanwhile."""
    from edgenet.manifest import load_bundle
    from edgenet.stream.listening import ANY_PORT
    from edgenet.writing import writing

    given = context.params
    for name, why in HERE_ALONE.items():
        if given[name]:
            option = name.replace("_", "-")
            raise UsageError(f"--{option}: {why}; leave out --host")
    listing = given["list_cameras"]
    if len(hosts) > 1 and (listing or events == STDOUT):
        raise UsageError(
            f"--{'list' if listing else 'events -'}: is of one --host; run it for each by itself"
        )
    if listing:
        return Trip(context=context, hosts=hosts, as_json=as_json)
    page = None if view in (None, OFF) else _loopback(view)
    bundle = load_bundle(root or _shipped())
    bundle.require_classifier("camera")
    dataset = None
    if truth is not None:
        from edgenet.data.dataset import open_dataset

        dataset = open_dataset(truth, labelled=True)
    pipes = {}
    if events not in (None, STDOUT):
        with writing(Path(events)):
            pipes["events"] = files.enter_context(Path(events).open("ab"))  # noqa: SIM115
    return Trip(
        context=context,
        hosts=hosts,
        as_json=as_json,
        kind="camera",
        named_after=bundle,
        output=output,
        # Without one, the board's own shipped bundle runs.
        bundles={} if root is None else {"bundle": bundle},
        pictures={} if dataset is None else {"truth": dataset},
        files=target_file(target),
        bring={} if record is None else {"record": record},
        pipes=pipes,
        instead={} if page is None else {"view": ANY_PORT},
        page=page,
        stdout_taken=events == STDOUT,
    )


def _loopback(view: str) -> str:
    """Return an address of this machine alone; the board's page has no token for the network."""
    from edgenet.stream.listening import parse_listening

    if not parse_listening(view, option="--view").is_loopback:
        raise UsageError(
            f"--view {view}: with --host the page comes through a tunnel to this machine alone; "
            "give a port of it, such as 127.0.0.1:8080"
        )
    return view


def _shipped() -> Path:
    from edgenet.bundle import shipped_bundle

    return shipped_bundle()


def _source(uri: str | None) -> str:
    if uri is None:
        from edgenet.stream.cameras import first_camera

        return first_camera()
    from edgenet.stream.address import parse_address
    from edgenet.stream.v4l2_device import describe_device

    address = parse_address(uri)
    if address.kind == "v4l2":
        describe_device(address.target)  # one that is not there is told before there is a page
    return uri


def _replay_of(path: Path) -> Replay:
    from edgenet.stream.recording import Recording, Replay

    return Replay(Recording(path))


def _threads(text: str) -> int:
    counts = thread_counts([text])
    if len(counts) > 1:
        raise UsageError(f"--threads {text}: a camera has one number of threads")
    return counts[0]


def _list_cameras(*, as_json: bool) -> None:
    """Print which cameras there are, and what stands in their way."""
    from edgenet.report.cameras import cameras_document, cameras_text
    from edgenet.stream.cameras import find_cameras

    found = find_cameras()
    if as_json:
        print_json(cameras_document(found, command=asked_command()))
    else:
        typer.echo(cameras_text(found))


def _live_truth(data: str | None, bundle: Bundle, clock_offset: float | None) -> LiveTruth:
    from edgenet.stream.watch import LiveTruth

    if data is None:
        return LiveTruth()
    from edgenet.data.dataset import open_dataset
    from edgenet.stream.playlist import playlist_of
    from edgenet.stream.truth import Truth

    playlist = playlist_of(open_dataset(data, labelled=True))
    return LiveTruth(Truth(playlist, bundle, clock_offset_ms=clock_offset))


def _open_views(
    stack: ExitStack, address: str | None, *, window: bool, token_file: Path | None
) -> list[View]:
    """Return the page and the window, open until `stack` closes, and tell where they are.

    A page that was asked for must be there; the one that is there by itself need not.
    """
    views: list[View] = []
    if address != OFF:
        viewer = _viewer(stack, address, token_file)
        if viewer is not None:
            views.append(viewer)
            _tell_page(viewer, token_file)
    if window:
        from edgenet.stream.window import Window

        shown = stack.enter_context(Window())
        if shown.fault is None:
            views.append(shown)
        else:
            warn(shown.fault)
    return views


def _viewer(stack: ExitStack, address: str | None, token_file: Path | None) -> Viewer | None:
    from edgenet.stream.listening import ANY_PORT
    from edgenet.stream.viewer import DEFAULT, Viewer
    from edgenet.stream.viewer.token import kept_token

    token = None if token_file is None else kept_token(token_file)
    try:
        # Who looks from another machine does so through a tunnel, whatever the port.
        usual = ANY_PORT if from_elsewhere() else DEFAULT
        return stack.enter_context(Viewer(address or usual, token=token))
    except MissingExtra as error:
        if address is not None:
            raise
        typer.echo(f"no page: {error}", err=True)
    except AddressUnavailable as error:
        if address is not None:
            raise
        warn(f"no page: {error}")
    return None


def _tell_page(viewer: Viewer, token_file: Path | None) -> None:
    if token_file is not None:
        # Logs are read by more people than may see the page.
        for address in viewer.addresses:
            typer.echo(f"page: {address}, with ?token= and what is in {token_file}", err=True)
        return
    for url in viewer.urls:
        typer.echo(f"page: {url}", err=True)
    if viewer.on_network:
        from edgenet.stream.viewer.qr import qr_code

        if sys.stderr.isatty():
            typer.echo(qr_code(viewer.urls[0], coloured=True), err=True)
    elif "SSH_CONNECTION" in os.environ and not from_elsewhere():
        port = viewer.urls[0].rstrip("/").rpartition(":")[2]
        typer.echo(
            f"  from your own machine: ssh -L {port}:127.0.0.1:{port} {getpass.getuser()}@"
            f"{socket.gethostname()}, or --view 0.0.0.0:{port} for the whole network",
            err=True,
        )


def _watched(preprocessing: Preprocessing, crop: str | None) -> Preprocessing:
    if crop is None:
        return preprocessing
    sides = crop.split(",")
    if len(sides) != 4 or not all(side.strip().isdecimal() for side in sides):
        raise UsageError(f"--crop {crop}: give x,y,width,height in pixels, such as 0,0,320,240")
    x, y, width, height = map(int, sides)
    if min(width, height) < 1:
        raise UsageError(f"--crop {crop}: width and height are 1 or more")
    return replace(preprocessing, crop=(x, y, width, height))


def _sinks(
    bundle: Bundle, events: str | None, on: Sequence[str], mqtt: str | None
) -> list[Callable[[], Sink]]:
    """Return what opens each way out, the words of each checked."""
    from edgenet.stream.actions import Actions, parse_rule
    from edgenet.stream.delivery import EventLines
    from edgenet.stream.mqtt import Mqtt, parse_broker

    sinks: list[Callable[[], Sink]] = []
    if events is not None:
        sinks.append(lambda: EventLines(events))
    if on:
        rules = [parse_rule(text, bundle.labels) for text in on]
        sinks.append(lambda: Actions(rules))
    if mqtt is not None:
        broker = parse_broker(mqtt)
        sinks.append(lambda: Mqtt(broker, model=bundle.name))
    return sinks


def _shown_command(command: Sequence[str]) -> list[str]:
    """Return the command that reproduces a run, without the passwords in its URLs."""
    from edgenet.stream.address import shown
    from edgenet.stream.mqtt import shown_broker

    def safe(word: str) -> str:
        name, equals, value = word.partition("=")
        if name.startswith("--") and equals:
            return f"{name}={safe(value)}"
        return shown_broker(shown(word))

    return [safe(word) for word in command]


class _Told:
    """Tells on stderr how it goes: a line that moves on a terminal, single lines elsewhere."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._line = sys.stderr.isatty()
        self._shown_at = 0.0

    def begun(self, loaded: Loaded, source: Opened) -> None:
        """Tell what runs, and what comes."""
        from edgenet.report.camera import delivered_words

        for artifact, reason in loaded.not_run:
            self._say(f"{artifact.label} does not run here: {reason}")
        self._say(f"{self._bundle.name}, {loaded.artifact.label} on {loaded.session.device}")
        self._say(f"{source.name}: {delivered_words(source.delivered)}; Ctrl-C ends it")

    def went_on(self, live: LiveRun, result: Result | None, running: Running | None) -> None:
        """Move the line, if there is one."""
        if not self._line or result is None or time.monotonic() < self._shown_at + SHOWN_S:
            return
        from edgenet.report.truth import running_line

        self._shown_at = time.monotonic()
        best = result.guesses[0]
        rate = live.latencies.labelled_per_second()
        self._write(
            f"{best.label[:40]:40} {100 * best.probability:3.0f} %  "
            f"age {result.age_ms:5.0f} ms ({result.clock.value})  "
            + ("" if rate is None else f"{rate:5.1f}/s")
            + ("" if running is None else f"  {running_line(running)}")
        )

    def failed(self, fault: Fault) -> None:
        """Tell a fault when it happens."""
        self._say(f"{fault.kind.value}: {fault.message}")

    def alarmed(self, measure: Measure) -> None:
        """Tell that the stream has drifted, when it is first seen."""
        from edgenet.report.shadow import alarm_words

        self._say(f"alarm: {alarm_words(measure, self._bundle.labels)}")

    def _say(self, text: str) -> None:
        if self._shown_at:
            self._write("")
        typer.echo(text, err=True)

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
