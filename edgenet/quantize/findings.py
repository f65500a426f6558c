"""Findings: what is wrong with an INT8 form, in words, and only where something is.

Each rule looks at the figures of one layer. What it takes to be worth a word stands in its limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgenet.quantize.diagnosis import LayerDiagnosis
from edgenet.quantize.simulate import STEPS, WEIGHT_STEPS

WIDE = 32.0
"""Ratio of channel ranges from which the smallest has under 8 of 255 steps (or 4 of 127)."""
COSTLY = 0.1
"""Share of the noise of the full-integer form that makes a layer stand out."""
TIMES_MEAN = 3.0
"""How many times the mean share that must be, for networks of a few layers."""
POOR_DB = 20.0
"""A layer that keeps less on the reference's own inputs loses 10 % of its output by itself."""
CLIPPED = 0.001
"""Share of the values."""
DEAD = 1 / 16
"""Share of the channels."""
CONSEQUENCE = {
    "int8": "computes in int8, --min-sqnr of edgenet convert gives it back to float",
    "int8 to float32": "gives out float",
    "float32": "computes in float",
}
"""What became of a layer, by its precision."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong, with the layer where it is."""

    layer: str
    kind: str
    """poor, costly, spread, weights, clipped, beyond or dead."""
    severity: float
    """Orders findings of one kind."""
    text: str


def find(
    layers: Sequence[LayerDiagnosis], outputs: Mapping[str, str], *, pictures: str
) -> tuple[Finding, ...]:
    """Return what is wrong, by kind as in `Finding.kind` and the worst of each first.

    `outputs` are the tensors that leave the network and what each is called, `pictures` what the
    layers were judged on.
    """
    loud = max(COSTLY, TIMES_MEAN / max(len(layers), 1))
    rules: Sequence[Callable[[LayerDiagnosis], Finding | None]] = (
        _poor,
        lambda layer: _costly(layer, loud, " and ".join(outputs.values())),
        lambda layer: _spread(layer, TIMES_MEAN / max(len(layers), 1)),
        _weights,
        _clipped,
        lambda layer: _beyond(layer, outputs, pictures),
        _dead,
    )
    found: list[Finding] = []
    for rule in rules:
        told = [finding for layer in layers if (finding := rule(layer)) is not None]
        found += sorted(told, key=lambda finding: -finding.severity)
    return tuple(found)


def _poor(layer: LayerDiagnosis) -> Finding | None:
    own = layer.own_sqnr_db
    if own is None or own >= POOR_DB:
        return None
    return Finding(
        layer=layer.name,
        kind="poor",
        severity=-own,
        text=f"{layer.name}: alone in 8 bits, on exact inputs, it keeps only {own:.1f} dB"
        + _why(layer),
    )


def _why(layer: LayerDiagnosis) -> str:
    """Return what in a layer's figures explains that it loses much, if anything does."""
    weights, own = layer.weights_sqnr_db, layer.own_sqnr_db
    if weights is None or own is None or weights > own + 3:
        return f"; its weights keep {weights:.1f} dB, its output does not" if weights else ""
    if (layer.input_weight_ratio or 1) >= WIDE:
        return (
            f"; weights of its input channels differ {_times(layer.input_weight_ratio)} and share "
            "a scale"
        )
    return "; its weights lose it"


def _costly(layer: LayerDiagnosis, loud: float, limited: str) -> Finding | None:
    if layer.full_integer_share < loud:
        return None
    tensor, weights = layer.alone_tensor_db, layer.alone_weights_db
    by_weights = tensor is None or (weights is not None and weights < tensor)
    what, decibel = ("weights", weights) if by_weights else ("output", tensor)
    verb = "limit" if by_weights else "limits"
    return Finding(
        layer=layer.name,
        kind="costly",
        severity=layer.full_integer_share,
        text=f"{layer.name}: its 8-bit {what} alone {verb} the {limited} to {decibel:.1f} dB "
        f"({_percent(layer.full_integer_share)} of the noise with nothing in float); "
        + CONSEQUENCE[layer.precision],
    )


def _spread(layer: LayerDiagnosis, loud: float) -> Finding | None:
    ratio = layer.equalised_ratio or 1.0
    if layer.precision != "int8" or ratio < WIDE or layer.noise_share < loud:
        return None
    before = (
        f" ({_times(layer.output_ratio)} before equalisation)"
        if layer.output_ratio and layer.output_ratio > 1.01 * ratio
        else ""
    )
    return Finding(
        layer=layer.name,
        kind="spread",
        severity=ratio,
        text=f"{layer.name}: output channel ranges differ {_times(ratio)}{before} and share one "
        f"scale, which leaves the smallest {STEPS / ratio:.2g} of {STEPS} steps",
    )


def _weights(layer: LayerDiagnosis) -> Finding | None:
    ratio = layer.weight_ratio or 1.0
    if layer.precision == "float32" or ratio < WIDE:
        return None
    return Finding(
        layer=layer.name,
        kind="weights",
        severity=ratio,
        text=f"{layer.name}: channel ranges of its weights differ {_times(ratio)}; per-tensor "
        f"weights would leave the smallest {WEIGHT_STEPS / ratio:.2g} of {WEIGHT_STEPS} steps, "
        "per-channel scales hold them",
    )


def _clipped(layer: LayerDiagnosis) -> Finding | None:
    if layer.clipped_share < CLIPPED:
        return None
    return Finding(
        layer=layer.name,
        kind="clipped",
        severity=layer.clipped_share,
        text=f"{layer.name}: {_percent(layer.clipped_share)} of its calibration values are clipped",
    )


def _beyond(layer: LayerDiagnosis, outputs: Mapping[str, str], pictures: str) -> Finding | None:
    """Return a finding where new pictures leave the calibrated range; an output never should."""
    more = layer.beyond_share >= max(CLIPPED, 2 * layer.clipped_share)
    if not more and not (layer.name in outputs and layer.beyond_share > 0):
        return None
    name = f"{layer.name} (the {outputs[layer.name]})" if layer.name in outputs else layer.name
    return Finding(
        layer=layer.name,
        kind="beyond",
        severity=layer.beyond_share,
        text=f"{name}: {_percent(layer.beyond_share)} of the values on {pictures} lie beyond the "
        f"calibrated range, up to {layer.reach:.2f} times it; calibrate on more pictures, or on "
        "pictures more like them",
    )


def _dead(layer: LayerDiagnosis) -> Finding | None:
    if layer.dead_channels < max(1.0, DEAD * layer.channels):
        return None
    return Finding(
        layer=layer.name,
        kind="dead",
        severity=layer.dead_channels / layer.channels,
        text=f"{layer.name}: dead channels: {layer.dead_channels} of {layer.channels} never change "
        "on the calibration images"
        + (f"; {layer.channels_left_out} are left out" if layer.channels_left_out else ""),
    )


def _times(ratio: float | None) -> str:
    return f"{ratio or 1.0:.3g}:1" if (ratio or 1.0) < 1000 else f"{ratio:,.0f}:1"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"
