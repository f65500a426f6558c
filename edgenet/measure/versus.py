"""Two bundles against each other on one machine: NEW and BASE take turns in interleaved launches.

For each artefact that both have, and each number of threads, a launch starts two fresh processes,
warms both up and lets them run in turns: short blocks, in an order drawn for each round. Ctrl-C
keeps the launches that are whole. It does not judge: `edgenet.measure.comparison` has the verdicts.
"""

from __future__ import annotations

import platform
import random
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from statistics import median, median_low

import numpy as np

from edgenet.board.detect import Board
from edgenet.board.machine import Machine
from edgenet.board.sensors import Sensors
from edgenet.board.state import State, was_throttled
from edgenet.bundle import Artifact, Bundle
from edgenet.data.sample import Dataset
from edgenet.errors import NotComparable, RuntimeRefused
from edgenet.measure.comparison import Comparison, Pair, interleaved_changes, paired
from edgenet.measure.conditions import joined, of_documents, of_records
from edgenet.measure.evaluate import Evaluation, evaluate
from edgenet.measure.interleaved import InterleavedLaunch, Interleaving
from edgenet.measure.launch import Block, Launch, Opened
from edgenet.measure.process_memory import added_bytes
from edgenet.measure.profile import INTERRUPTED_BEFORE, NULL, Step, shown_images
from edgenet.measure.quality import NO_CLASSIFIER
from edgenet.measure.statistics import BEYOND
from edgenet.measure.stored import Document, Prediction, Record, unmeasured
from edgenet.measure.timing import Rules

LAUNCHES = 7
ROUNDS = 20
"""With five, launches of equal files were seen to scatter three times as far."""
BLOCK_SECONDS = 0.075
"""Longer than a time slice of the scheduler, shorter than most of what neighbours do."""
LEAST_RUNS_A_BLOCK = 3
WARM_UP = Rules(give_up_seconds=1.0)
"""Short: what goes on settling does so for both."""
OTHER_LABELS = "the bundles have other labels"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One bundle, and those of its artefacts that are to run."""

    bundle: Bundle
    artifacts: tuple[Artifact, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long the sides take turns."""

    threads: tuple[int, ...] = (1,)
    """Each pair is measured with each of these."""
    launches: int = LAUNCHES
    rounds: int = ROUNDS
    block_seconds: float = BLOCK_SECONDS
    warm_up: Rules = WARM_UP


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where it is measured."""

    machine: Machine
    board: Board


@dataclass(frozen=True, kw_only=True)
class _Match:
    """One artefact of both sides, with one number of threads."""

    base: Artifact
    new: Artifact
    threads: int

    @property
    def label(self) -> str:
        return f"{self.new.label}, {self.threads} thread{'s' if self.threads > 1 else ''}"


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """One side of a launch, after its warm-up."""

    opened: Opened
    peak_bytes: int | None

    @property
    def added_bytes(self) -> int | None:
        """Return what the artefact added to the process."""
        return added_bytes(self.peak_bytes, self.opened.before_load_bytes)


@dataclass(frozen=True, kw_only=True)
class _Launched:
    """One whole launch."""

    base: _Opened
    new: _Opened
    turns: InterleavedLaunch


@dataclass(frozen=True, kw_only=True, eq=False)
class _Timed:
    """The launches of one match, never none."""

    match: _Match
    launched: tuple[_Launched, ...]
    states: tuple[State, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Setting:
    """What all launches share."""

    bundles: tuple[Bundle, Bundle]
    """BASE and NEW."""
    plan: Plan
    images: Path
    place: Place


class _Outcome:
    """What there is so far."""

    def __init__(self) -> None:
        self.timed: list[_Timed] = []
        self.not_run: dict[_Match, str] = {}
        self.complete = True


def versus(
    base: Side,
    new: Side,
    plan: Plan,
    *,
    dataset: Dataset | None,
    place: Place,
    command: Sequence[str],
    step: Step,
) -> Comparison:
    """Return what changed from `base` to `new`, whole or as far as Ctrl-C let it come.

    The answers are those on `dataset`; bundles that are no classifiers need none. Raises
    `NotComparable` when the sides do not see the same pixels or have no artefact in common,
    `RuntimeRefused` when nothing that they share runs here.
    """
    _check_same_pixels(base.bundle, new.bundle)
    matched, only_base, only_new = _match(base, new)
    matches = [
        _Match(base=before, new=after, threads=threads)
        for threads in plan.threads
        for before, after in matched
    ]
    outcome = _Outcome()
    with shown_images(new.bundle) as (images, pictures):
        setting = _Setting(bundles=(base.bundle, new.bundle), plan=plan, images=images, place=place)
        _time_all(outcome, setting, matches, step)
    if not outcome.timed:
        raise RuntimeRefused("; ".join(dict.fromkeys(outcome.not_run.values())))
    answers = _answers(base.bundle, new.bundle, outcome, dataset, step)
    pairs = tuple(_pair(timed, answers) for timed in outcome.timed)
    documents = [_document(side.bundle, place) for side in (base, new)]
    return Comparison(
        base=documents[0],
        new=documents[1],
        pairs=pairs,
        only_base=tuple(_unmeasured(each, plan.threads[0]) for each in only_base),
        only_new=tuple(_unmeasured(each, plan.threads[0]) for each in only_new),
        conditions=joined(
            [
                of_documents(*documents),
                *(of_records(pair.base, pair.new, ["inference_ms"]) for pair in pairs),
            ]
        ),
        interleaving=Interleaving(
            command=tuple(command),
            launches=plan.launches,
            rounds=plan.rounds,
            block_seconds=plan.block_seconds,
            pictures=pictures,
            complete=outcome.complete,
            not_run=tuple((match.label, reason) for match, reason in outcome.not_run.items()),
        ),
    )


def _check_same_pixels(base: Bundle, new: Bundle) -> None:
    before, after = base.preprocessing, new.preprocessing
    if before.sha256() == after.sha256():
        return
    if before.resolution != after.resolution:
        what = f"resolution {before.resolution} against {after.resolution}"
    else:
        what = f"preprocessing {before.sha256()[:12]} against {after.sha256()[:12]}"
    raise NotComparable(
        f"{base.root} and {new.root} do not see the same pixels: {what}; give two bundles of one "
        "preprocessing, or profile each and hold the records against each other with edgenet "
        "compare --allow-unlike"
    )


def _match(
    base: Side, new: Side
) -> tuple[list[tuple[Artifact, Artifact]], tuple[Artifact, ...], tuple[Artifact, ...]]:
    """Return the artefacts that both have, in NEW's order, and what only one has."""
    before = {_key(artifact): artifact for artifact in base.artifacts}
    after = {_key(artifact): artifact for artifact in new.artifacts}
    matched = [(before[key], after[key]) for key in after if key in before]
    if not matched:
        raise NotComparable(
            f"nothing in common: {base.bundle.root} has {_labels(base)}; "
            f"{new.bundle.root} has {_labels(new)}"
        )
    return (
        matched,
        tuple(before[key] for key in before if key not in after),
        tuple(after[key] for key in after if key not in before),
    )


def _key(artifact: Artifact) -> tuple[str, ...]:
    if artifact.runtime == NULL:  # it stands in for any artefact
        return (NULL,)
    return artifact.runtime, artifact.precision.value, artifact.variant or ""


def _labels(side: Side) -> str:
    return ", ".join(artifact.label for artifact in side.artifacts)


def _time_all(outcome: _Outcome, setting: _Setting, matches: Sequence[_Match], step: Step) -> None:
    """Fill `outcome`; raises `KeyboardInterrupt` when no launch is whole."""
    plan, place = setting.plan, setting.place
    for match in matches:
        if not outcome.complete:
            outcome.not_run[match] = INTERRUPTED_BEFORE
            continue
        done = step(f"{match.label}: launches", total=plan.launches)
        sensors = Sensors(place.machine, place.board.target.sensors)
        launched: list[_Launched] = []
        states = [sensors.read()]
        try:
            for number in range(plan.launches):
                launched.append(_launch(setting, match, number))
                states.append(sensors.read())
                done()
        except RuntimeRefused as error:
            outcome.not_run[match] = str(error)
            continue
        except KeyboardInterrupt:
            if not launched and not outcome.timed:
                raise
            outcome.complete = False
        if launched:
            outcome.timed.append(
                _Timed(match=match, launched=tuple(launched), states=tuple(states))
            )
        else:
            outcome.not_run[match] = INTERRUPTED_BEFORE


def _launch(setting: _Setting, match: _Match, number: int) -> _Launched:
    """Return one launch; raises `KeyboardInterrupt` unless it is whole."""
    draw = random.Random(number)  # the same orders in every comparison, others in every launch
    with ExitStack() as stack:
        sides = [
            stack.enter_context(
                Launch(
                    artifact.runtime,
                    bundle.path(artifact),
                    threads=match.threads,
                    images=setting.images,
                )
            )
            for bundle, artifact in zip(setting.bundles, (match.base, match.new), strict=True)
        ]
        # What is loaded first finds another memory than what comes second.
        opened = {side: sides[side].open() for side in draw.sample((0, 1), 2)}
        rules = setting.plan.warm_up
        warmed = {side: sides[side].warm_up(rules) for side in draw.sample((0, 1), 2)}
        turns = take_turns(sides, setting.plan, draw, threads=match.threads)
    base, new = (_Opened(opened=opened[side], peak_bytes=warmed[side][1]) for side in (0, 1))
    return _Launched(base=base, new=new, turns=turns)


def take_turns(
    sides: Sequence[Launch], plan: Plan, draw: random.Random, *, threads: int
) -> InterleavedLaunch:
    """Return the turns of two open launches, BASE and NEW.

    Raises `KeyboardInterrupt` when that came before all rounds were over.
    """
    rounds: list[tuple[Block, Block]] = []
    for _ in range(plan.rounds):
        taken: dict[int, Block] = {}
        for side in draw.sample((0, 1), 2):
            taken[side] = sides[side].block(runs=LEAST_RUNS_A_BLOCK, seconds=plan.block_seconds)
            if sides[side].interrupted:
                raise KeyboardInterrupt
        rounds.append((taken[0], taken[1]))
    return summed_up(rounds, threads=threads)


def summed_up(rounds: Sequence[tuple[Block, Block]], *, threads: int) -> InterleavedLaunch:
    """Return what the blocks of BASE and NEW tell, round by round."""
    own_ms = [(_own_ms(base, threads), _own_ms(new, threads)) for base, new in rounds]
    known = tuple((base, new) for base, new in own_ms if base is not None and new is not None)
    blocks = [block for both in rounds for block in both]
    waits = [block.waited_ns for block in blocks if block.waited_ns is not None]
    elapsed_ns = sum(block.elapsed_ns for block in blocks)
    return InterleavedLaunch(
        rounds_own_ms=known if 2 * len(known) > len(rounds) else None,
        rounds_p50_ms=tuple((_p50_ms(base), _p50_ms(new)) for base, new in rounds),
        p95_ms=_p95_ms(
            [[ns for both in rounds for ns in both[side].samples_ns] for side in (0, 1)]
        ),
        waited=min(1.0, sum(waits) / (threads * elapsed_ns)) if len(waits) == len(blocks) else None,
    )


def _own_ms(block: Block, threads: int) -> float | None:
    """Return the mean of a block's runs without the waiting; None where that is not known.

    Where several threads compute, each is taken to have waited for an equal part of it.
    """
    if block.waited_ns is None:
        return None
    own_ns = block.elapsed_ns - block.waited_ns / threads
    return own_ns / len(block.samples_ns) / 1e6 if own_ns > 0 else None


def _p50_ms(block: Block) -> float:
    return float(median(block.samples_ns)) / 1e6


def _p95_ms(samples_ns: Sequence[Sequence[int]]) -> tuple[float, float] | None:
    """Return the 95th percentile of each side; None with fewer than ten samples beyond."""
    if min(map(len, samples_ns)) < 20 * BEYOND:
        return None
    base, new = (float(np.percentile(samples, 95)) / 1e6 for samples in samples_ns)
    return base, new


def _answers(
    base: Bundle, new: Bundle, outcome: _Outcome, dataset: Dataset | None, step: Step
) -> tuple[Evaluation, Evaluation] | str:
    """Return the answers of both sides on the same pictures, or why there are none."""
    ran = [timed.match for timed in outcome.timed if timed.match.new.runtime != NULL]
    if not outcome.complete:
        return INTERRUPTED_BEFORE
    if not ran:
        return "nothing is computed"
    if base.labels != new.labels:
        return OTHER_LABELS
    if dataset is None or not base.is_classifier:
        return NO_CLASSIFIER
    done = step(f"answers on {dataset.name}", total=2 * len(dataset.samples))
    before = tuple(dict.fromkeys(match.base for match in ran))
    after = tuple(dict.fromkeys(match.new for match in ran))
    try:
        return (
            evaluate(base, dataset, before, on_sample=done),
            evaluate(new, dataset, after, on_sample=done),
        )
    except KeyboardInterrupt:
        outcome.complete = False
        return INTERRUPTED_BEFORE


def _pair(timed: _Timed, answers: tuple[Evaluation, Evaluation] | str) -> Pair:
    before, after = (None, None) if isinstance(answers, str) else answers
    base = _record(timed.match.base, timed, [each.base for each in timed.launched], before)
    new = _record(timed.match.new, timed, [each.new for each in timed.launched], after)
    turns = tuple(each.turns for each in timed.launched)
    pair = paired(base, new, tuple(interleaved_changes(turns)), turns)
    return replace(pair, accuracy_reason=answers) if isinstance(answers, str) else pair


def _record(
    artifact: Artifact,
    timed: _Timed,
    launches: Sequence[_Opened],
    evaluation: Evaluation | None,
) -> Record:
    """Return what one side is, and answered; its times are in the launches of the pair."""
    opened = launches[0].opened
    peaks = [each.peak_bytes for each in launches if each.peak_bytes is not None]
    added = [each.added_bytes for each in launches if each.added_bytes is not None]
    record = replace(
        _unmeasured(artifact, timed.match.threads),
        device=opened.device,
        runtime_version=opened.version,
        size_bytes=0 if artifact.runtime == NULL else artifact.size_bytes,
        complete=True,
        throttled=was_throttled(timed.states),
        affinity=opened.affinity,
        governor=timed.states[0].governor,
        power_mode=timed.states[0].power_mode,
        peak_rss_bytes=median_low(peaks) if peaks else None,
        added_bytes=median_low(added) if added else None,
    )
    results = evaluation.results if evaluation else ()
    result = next((result for result in results if result.artifact == artifact), None)
    if evaluation is None or result is None:
        return record
    return replace(
        record,
        top1=result.accuracy.top1 if result.accuracy else None,
        agreement=result.agreement.top1 if result.agreement else None,
        predictions=tuple(
            Prediction(image_sha256=picture.image_sha256, accepted=picture.accepted, top=tops[0])
            for picture, tops in zip(evaluation.pictures, result.tops, strict=True)
        ),
    )


def _unmeasured(artifact: Artifact, threads: int) -> Record:
    return unmeasured(
        (artifact.runtime, artifact.precision.value, artifact.variant), threads=threads
    )


def _document(bundle: Bundle, place: Place) -> Document:
    return Document(
        source=str(bundle.root),
        kind="profile",
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        bundle_sha256=bundle.sha256,
        machine=platform.machine(),
        board=place.board.name,
        preprocessing_sha256=bundle.preprocessing.sha256(),
        records=(),
    )
