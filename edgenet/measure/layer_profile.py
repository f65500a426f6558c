"""Where the time of one artefact goes, measured in a launch of its own, and its limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgenet.bundle import Artifact, Bundle, LayerWork, Precision
from edgenet.measure.launch import Launch
from edgenet.measure.layers import LayerTimes, fallbacks, fold
from edgenet.measure.peaks import Peaks
from edgenet.measure.roofline import Limits, limits

NOT_YET = "the machine's peak is not known yet"


@dataclass(frozen=True, kw_only=True, eq=False)
class Layers:
    """Where the time of one artefact goes, and how near to the machine's limit that is."""

    times: LayerTimes
    int8_layers: tuple[str, ...]
    """Layers whose weights the artefact holds in 8 bits, to be computed in them."""
    fallbacks: tuple[str, ...]
    """Those that were computed in float."""
    limits: Limits | str
    """Or why there are none."""


def profile_layers(
    bundle: Bundle, artifact: Artifact, *, threads: int, images: Path, runs: int
) -> Layers:
    """Return where the time of an artefact goes, its limits still unknown.

    Raises `RuntimeRefused` where the runtime gives no way to tell.
    """
    with Launch(artifact.runtime, bundle.path(artifact), threads=threads, images=images) as launch:
        times = fold(launch.operators(runs=runs), bundle.layers, bundle.outputs)
    int8_layers = _int8_layers(bundle, artifact)
    return Layers(
        times=times,
        int8_layers=int8_layers,
        fallbacks=fallbacks(times, int8_layers),
        limits=NOT_YET,
    )


def with_limits(
    layers: Layers, inference_ms: float, work: Sequence[LayerWork], peaks: Peaks
) -> Layers:
    """Return `layers` held against the machine's peaks; `inference_ms` is the median of runs."""
    return replace(layers, limits=limits(layers.times, inference_ms, work, peaks))


def _int8_layers(bundle: Bundle, artifact: Artifact) -> tuple[str, ...]:
    if artifact.precision is not Precision.INT8:
        return ()
    in_float = next(
        (form.float_layers for form in bundle.quantizations if form.name == artifact.quantization),
        (),
    )
    return tuple(
        layer.name for layer in bundle.layers if layer.weights and layer.name not in in_float
    )
