"""`edgenet profile`: how fast every artefact of a bundle is on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgenet.cli.against import Asked, profile_against, refuse_what_does_not_fit
from edgenet.cli.hosts import HostOption, Trip, run_there, target_file
from edgenet.cli.options import (
    BundleArgument,
    JsonOption,
    PrecisionOption,
    RecordOption,
    TargetOption,
    bundle_path,
    finite,
    precisions,
    runtime_names,
    split,
    thread_counts,
)
from edgenet.cli.output import StepProgress, print_json, stored_after, tell_record
from edgenet.errors import EdgenetError, RuntimeRefused, UsageError
from edgenet.remote.asking import asked_command

if TYPE_CHECKING:
    from edgenet.bundle import Bundle
    from edgenet.data.sample import Dataset
    from edgenet.measure.evaluate import Evaluation
    from edgenet.measure.profile import Plan, Profile

EXAMPLES = """\b
Examples:
  edgenet profile mobilenet
  edgenet profile mobilenet --quick --precision int8
  edgenet profile mobilenet --threads 1,2,4 --paced 15 -o pi5.json
  edgenet profile mobilenet --runtime litert --layers all
  edgenet profile mobilenet --runtime null
  edgenet profile new --against base --runtime litert --launches 10
  edgenet profile mobilenet --quick --host pi4 --host pi5
"""
FEW_PICTURES, MANY_PICTURES = 100, 1000
"""How many labelled pictures stand behind the accuracy, quick and not."""
NOT_EVALUATED = "interrupted before all pictures were shown"


class LayerDetail(str, Enum):
    """How much is said about layers."""

    OFF = "off"
    WORST = "worst"
    ALL = "all"


def profile(
    context: typer.Context,
    bundle: BundleArgument,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="BASE",
            parser=bundle_path,
            help="Another bundle, to hold BUNDLE against: both run by turns, in many launches.",
        ),
    ] = None,
    launches: Annotated[
        int | None,
        typer.Option(
            min=5, max=1000, metavar="N", help="Of each pair, with --against. Default: 7."
        ),
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="onnxruntime, openvino, litert or tensorrt, or null, which computes nothing and "
            "shows the floor of the measurement; repeat it or use commas. Default: all but null.",
        ),
    ] = None,
    precision: PrecisionOption = None,
    threads: Annotated[
        list[str] | None, typer.Option(metavar="N,M", help="Numbers of threads. Default: 1.")
    ] = None,
    paced: Annotated[
        float,
        typer.Option(min=0.1, max=1000, metavar="FPS", callback=finite, help="Rate of the camera."),
    ] = 30.0,
    duration: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=3600,
            metavar="S",
            callback=finite,
            help="Seconds of each kind of load. Default: 10.",
        ),
    ] = None,
    soak: Annotated[
        int | None,
        typer.Option(
            min=2, max=1440, metavar="MIN", help="Go on at the paced rate; first and last minute."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="50 runs and 2 s each; not for figures to publish.")
    ] = False,
    layers: Annotated[
        LayerDetail,
        typer.Option(help="Time of the layers: off, the worst three, or a table of all."),
    ] = LayerDetail.WORST,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|DIR|CSV",
            help="Labelled pictures for the accuracy beside the latency. Default: what fits "
            "built-in weights, else the golden pictures of the bundle.",
        ),
    ] = None,
    target: TargetOption = None,
    output: RecordOption = None,
    host: HostOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure load, first inference, back-to-back and paced latency, memory and layers.

    Each artefact runs in a process of its own. Ctrl-C keeps what was measured. With --against, the
    artefacts of two bundles take turns, and the report is of what differs.
    """
    refuse_what_does_not_fit(context, against)
    asked_for = Asked(
        new=bundle,
        runtimes=runtime_names(runtime),
        precisions=precisions(precision),
        data=data,
        target=target,
        output=output,
        as_json=as_json,
    )
    if host:
        run_there(_trip(context, split(host), asked_for, against, quick=quick))
        return
    if against is not None:
        from edgenet.measure import versus

        turns = versus.Plan(threads=thread_counts(threads), launches=launches or versus.LAUNCHES)
        profile_against(asked_for, against, turns)
        return

    from edgenet.board.detect import detect
    from edgenet.board.machine import Machine
    from edgenet.board.target import load_target
    from edgenet.data.dataset import open_dataset
    from edgenet.manifest import load_bundle
    from edgenet.measure import profile as measure
    from edgenet.report.profile import profile_text
    from edgenet.report.profile_record import profile_document
    from edgenet.report.saving import check_writable, record_path

    command = asked_command()
    asked = runtime_names(runtime)
    found = load_bundle(bundle)
    artifacts = measure.runnable(found, asked, precisions(precision))
    plan = _plan(thread_counts(threads), paced, duration, soak, layers, quick=quick)
    if data is not None:
        found.require_classifier("--data")
    dataset = None if data is None else open_dataset(data, labelled=True)
    path = output or record_path(found, "profile")
    check_writable(path)
    machine = Machine()
    board = detect(machine, None if target is None else load_target(target))
    with StepProgress() as progress:
        result = measure.profile(
            found, artifacts, plan, machine=machine, board=board, step=progress.step
        )
        result, answers, problem = _with_answers(found, result, dataset, progress)
    document = profile_document(found, result, answers, board=board, command=command)
    every = layers is LayerDetail.ALL
    with stored_after(document, path):
        if as_json:
            print_json(document)
        else:
            text = profile_text(
                found, result, answers, board=board, command=command, every_layer=every
            )
            typer.echo(text)
    if not as_json:
        tell_record(path)
    if problem is not None:
        raise problem
    refused = [artifact.label for artifact, _ in result.not_run if artifact.asked_for_as in asked]
    if refused:
        raise RuntimeRefused(f"{', '.join(refused)}: asked for, and did not run; see above")


def _trip(
    context: typer.Context, hosts: Sequence[str], asked: Asked, against: Path | None, *, quick: bool
) -> Trip:
    """Return what takes a profile to boards, with the pictures that it would show here."""
    from edgenet.manifest import load_bundle

    if against is not None and len(hosts) > 1:
        raise UsageError("--against compares on one --host; run it for each by itself")
    bundle = load_bundle(asked.new)
    dataset = _pictures_to_send(bundle, asked)
    count = MANY_PICTURES if against is not None or not quick else FEW_PICTURES
    return Trip(
        context=context,
        hosts=hosts,
        as_json=asked.as_json,
        kind="profile" if against is None else "comparison",
        named_after=bundle,
        output=asked.output,
        bundles={
            "bundle": bundle,
            **({} if against is None else {"against": load_bundle(against)}),
        },
        pictures={} if dataset is None else {"data": dataset.draw(count, seed=0)},
        files=target_file(asked.target),
    )


def _pictures_to_send(bundle: Bundle, asked: Asked) -> Dataset | None:
    """Return the labelled pictures of a profile, where it shows any; golden ones are there."""
    from edgenet.data.dataset import open_dataset
    from edgenet.measure.profile import NULL
    from edgenet.measure.quality import pictures_for

    if asked.data is not None:
        bundle.require_classifier("--data")
        return open_dataset(asked.data, labelled=True)
    if not bundle.is_classifier or asked.runtimes == (NULL,):
        return None
    fitting = pictures_for(bundle)
    return fitting if fitting.samples[0].labels else None


def _plan(
    threads: tuple[int, ...],
    paced: float,
    duration: float | None,
    soak: int | None,
    layers: LayerDetail,
    *,
    quick: bool,
) -> Plan:
    from edgenet.measure.profile import Plan
    from edgenet.measure.timing import PUBLISHED, QUICK

    rules = QUICK if quick else PUBLISHED
    return Plan(
        threads=threads,
        frames_per_second=paced,
        rules=rules if duration is None else replace(rules, seconds=duration),
        # What is timed for less than the rules ask is quick, whatever it was called.
        quick=quick or (duration is not None and duration < PUBLISHED.seconds),
        soak_minutes=soak or 0,
        layers=layers is not LayerDetail.OFF,
    )


def _with_answers(
    bundle: Bundle, profile: Profile, dataset: Dataset | None, progress: StepProgress
) -> tuple[Profile, Evaluation | str, BaseException | None]:
    """Return the profile, what its artefacts' answers are worth, and what to raise in the end.

    What was measured is written down whatever becomes of the pictures; hence nothing is raised yet.
    """
    if not profile.complete:
        return profile, NOT_EVALUATED, KeyboardInterrupt()
    try:
        return profile, _evaluate(bundle, profile, dataset, progress), None
    except (EdgenetError, KeyboardInterrupt) as error:
        return replace(profile, complete=False), str(error) or NOT_EVALUATED, error


def _evaluate(
    bundle: Bundle, profile: Profile, dataset: Dataset | None, progress: StepProgress
) -> Evaluation | str:
    """Return what the answers of the artefacts that ran are worth, or why that is not known."""
    from edgenet.measure.evaluate import evaluate
    from edgenet.measure.profile import NOTHING_COMPUTED, NULL
    from edgenet.measure.quality import NO_CLASSIFIER, pictures_for

    ran = dict.fromkeys(each.artifact for each in profile.measured if each.artifact.runtime != NULL)
    if not ran:
        return NOTHING_COMPUTED
    if not bundle.is_classifier:
        return NO_CLASSIFIER
    dataset = (dataset or pictures_for(bundle)).draw(
        FEW_PICTURES if profile.plan.quick else MANY_PICTURES, seed=0
    )
    done = progress.step(f"answers on {dataset.name}", total=len(dataset.samples))
    return evaluate(bundle, dataset, tuple(ran), on_sample=done)
