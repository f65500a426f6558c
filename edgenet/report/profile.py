"""A profile as text: one table of all artefacts, and what must be known to read it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence

from edgenet.board.detect import Board
from edgenet.bundle import Artifact, Bundle
from edgenet.measure.evaluate import ArtifactResult, Evaluation
from edgenet.measure.explain import worst
from edgenet.measure.layer_profile import Layers
from edgenet.measure.layers import BETWEEN
from edgenet.measure.profile import InferenceEnergy, Measured, Profile
from edgenet.measure.roofline import Bound, Limits
from edgenet.measure.statistics import summarise
from edgenet.report.profile_record import saturation
from edgenet.report.table import render, size

PARETO = "*"


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
        "\n".join(_notes(profile, evaluation, board)),
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
    points = {
        id(found): (_p50_ms(found), -_rightness(answers[found.artifact]))
        for found in measured
        if found.artifact in answers
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


def _rightness(result: ArtifactResult) -> float:
    """Return the accuracy, or without labels the agreement, in percent."""
    if result.accuracy is not None:
        return result.accuracy.top1.percent
    return result.agreement.top1.percent if result.agreement else 0.0


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


def _notes(profile: Profile, evaluation: Evaluation | str, board: Board) -> Iterator[str]:
    if not isinstance(evaluation, str):
        yield f"{PARETO} none other is both as fast and as right"
    if profile.plan.quick:
        yield "quick: too few runs for figures that are published"
    if not profile.complete:
        yield "interrupted: what is here is right, but not all that was asked for"
    yield f"on {board.name}" + (
        ": EMULATED, so no time here is that of any board" if board.emulated else ""
    )
    yield f"timed on {profile.pictures}; no outlier is dropped, a percentile has ten samples beyond"
    if isinstance(evaluation, str):
        yield f"no accuracy or agreement: {evaluation}"
    else:
        yield f"answers on {evaluation.dataset}: n = {len(evaluation.pictures)}" + (
            f", agreement with {evaluation.reference.label}" if evaluation.reference else ""
        )
    yield from dict.fromkeys(
        f"{found.artifact.runtime}: {found.opened.version} on {found.opened.device}"
        for found in profile.measured
    )
    for artifact, reason in profile.not_run:
        yield f"{artifact.label} not run: {reason}"


def _remarks(profile: Profile) -> Iterator[str]:
    """Yield what is out of the ordinary, artefact by artefact."""
    for found in profile.measured:
        name = _name(found)
        if not found.warm_up.stable:
            yield f"{name}: did not settle in {found.warm_up.seconds:.0f} s of warm-up"
        if found.throttled:
            yield f"{name}: the board was throttled; not comparable ({', '.join(_why(found))})"
        if found.paced and found.paced.samples_ns and found.paced.saturated:
            yield f"{name}: {saturation(found.paced)}"
        if isinstance(found.energy, InferenceEnergy):
            yield f"{name}: {_energy(found.energy)}"
        if len(found.soak) > 1:
            yield f"{name}: {_soak(found)}"
        if isinstance(found.layers, Layers) and found.layers.fallbacks:
            yield f"{name}: {_fallen_back(found.artifact, found.layers)}"
        for problem in found.sensor_problems:
            yield f"{name}: {problem}"


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
    runs, above = found.runs, found.window.above_idle_mj
    text = f"{found.window.gross_mj / runs:.3g} mJ an inference"
    if above is not None:
        text += f", {above / runs:.3g} mJ above idle ({found.idle_w:.3g} W)"
    return f"{text}; of {found.source}"


def _soak(found: Measured) -> str:
    first, last = (summarise(minute.samples_ns) for minute in (found.soak[0], found.soak[-1]))
    ratio = f" ({last.p50 / first.p50:.3f} times)" if first.p50 and last.p50 else ""
    return (
        f"soak of {len(found.soak)} minutes: p50 {_ms(first.p50)} ms in the first, "
        f"{_ms(last.p50)} ms in the last{ratio}; p95 {_ms(first.p95)} and {_ms(last.p95)} ms"
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
            found.layers.times, _bounds(found.layers), bundle.layers, found.layers.fallbacks
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
