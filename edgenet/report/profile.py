"""A profile as text: one table of all artefacts, and what must be known to read it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from edgenet.board.detect import Board
from edgenet.bundle import Artifact, Bundle
from edgenet.measure.evaluate import NO_REFERENCE, ArtifactResult, Evaluation
from edgenet.measure.explain import worst
from edgenet.measure.layer_profile import Layers
from edgenet.measure.layers import BETWEEN
from edgenet.measure.profile import InferenceEnergy, Measured, Plan, Profile
from edgenet.measure.roofline import Bound, Limits
from edgenet.measure.statistics import summarise
from edgenet.report.profile_record import saturation, whole_minutes
from edgenet.report.record import no_accuracy
from edgenet.report.table import render, size

PARETO = "*"
WAITED = 0.05
"""Share of the time without a processor from which on it is remarked."""
SLOWER_PACED = 1.5
"""How many times the median back to back that at a camera's rate may be unremarked: between frames
clocks fall and caches cool; 1.0 to 1.3 were seen on a quiet x86 machine."""
SLOWER_BACK_TO_BACK = 1.2
"""The same the other way round, for which nothing harmless speaks."""
LEAST_UNLIKE_NS = 500_000
"""Of the slower of the two; below that, waking up is a large part of what is paced."""


def profile_text(
    bundle: Bundle,
    profile: Profile,
    evaluation: Evaluation | str,
    *,
    board: Board,
    command: Sequence[str],
    every_layer: bool,
) -> str:
    """Return the whole report, with a table of every layer if it is wanted.

    `evaluation` is of the same artefacts, or says why there is none.
    """
    results = () if isinstance(evaluation, str) else evaluation.results
    answers = {result.artifact: result for result in results}
    parts = [
        _table(profile, answers),
        "\n".join(_notes(bundle, profile, evaluation, board)),
        "\n".join(_remarks(profile)),
    ]
    if every_layer:
        parts.append(_layer_table(bundle, profile))
    parts.append("\n".join(_losses(bundle, profile)))
    parts.append(f"again: {shlex.join(command)}")
    return "\n\n".join(part for part in parts if part)


def _table(profile: Profile, answers: Mapping[Artifact, ArtifactResult]) -> str:
    measured = sorted(profile.measured, key=_p50_ms)
    best = _pareto_best(measured, answers)
    return render(
        (
            *("", "runtime", "precision", "threads", "p50 ms", "95 %", "p95", "p99"),
            *(f"p50 at {profile.plan.frames_per_second:g}/s", "p95", "first ms", "load ms"),
            *("peak memory", "top-1 %", "agreement %"),
        ),
        [
            (
                PARETO if found in best else "",
                found.artifact.runtime,
                found.artifact.form,
                str(found.threads),
                *_back_to_back(found),
                *_paced(found),
                _ms(found.opened.first_inference_ns / 1e6),
                _ms(found.opened.load_ns / 1e6),
                "-" if found.memory.peak_bytes is None else size(found.memory.peak_bytes),
                *_answers(answers.get(found.artifact)),
            )
            for found in measured
        ],
    )


def _p50_ms(found: Measured) -> float:
    samples = sorted(found.back_to_back_ns)
    return samples[len(samples) // 2] / 1e6 if samples else float("inf")


def _pareto_best(
    measured: Sequence[Measured], answers: Mapping[Artifact, ArtifactResult]
) -> list[Measured]:
    """Return those of which none other is faster and at least as right, or as fast and righter."""
    rightness = {
        id(found): _rightness(answers[found.artifact])
        for found in measured
        if found.artifact in answers
    }
    points = {
        id(found): (_p50_ms(found), -right)
        for found in measured
        if (right := rightness.get(id(found))) is not None
    }
    return [
        found
        for found in measured
        if id(found) in points
        and not any(
            other != points[id(found)]
            and other[0] <= points[id(found)][0]
            and other[1] <= points[id(found)][1]
            for other in points.values()
        )
    ]


def _rightness(result: ArtifactResult) -> float | None:
    """Return the accuracy, or else the agreement, in percent; None where neither is known."""
    if result.accuracy is not None:
        return result.accuracy.top1.percent
    return result.agreement.top1.percent if result.agreement else None


def _back_to_back(found: Measured) -> tuple[str, str, str, str]:
    if not found.back_to_back_ns:
        return "-", "-", "-", "-"
    summary = summarise(found.back_to_back_ns)
    interval = "-" if summary.interval is None else "{:.4g}-{:.4g}".format(*summary.interval)
    return _ms(summary.p50), interval, _ms(summary.p95), _ms(summary.p99)


def _paced(found: Measured) -> tuple[str, str]:
    if found.paced is None or not found.paced.samples_ns:
        return "-", "-"
    if found.paced.saturated:
        return "saturated", "-"
    summary = summarise(found.paced.samples_ns)
    return _ms(summary.p50), _ms(summary.p95)


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if value < 1000 else f"{value:.0f}"


def _answers(result: ArtifactResult | None) -> tuple[str, str]:
    if result is None:
        return "-", "-"
    return (
        "-" if result.accuracy is None else f"{result.accuracy.top1.percent:.2f}",
        "-" if result.agreement is None else f"{result.agreement.top1.percent:.2f}",
    )


def _notes(
    bundle: Bundle, profile: Profile, evaluation: Evaluation | str, board: Board
) -> Iterator[str]:
    results = () if isinstance(evaluation, str) else evaluation.results
    if any(_rightness(result) is not None for result in results):
        yield f"{PARETO} none other is both as fast and as right"
    if profile.plan.quick:
        yield "quick: too few runs for figures that are published"
    if not profile.complete:
        yield "interrupted: what is here is right, but not all that was asked for"
    yield f"on {board.name}" + (
        ": EMULATED, so no time here is that of any board" if board.emulated else ""
    )
    yield f"timed on {profile.pictures}; no outlier is dropped, a percentile has ten samples beyond"
    yield from _worth(bundle, evaluation)
    yield from dict.fromkeys(
        f"{found.artifact.runtime}: {found.opened.version} on {found.opened.device}"
        for found in profile.measured
    )
    for artifact, reason in profile.not_run:
        yield f"{artifact.label} not run: {reason}"


def _worth(bundle: Bundle, evaluation: Evaluation | str) -> Iterator[str]:
    """Yield what the answers were judged on, or why that is not known and who knows it."""
    if isinstance(evaluation, str):
        yield f"no accuracy or agreement: {evaluation}"
        return
    if any(_rightness(result) is not None for result in evaluation.results):
        yield f"answers on {evaluation.dataset}: n = {len(evaluation.pictures)}" + (
            f", agreement with {evaluation.reference.label}" if evaluation.reference else ""
        )
        return
    advice = "; give labelled ones with --data" if bundle.model.trained else ""
    yield f"no accuracy: {no_accuracy(trained=bundle.model.trained)}{advice}"
    yield f"no agreement: {NO_REFERENCE}"
    ran = {result.artifact.quantization for result in evaluation.results}
    for judged in bundle.quantizations:
        if judged.name in ran and judged.agreement_right is not None:
            yield (
                f"{judged.name} when it was converted: top-1 agreed with float on "
                f"{judged.agreement_right} of {judged.images} {judged.judged_on}; edgenet verify "
                "tells whether the answers here are the same"
            )


def _remarks(profile: Profile) -> Iterator[str]:
    """Yield what is out of the ordinary, artefact by artefact."""
    for found in profile.measured:
        name = _name(found)
        if not found.warm_up.stable:
            yield f"{name}: did not settle in {found.warm_up.seconds:.0f} s of warm-up"
        yield from (f"{name}: {words}" for words in _disturbed(found))
        if found.throttled:
            yield f"{name}: the board was throttled; not comparable ({', '.join(_why(found))})"
        if found.paced and found.paced.samples_ns and found.paced.saturated:
            yield f"{name}: {saturation(found.paced)}"
        if isinstance(found.energy, InferenceEnergy):
            yield f"{name}: {_energy(found.energy)}"
        if found.soak:
            yield f"{name}: {_soak(found, profile.plan)}"
        if isinstance(found.layers, Layers) and found.layers.fallbacks:
            yield f"{name}: {_fallen_back(found.artifact, found.layers)}"
        for problem in found.sensor_problems:
            yield f"{name}: {problem}"


def _disturbed(found: Measured) -> Iterator[str]:
    """Yield signs that the machine did something else meanwhile."""
    if found.waited_share is not None and found.waited_share > WAITED:
        yield (
            f"others had the processor for {found.waited_share:.0%} of the time back to back: "
            "this is the latency beside them"
        )
    if found.paced is None or found.paced.saturated or not found.paced.samples_ns:
        return
    alone, paced = median(found.back_to_back_ns), median(found.paced.samples_ns)
    if max(alone, paced) < LEAST_UNLIKE_NS:
        return
    if paced > SLOWER_PACED * alone:
        why = "clocks fall between frames, or others were at work"
    elif alone > SLOWER_BACK_TO_BACK * paced:
        why = "others were at work, or it was slowed down; measure again"
    else:
        return
    rate = f"{found.paced.frames_per_second:g}/s"
    yield f"p50 {alone / 1e6:.3g} ms back to back and {paced / 1e6:.3g} ms at {rate}: {why}"


def _fallen_back(artifact: Artifact, layers: Layers) -> str:
    """Return which layers were computed in float, and whether that was to be expected."""
    count = len(layers.int8_layers)
    every = len(layers.fallbacks) == count
    which = f"all {count} layers" if every else ", ".join(layers.fallbacks)
    meant = f", as it is made for {artifact.variant}" if artifact.variant else ""
    return f"in 8 bits but computed in float{meant}: {which}"


def _name(found: Measured) -> str:
    return f"{found.artifact.label}, {_threads(found.threads)}"


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _why(found: Measured) -> list[str]:
    states = (found.before, *found.during, found.after)
    return list(dict.fromkeys(reason for state in states for reason in state.throttle_reasons))


def _energy(found: InferenceEnergy) -> str:
    gross_mj, above = found.window.gross_mj / found.runs, found.window.above_idle_mj
    text = f"{gross_mj:.3g} mJ an inference"
    if above is not None:
        text += f", {_as_exact(above / found.runs, gross_mj)} mJ above idle ({found.idle_w:.3g} W)"
    return f"{text}; of {found.source}"


def _as_exact(part: float, whole: float) -> str:
    """Return a part of `whole` to the place of its third digit: no sensor tells it any finer."""
    places = 2 - math.floor(math.log10(whole)) if whole > 0 else 2
    return f"{round(part, places) + 0.0:.{max(places, 0)}f}"


def _soak(found: Measured, plan: Plan) -> str:
    first, last = found.soak[0], found.soak[-1]
    asked = plan.soak_minutes
    head = f"soak of {asked} minutes"
    if whole_minutes(found, plan) < asked:
        frames = sum(len(minute.samples_ns) + minute.missed for minute in found.soak)
        head = f"soak stopped after {frames / plan.frames_per_second / 60:.1f} of {asked} minutes"
    early, late = summarise(first.samples_ns), summarise(last.samples_ns)
    if len(found.soak) < 2:
        return f"{head}: p50 {_ms(early.p50)} ms, p95 {_ms(early.p95)} ms; no second to compare"
    ratio = f" ({late.p50 / early.p50:.3f} times)" if early.p50 and late.p50 else ""
    missed = f"; {first.missed} and {last.missed} frames missed" if last.missed else ""
    return (
        f"{head}: p50 {_ms(early.p50)} ms in the first, {_ms(late.p50)} ms in the last{ratio}; "
        f"p95 {_ms(early.p95)} and {_ms(late.p95)} ms{missed}"
    )


def _losses(bundle: Bundle, profile: Profile) -> Iterator[str]:
    if not profile.plan.layers:
        return
    for peaks in profile.peaks:
        rates = ", ".join(
            f"{rate.mult_adds_per_second / 1e9:.3g} billion mult-adds/s in {precision} "
            f"({rate.runtime})"
            for precision, rate in peaks.rates.items()
        )
        yield f"this machine's peak, {_threads(peaks.threads)}: {rates or 'unknown'}"
    for found in profile.measured:
        if isinstance(found.layers, str):
            yield f"{_name(found)}: no layers ({found.layers})"
            continue
        yield f"{_name(found)}: {_reached(found.layers)}"
        for loss in worst(
            found.layers.times,
            _bounds(found.layers),
            bundle.work(found.artifact),
            found.layers.fallbacks,
        ):
            yield f"  {loss.layer}: {loss.words}"


def _bounds(layers: Layers) -> tuple[Bound, ...]:
    return layers.limits.bounds if isinstance(layers.limits, Limits) else ()


def _reached(layers: Layers) -> str:
    """Return what share of the machine's limit the whole reached, or why there is none."""
    how = "by its profiler" if layers.times.by == "profiler" else "by prefix"
    text = f"layers {layers.times.total_ms:.3g} ms {how}"
    if isinstance(layers.limits, str):
        return f"{text}; {layers.limits}"
    share, passed = layers.limits.fraction, layers.limits.passed
    if isinstance(share, str):
        return f"{text}; no share of the machine's limit: {share}"
    faster = f"; faster than their bound: {', '.join(passed)}" if passed else ""
    return f"{text}, {share:.0%} of the machine's limit{faster}"


def _layer_table(bundle: Bundle, profile: Profile) -> str:
    """Return the time of every layer in every artefact, in ms, with the share of its limit."""
    columns = [
        (found, found.layers) for found in profile.measured if isinstance(found.layers, Layers)
    ]
    if not columns:
        return ""
    names = [layer.name for layer in bundle.layers]
    return render(
        ("layer, ms (share of limit)", *(_column(found) for found, _ in columns)),
        [(name, *(_cell(name, layers) for _, layers in columns)) for name in (*names, BETWEEN)],
    )


def _column(found: Measured) -> str:
    return f"{found.artifact.label} {found.threads}t"


def _cell(name: str, layers: Layers) -> str:
    time = next((time for time in layers.times.layers if time.layer == name), None)
    if time is None or time.duration_ms is None:
        return "-"
    bound = next((bound for bound in _bounds(layers) if bound.layer == name), None)
    share = "" if bound is None or isinstance(bound.fraction, str) else f" ({bound.fraction:.0%})"
    return f"{time.duration_ms:.3f}{share}"
