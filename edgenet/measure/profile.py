"""A profile: every artefact of a bundle timed by the same rules, each in a process of its own.

In that process one artefact is loaded, answers once, warms up, runs back to back and then at a
camera's rate. The parent meanwhile only reads sensors. Ctrl-C keeps what is there and marks it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from edgenet.board.detect import Board
from edgenet.board.machine import Machine
from edgenet.board.sampling import Energy, board_sampler, energy, mean_power_w, why_no_energy
from edgenet.board.sensors import power_sensors
from edgenet.board.state import READINGS, State, was_throttled
from edgenet.board.target import Target
from edgenet.bundle import Artifact, Bundle, Precision
from edgenet.errors import RuntimeRefused
from edgenet.golden import prepare_pictures
from edgenet.measure.launch import Launch, Opened
from edgenet.measure.layer_profile import Layers, profile_layers, with_limits
from edgenet.measure.peaks import Peaks, measure_peaks
from edgenet.measure.timing import PUBLISHED, Paced, Rules, WarmUp

Step = Callable[..., Callable[[], None]]
"""Begins a step of the work, as `step(description, total=n)`; what it returns marks a part done."""

NULL = "null"
SYNTHETIC = "noise"
IDLE_SECONDS = 2.0
"""For how long the board's power is read before anything runs."""
OPERATOR_RUNS = 30
QUICK_OPERATOR_RUNS = 20
SOAK_SECONDS = 60.0
INTERRUPTED = "interrupted"
INTERRUPTED_BEFORE = "interrupted before"
NOTHING_COMPUTED = "nothing is computed"
NO_LAYERS = "not asked for"
UNKNOWN_LAYERS = "the manifest, older than 1.2, does not name the layers; convert the model again"
NO_PEAK = "interrupted before the peak was measured"
EMULATED = "an emulated machine's peak is that of nothing"
NO_STATE = State(unknown=dict.fromkeys(READINGS, "no reading of the sensors ended in time"))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured of each artefact."""

    threads: tuple[int, ...] = (1,)
    """Each artefact is measured with each of these."""
    frames_per_second: float = 30.0
    """The camera's rate."""
    rules: Rules = PUBLISHED
    quick: bool = False
    """Whether the rules are too short for a figure that is published."""
    soak_minutes: int = 0
    layers: bool = True
    """Whether the time of each layer is measured, in a launch of its own."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Resident memory of the process that holds one artefact; None where the system tells none."""

    before_load_bytes: int | None
    """Python, numpy and the pictures."""
    peak_bytes: int | None
    """The most until the end of the warm-up; nothing is allocated after it."""


@dataclass(frozen=True, kw_only=True)
class InferenceEnergy:
    """What the board took while one artefact ran back to back."""

    window: Energy
    runs: int
    idle_w: float | None
    source: str
    """Which rails or domain this is of."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """One artefact with one number of threads, in one launch."""

    artifact: Artifact
    threads: int
    opened: Opened
    warm_up: WarmUp
    memory: Memory
    back_to_back_ns: Sequence[int]
    waited_share: float | None
    """Of the time back to back, for how much of it the threads, added up, were ready to run and
    others had the processor; None where the kernel does not count that."""
    paced: Paced | None
    """None when it was interrupted before."""
    soak: tuple[Paced, ...]
    """Minute by minute; the last is no whole one where it was interrupted."""
    before: State
    during: tuple[State, ...]
    after: State
    sensor_problems: tuple[str, ...]
    energy: InferenceEnergy | str
    """Or why there is none."""
    layers: Layers | str
    """Or why there are none."""
    complete: bool
    """False when it was interrupted: what is there is right, but less than was asked for."""

    @property
    def throttled(self) -> bool | None:
        """Tell whether the board was slowed down meanwhile; None where it cannot say."""
        return was_throttled((self.before, *self.during, self.after))


@dataclass(frozen=True, kw_only=True, eq=False)
class Profile:
    """What was measured of a bundle on this machine."""

    plan: Plan
    pictures: str
    """What the artefacts were shown while they were timed."""
    measured: tuple[Measured, ...]
    not_run: tuple[tuple[Artifact, str], ...]
    """Artefacts that cannot run here, each with the reason."""
    peaks: tuple[Peaks, ...]
    """For each number of threads; empty where no layers were asked for."""
    idle_w: float | None
    complete: bool


def profile(
    bundle: Bundle,
    artifacts: Sequence[Artifact],
    plan: Plan,
    *,
    machine: Machine,
    board: Board,
    step: Step,
) -> Profile:
    """Return the profile of `artifacts` by `plan`, whole or as far as Ctrl-C let it come.

    Raises `RuntimeRefused` when no artefact can run here.
    """
    outcome = _Outcome()
    with shown_images(bundle) as (images, pictures):
        setting = _Setting(
            bundle=bundle,
            plan=plan,
            images=images,
            machine=machine,
            target=board.target,
            limited=plan.layers
            and bool(bundle.layers)
            and not board.emulated
            and any(each.runtime != NULL for each in artifacts),
            idle_w=_idle_power(machine, board.target),
        )
        try:
            for threads in plan.threads:
                _measure_all(outcome, setting, artifacts, threads, step)
            complete = True
        except KeyboardInterrupt:
            if not outcome.measured:
                raise
            complete = False
            begun = {each.artifact for each in outcome.measured}
            for artifact in artifacts:
                if artifact not in begun:
                    outcome.not_run.setdefault(artifact, INTERRUPTED_BEFORE)
    if not outcome.measured:
        raise RuntimeRefused("; ".join(dict.fromkeys(outcome.not_run.values())))
    return Profile(
        plan=plan,
        pictures=pictures,
        measured=tuple(
            _with_limits(each, bundle, outcome.peaks, emulated=board.emulated)
            for each in outcome.measured
        ),
        not_run=tuple(outcome.not_run.items()),
        peaks=tuple(outcome.peaks.values()),
        idle_w=setting.idle_w,
        complete=complete,
    )


def runnable(
    bundle: Bundle, runtimes: tuple[str, ...], precisions: tuple[Precision, ...]
) -> tuple[Artifact, ...]:
    """Return what `Bundle.select` does, and for `null` a stand-in for the bundle's first artefact.

    The null runtime is only there where it is asked for.
    """
    others = tuple(name for name in runtimes if name != NULL)
    chosen = bundle.select(others, precisions) if others or not runtimes else ()
    return (*chosen, *((null_artifact(bundle),) if NULL in runtimes else ()))


def null_artifact(bundle: Bundle) -> Artifact:
    """Return what the null runtime loads: the first artefact, of which it reads nothing."""
    return replace(bundle.artifacts[0], runtime=NULL, variant=None)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Setting:
    """What all launches of one profile share."""

    bundle: Bundle
    plan: Plan
    images: Path
    machine: Machine
    target: Target
    limited: bool
    """Whether layers are held against the machine's peak; an emulated machine has none."""
    idle_w: float | None


class _Outcome:
    """What there is so far."""

    def __init__(self) -> None:
        self.measured: list[Measured] = []
        self.not_run: dict[Artifact, str] = {}
        self.peaks: dict[int, Peaks] = {}


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


@contextmanager
def shown_images(bundle: Bundle) -> Iterator[tuple[Path, str]]:
    """Give a .npy file of what artefacts are shown, and what that is, in words."""
    if bundle.golden is not None:
        pictures = np.concatenate(
            prepare_pictures(bundle.root, bundle.golden.images, bundle.preprocessing)
        )
        name = "golden pictures"
    else:
        side = bundle.model.resolution
        pictures = np.random.default_rng(0).integers(0, 256, (4, side, side, 3), np.uint8)
        name = SYNTHETIC
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        np.save(path, pictures)
        yield path, name


def _idle_power(machine: Machine, target: Target) -> float | None:
    if not power_sensors(target):
        return None
    with board_sampler(machine, target) as sampler:
        time.sleep(IDLE_SECONDS)
    return mean_power_w(sampler.power_samples)


def _measure_all(
    outcome: _Outcome, setting: _Setting, artifacts: Sequence[Artifact], threads: int, step: Step
) -> None:
    """Measure every artefact, and the machine's peak before and after: its best moment counts."""
    if setting.limited:
        outcome.peaks[threads] = _peaks(threads, step)
    for artifact in artifacts:
        done = step(f"{artifact.label}, {_threads(threads)}")
        _try(outcome, setting, artifact, threads)
        done()
    if setting.limited:
        outcome.peaks[threads] = outcome.peaks[threads].or_better(_peaks(threads, step))


def _peaks(threads: int, step: Step) -> Peaks:
    done = step(f"this machine's peak, {_threads(threads)}")
    found = measure_peaks(threads)
    done()
    return found


def _try(outcome: _Outcome, setting: _Setting, artifact: Artifact, threads: int) -> None:
    """Measure one artefact; raises `KeyboardInterrupt` after keeping what was interrupted."""
    try:
        found = _measure(setting, artifact, threads)
    except RuntimeRefused as error:
        outcome.not_run[artifact] = str(error)
        return
    if setting.plan.layers:
        found = replace(found, layers=_layers(setting, found) if found.complete else INTERRUPTED)
    outcome.measured.append(found)
    if not found.complete or found.layers == INTERRUPTED:
        raise KeyboardInterrupt


def _measure(setting: _Setting, artifact: Artifact, threads: int) -> Measured:
    plan, path = setting.plan, setting.bundle.path(artifact)
    with (
        board_sampler(setting.machine, setting.target) as sampler,
        Launch(artifact.runtime, path, threads=threads, images=setting.images) as launch,
    ):
        opened = launch.open()
        warm_up, peak = launch.warm_up(plan.rules)
        started_ns = time.monotonic_ns()
        block = launch.block(runs=plan.rules.runs, seconds=plan.rules.seconds)
        ended_ns = time.monotonic_ns()
        paced = None
        if not launch.interrupted:
            paced = launch.paced(
                plan.frames_per_second, runs=plan.rules.runs, seconds=plan.rules.seconds
            )
        soak = tuple(_soak(launch, plan))
    states = tuple(sample.state for sample in sampler.samples) or (NO_STATE,)
    window = energy(sampler.power_samples, started_ns, ended_ns, idle_power_w=setting.idle_w)
    return Measured(
        artifact=artifact,
        threads=threads,
        opened=opened,
        warm_up=warm_up,
        memory=Memory(before_load_bytes=opened.before_load_bytes, peak_bytes=peak),
        back_to_back_ns=block.samples_ns,
        waited_share=None if block.waited_ns is None else block.waited_ns / block.elapsed_ns,
        paced=paced,
        soak=soak,
        before=states[0],
        during=states[1:-1],
        after=states[-1],
        sensor_problems=sampler.problems,
        energy=why_no_energy(sampler)
        if window is None
        else InferenceEnergy(
            window=window,
            runs=len(block.samples_ns),
            idle_w=setting.idle_w,
            source=next(
                (s.state.power_source for s in sampler.power_samples if s.state.power_source), ""
            ),
        ),
        layers=NO_LAYERS,
        complete=not launch.interrupted,
    )


def _soak(launch: Launch, plan: Plan) -> Iterator[Paced]:
    """Yield minutes at the camera's rate until there are enough; Ctrl-C cuts the last one short."""
    for _ in range(plan.soak_minutes):
        if launch.interrupted:
            return
        minute = launch.paced(plan.frames_per_second, runs=1, seconds=SOAK_SECONDS)
        if minute.samples_ns:
            yield minute


def _layers(setting: _Setting, measured: Measured) -> Layers | str:
    if measured.artifact.runtime == NULL:
        return NOTHING_COMPUTED
    if not setting.bundle.layers:
        return UNKNOWN_LAYERS
    try:
        return profile_layers(
            setting.bundle,
            measured.artifact,
            threads=measured.threads,
            images=setting.images,
            runs=QUICK_OPERATOR_RUNS if setting.plan.quick else OPERATOR_RUNS,
        )
    except RuntimeRefused as error:
        return str(error)
    except KeyboardInterrupt:
        return INTERRUPTED


def _with_limits(
    measured: Measured, bundle: Bundle, peaks: Mapping[int, Peaks], *, emulated: bool
) -> Measured:
    """Return `measured` with its layers held against the peaks, where there are both."""
    if isinstance(measured.layers, str):
        return measured
    if measured.threads not in peaks:
        reason = EMULATED if emulated else NO_PEAK
        return replace(measured, layers=replace(measured.layers, limits=reason))
    inference_ms = median(measured.back_to_back_ns) / 1e6
    layers = with_limits(
        measured.layers, inference_ms, bundle.work(measured.artifact), peaks[measured.threads]
    )
    return replace(measured, layers=layers)
