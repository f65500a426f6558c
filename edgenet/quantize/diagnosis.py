"""Diagnosis: what INT8 loses at each layer, why, and what each correction bought.

Every tensor of the INT8 form is compared with the reference's on pictures that were kept from the
calibration. Equalised channels are compared in the units of the INT8 form: the reference's values
times the equalisation's factors, so that what the equalisation itself cuts off counts as well.

Knows forms and pictures; bundles are `convert/diagnose.py`'s, words `findings.py`'s.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgenet.graph import (
    IMAGE,
    KEEPS_BYTES,
    Activate,
    Convolution,
    Float32Array,
    FullyConnected,
    Normalise,
    Operator,
    QuantizedGraph,
    QuantizedWeights,
    Weighted,
    inputs_of,
)
from edgenet.measure.accuracy import Accuracy, score, top_indices
from edgenet.measure.agreement import Closeness
from edgenet.preprocess import UInt8Array
from edgenet.quantize import execute, simulate
from edgenet.quantize.correct import Corrections, correct
from edgenet.quantize.encode import BIAS_LIMIT
from edgenet.quantize.equalise import Equalised
from edgenet.quantize.form import Calibrated, Form, Jury, Progress, encode_form
from edgenet.quantize.ranges import find_ranges
from edgenet.quantize.sensitivity import Noise, measure_noise
from edgenet.quantize.spare import Filled
from edgenet.quantize.statistics import ChannelStatistics, Float64Array, merge
from edgenet.wording import counted

BoolArray = npt.NDArray[np.bool_]

LEAST_SPAN = 1e-6
"""A channel that changes by a smaller share of the largest one's range is dead: float32 ends."""
NOISE_IMAGES = 8
"""Images that the noise of the form itself is averaged over."""


@dataclass(frozen=True, kw_only=True)
class LayerDiagnosis:
    """One operator's output in the INT8 form against the reference's."""

    name: str
    precision: str
    """What it computes in: int8, float32, or "int8 to float32", which gives out its sums."""
    sqnr_db: float | None
    """Signal to noise of its output, all errors before it included; None when identical."""
    channels_sqnr_db: float | None
    """The same with every channel counted alike, however small its values; a lost one counts 1."""
    cosine: float
    """Between both outputs over all pictures, 1 when they point the same way."""
    own_sqnr_db: float | None
    """Of the layer alone: what it makes of the reference's own inputs; None when identical."""
    weights_sqnr_db: float | None
    """The same before its output goes into 8 bits: what its weights and bias alone lose."""
    noise_share: float
    """Of the noise that reaches the outputs of this form: what its weights and its output cause."""
    alone_tensor_db: float | None
    """SQNR of the outputs if its 8-bit output were the only loss of the plain full-integer form."""
    alone_weights_db: float | None
    """The same of its 8-bit weights."""
    full_integer_share: float
    """Of the noise of the plain full-integer form."""
    output_ratio: float | None
    """Largest to smallest range of its live output channels in the reference."""
    equalised_ratio: float | None
    """The same in the INT8 form."""
    weight_ratio: float | None
    """Largest to smallest weight range of its live output channels in the reference."""
    input_weight_ratio: float | None
    """The same between input channels, which share a scale, in the INT8 form."""
    channels: int
    """Of the reference."""
    dead_channels: int
    """Those that keep one value over every calibration image."""
    channels_left_out: int
    """Those that the INT8 form has no more, as no output can feel them."""
    clipped_share: float
    """Of its values on the calibration images: those beyond what its 8 bits reach."""
    beyond_share: float
    """The same on the pictures that it is judged on."""
    reach: float
    """Largest value on these pictures as a share of what 8 bits reach; 0 where it is no bytes."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What the network answers after one more correction."""

    name: str
    agreement: Closeness
    """Of a classifier an `Agreement`."""
    accuracy: Accuracy | None
    seconds: float
    """That the step took on this machine."""


def diagnose_layers(
    form: Form, images: Sequence[UInt8Array], full_integer: Noise, *, seed: int, progress: Progress
) -> tuple[LayerDiagnosis, ...]:
    """Return every operator that computes, the lowest SQNR first.

    `images`, (1, H, W, 3) uint8 RGB, are those to judge on; `full_integer` is the noise to
    be expected without any layer in float.
    """
    calibrated, quantized = form.calibrated, form.quantized
    done = progress.step("compare layers", total=len(images))
    compared = _compare(form, images, done)
    clipped = _clipped(form, progress)
    noise = measure_noise(quantized, calibrated.images[:NOISE_IMAGES], seed=seed)
    seen, equalised = _statistics(calibrated), form.filled.statistics
    total, total_full = (sum(_by_layer(n).values()) or 1.0 for n in (noise, full_integer))
    layers = []
    for op in quantized.graph.operators:
        if op.name not in compared:
            continue
        before = seen[op.name]
        live = _live(before)
        read = seen.get(inputs_of(op)[0])
        found = compared[op.name]
        layers.append(
            LayerDiagnosis(
                name=op.name,
                precision=_precision(quantized, op),
                sqnr_db=found.whole.sqnr_db,
                channels_sqnr_db=found.whole.channels_sqnr_db,
                cosine=found.whole.cosine,
                own_sqnr_db=found.own.sqnr_db,
                weights_sqnr_db=found.weights.sqnr_db,
                noise_share=_by_layer(noise).get(op.name, 0.0) / total,
                alone_tensor_db=_decibel(full_integer.by_tensor.get(op.name, 0.0)),
                alone_weights_db=_decibel(full_integer.by_weights.get(op.name, 0.0)),
                full_integer_share=_by_layer(full_integer).get(op.name, 0.0) / total_full,
                output_ratio=_range_ratio(before, live),
                equalised_ratio=_range_ratio(equalised[op.name], _kept(form, op.name, live)),
                weight_ratio=_weight_ratio(calibrated.reference.operators, op, 0, live),
                input_weight_ratio=_weight_ratio(
                    quantized.graph.operators,
                    op,
                    1,
                    None if read is None else _kept(form, inputs_of(op)[0], _live(read)),
                ),
                channels=len(before.high),
                dead_channels=int((~live).sum()),
                channels_left_out=len(form.filled.left_out.get(op.name, ())),
                clipped_share=clipped.get(op.name, 0.0),
                beyond_share=found.beyond.share,
                reach=found.beyond.reach,
            )
        )
    return tuple(sorted(layers, key=lambda layer: _or_infinite(layer.sqnr_db)))


def diagnose_steps(
    form: Form,
    jury: Jury,
    *,
    form_seconds: float,
    progress: Progress,
) -> tuple[Step, ...]:
    """Return what each correction bought, the form itself last.

    `form_seconds` is what making it took, the choice of its layers in float included.
    """
    steps = []
    for name, quantized, seconds in _grown(form, form_seconds, progress):
        done = progress.step(f"judge {name}", total=len(jury.images))
        found, accuracy = _judge(quantized, jury, done)
        steps.append(Step(name=name, agreement=found, accuracy=accuracy, seconds=seconds))
    return tuple(steps)


def reference_accuracy(jury: Jury) -> Accuracy | None:
    """Return how often the reference itself is right; None without labels."""
    return _accuracy(jury.reference, jury)


# Layers


class _Comparison:
    """One tensor in two networks, over all pictures; sums are by channel, (C,) float64."""

    def __init__(self) -> None:
        self.signal: Tensor = torch.zeros((), dtype=torch.float64)
        self.noise: Tensor = torch.zeros((), dtype=torch.float64)
        self.found = 0.0
        self.product = 0.0

    def add(self, reference: Tensor, found: Tensor) -> None:
        """Take in one picture's tensors, (1, C, H, W) or (1, C)."""
        a, b = (x.reshape(x.shape[1], -1) for x in (reference, found))
        self.signal = self.signal + a.square().sum(1, dtype=torch.float64)
        self.noise = self.noise + (a - b).square().sum(1, dtype=torch.float64)
        self.found += float(b.square().sum(dtype=torch.float64))
        self.product += float((a * b).sum(dtype=torch.float64))

    @property
    def sqnr_db(self) -> float | None:
        """Return signal to noise; None without noise."""
        return _ratio_db(float(self.signal.sum()), float(self.noise.sum()))

    @property
    def channels_sqnr_db(self) -> float | None:
        """Return signal to noise with every live channel counted alike."""
        live = self.signal > 0
        lost = (self.noise[live] / self.signal[live]).clamp(max=1.0)
        return _ratio_db(float(live.sum()), float(lost.sum()))

    @property
    def cosine(self) -> float:
        """Return the cosine between both; 1 where both are zero throughout."""
        length = math.sqrt(float(self.signal.sum()) * self.found)
        return self.product / length if length else float(not self.noise.sum())


class _Beyond:
    """How many values lie beyond what 8 bits reach."""

    def __init__(self) -> None:
        self.count = 0
        self.values = 0
        self.reach = 0.0

    def add(self, x: Tensor, low: float, high: float, *, step: float) -> None:
        """Take in one picture's tensor; half a step further rounds to the end itself."""
        self.count += int(((x < low - step / 2) | (x > high + step / 2)).sum())
        self.values += x.numel()
        ends = ((float(x.max()), high), (float(x.min()), low))
        self.reach = max(self.reach, *(value / end for value, end in ends if end), 0.0)

    @property
    def share(self) -> float:
        """Return the share of all values."""
        return self.count / self.values if self.values else 0.0


class _Compared:
    """One operator's output in the whole form, alone, alone before 8 bits; and where it lies."""

    def __init__(self) -> None:
        self.whole = _Comparison()
        self.own = _Comparison()
        self.weights = _Comparison()
        self.beyond = _Beyond()


@torch.inference_mode()
def _compare(
    form: Form, images: Sequence[UInt8Array], done: Callable[[], None]
) -> Mapping[str, _Compared]:
    quantized = form.quantized
    told = [op for op in quantized.graph.operators if _is_told(form, op)]
    compared = {op.name: _Compared() for op in told}
    real = {op.name: simulate.real(quantized, op) for op in told}
    for image in images:
        reference = _reference_tensors(form, image)
        found: dict[str, Tensor] = {}
        simulate.execute(quantized, torch.from_numpy(image), found.__setitem__)
        inputs = _exact_inputs(form, reference, found)
        for op in told:
            exact, rows = reference[op.name], compared[op.name]
            rows.whole.add(exact, found[op.name])
            alone = execute.apply(real[op.name], *(inputs[name] for name in inputs_of(op)))
            rows.weights.add(exact, alone)
            affine = quantized.tensors.get(op.name)
            if affine is not None:
                alone = simulate.dequantize(simulate.to_bytes(alone, affine), affine)
                low, high, step = _ends(quantized, op.name)
                rows.beyond.add(exact, low, high, step=step)
            rows.own.add(exact, alone)
        done()
    return compared


def _is_told(form: Form, op: Operator) -> bool:
    """Tell whether `op` has a row: it computes, and the reference has it too."""
    if isinstance(op, Normalise):  # elsewhere the image's bytes are its output
        return form.quantized.symmetric and op.name in form.quantized.tensors
    return not isinstance(op, KEEPS_BYTES)


def _reference_tensors(form: Form, image: UInt8Array) -> dict[str, Tensor]:
    """Return the image and every tensor of the reference, in the units of the INT8 form."""
    factors, filled = form.calibrated.equalised.factors, form.filled
    tensors = {IMAGE: torch.from_numpy(image).permute(0, 3, 1, 2)}

    def watch(name: str, x: Tensor) -> None:
        if name in factors:
            shape = (1, -1, *[1] * (x.ndim - 2))
            x = x * torch.from_numpy(factors[name]).float().reshape(shape)
        if name in filled.copies:
            x = x.clone()
            for copy in filled.copies[name]:
                x[:, copy.channel] = x[:, copy.of] + copy.plus
        if name in filled.left_out:
            x = x[:, filled.kept(name, x.shape[1])]
        tensors[name] = x

    execute.execute(form.calibrated.reference, torch.from_numpy(image), watch)
    return tensors


def _exact_inputs(
    form: Form, reference: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """Return what each layer reads when it stands alone.

    The image's bytes lose nothing, but what their whole zero point rounds away sits in the next
    layer's bias: that one reads them as the form has them.
    """
    first = form.quantized.graph.operators[0].name
    return dict(reference) if form.quantized.symmetric else {**reference, first: found[first]}


def _clipped(form: Form, progress: Progress) -> Mapping[str, float]:
    """Return the share of each tensor's calibration values that 8 bits do not reach."""
    quantized, images = form.quantized, form.calibrated.images
    hidden = _hidden(quantized)
    beyond = {
        name: _Beyond()
        for name in quantized.tensors
        if name not in hidden and _may_clip(form, name)
    }
    if not beyond:
        return {}
    done = progress.step("look for clipped values", total=len(images))
    for image in images:
        tensors = _reference_tensors(form, image)
        for name, outside in beyond.items():
            low, high, step = _ends(quantized, name)
            outside.add(tensors[name], low, high, step=step)
        done()
    return {name: outside.share for name, outside in beyond.items()}


def _may_clip(form: Form, name: str) -> bool:
    """Tell whether the calibration set showed a value that 8 bits do not reach."""
    seen = form.filled.statistics.get(name)
    if seen is None or name == form.quantized.graph.operators[0].name:
        return False
    low, high, step = _ends(form.quantized, name)
    return bool(seen.low.min() < low - step / 2 or seen.high.max() > high + step / 2)


def _hidden(quantized: QuantizedGraph) -> frozenset[str]:
    """Return the tensors whose cut values no reader can tell apart, as before a hard-swish."""
    read: dict[str, set[bool]] = {}
    for op in quantized.graph.operators:
        for name in inputs_of(op):
            bent = isinstance(op, Activate) and op.function in ("hard_swish", "sigmoid")
            read.setdefault(name, set()).add(bent)
    bent_only = {name for name, kinds in read.items() if kinds == {True}}
    return frozenset(bent_only.difference(quantized.graph.outputs))


def _ends(quantized: QuantizedGraph, name: str) -> tuple[float, float, float]:
    """Return the lowest and highest value of a tensor's 8 bits, and their step."""
    affine = quantized.tensors[name]
    low, high = (affine.scale * (q - affine.zero_point) for q in (0, simulate.STEPS))
    return low, high, affine.scale


def _precision(quantized: QuantizedGraph, op: Operator) -> str:
    if quantized.gives_sums(op):
        return "int8 to float32"
    integer = op.name in quantized.layers if isinstance(op, Weighted) else quantized.is_integer(op)
    return "int8" if integer else "float32"


def _statistics(calibrated: Calibrated) -> Mapping[str, ChannelStatistics]:
    """Return the reference's statistics over the whole calibration set."""
    count = len(calibrated.images)
    first, second = calibrated.halves
    in_first = (count + 1) // 2
    in_second = count // 2 or count
    return merge(first, second, share=in_first / (in_first + in_second))


def _live(seen: ChannelStatistics) -> BoolArray:
    """Return which channels change from place to place or picture to picture, (channels,)."""
    span = seen.high - seen.low
    live: BoolArray = span > LEAST_SPAN * span.max()
    return live


def _kept(form: Form, tensor: str, channels: BoolArray) -> BoolArray:
    """Return what is told of a tensor's channels, of those that the form has."""
    kept: BoolArray = channels[form.filled.kept(tensor, len(channels))]
    return kept


def _range_ratio(seen: ChannelStatistics, live: BoolArray) -> float | None:
    """Return largest to smallest reach of the channels that live; None for fewer than two."""
    return _spread(np.maximum(np.abs(seen.high), np.abs(seen.low))[live])


def _weight_ratio(
    operators: Sequence[Operator], op: Operator, axis: int, live: BoolArray | None
) -> float | None:
    """Return largest to smallest weight of the live channels along an axis of a layer's weights."""
    layer = next((o for o in operators if o.name == op.name), None)
    if not isinstance(layer, Convolution | FullyConnected):
        return None
    others = tuple(a for a in range(layer.weight.ndim) if a != axis)
    largest = np.abs(layer.weight).max(axis=others).astype(np.float64)
    known = live is not None and len(live) == len(largest)  # not so for the inputs of groups
    return _spread(largest[live] if known else largest)


def _spread(reach: Float64Array) -> float | None:
    alive = reach[reach > 0]
    return float(alive.max() / alive.min()) if len(alive) > 1 else None


def _by_layer(noise: Noise) -> Mapping[str, float]:
    names = {*noise.by_tensor, *noise.by_weights}
    return {n: noise.by_tensor.get(n, 0.0) + noise.by_weights.get(n, 0.0) for n in names}


# Steps


def _grown(
    form: Form, form_seconds: float, progress: Progress
) -> Iterator[tuple[str, QuantizedGraph, float]]:
    """Yield the form after each correction, with what it is called and the seconds it took."""
    calibrated, recipe = form.calibrated, form.calibrated.recipe
    symmetric = form.quantized.symmetric

    def encoded(of: Calibrated, *, spare_channels: bool = False) -> tuple[Filled, QuantizedGraph]:
        asked = replace(of, recipe=replace(recipe, spare_channels=spare_channels))
        return encode_form(asked, (), symmetric=symmetric)

    started = time.perf_counter()
    filled, plain = encoded(_unequalised(calibrated))
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    per_tensor = with_one_scale(plain)
    yield "plain, one weight scale a tensor", per_tensor, time.perf_counter() - started
    yield "plain, one weight scale a channel", plain, seconds
    current = plain
    if recipe.equalise:
        started = time.perf_counter()
        filled, current = encoded(calibrated)
        yield "+ equalisation", current, time.perf_counter() - started
    if recipe.spare_channels:
        started = time.perf_counter()
        filled, current = encoded(calibrated, spare_channels=True)
        yield "+ spare channels", current, time.perf_counter() - started
    last = "+ learned rounding" if recipe.learned_rounding else "+ bias correction"
    for name, wanted, corrections in (
        (
            "+ bias correction",
            recipe.bias_correction,
            Corrections(learned_rounding=False, bias=True),
        ),
        (
            "+ learned rounding",
            recipe.learned_rounding,
            Corrections(learned_rounding=True, bias=recipe.bias_correction),
        ),
    ):
        if not wanted:
            continue
        if not form.float_layers and name == last:  # that is the form itself
            yield name, form.quantized, form_seconds
            continue
        done = progress.step(f"try {name.removeprefix('+ ')}", total=len(current.layers))
        started = time.perf_counter()
        corrected = correct(
            current,
            filled.statistics,
            calibrated.images,
            corrections=corrections,
            on_layer=done,
        )
        yield name, corrected, time.perf_counter() - started
    if form.float_layers:
        name = f"+ {counted(len(form.float_layers), 'layer')} in float"
        yield name, form.quantized, form_seconds


def _unequalised(calibrated: Calibrated) -> Calibrated:
    """Return the calibration as it is without equalisation."""
    if not calibrated.recipe.equalise:
        return calibrated
    seen = _statistics(calibrated)
    return replace(
        calibrated,
        equalised=Equalised(graph=calibrated.reference, statistics=seen, headroom={}, factors={}),
        ranges=find_ranges(calibrated.recipe, calibrated.reference, seen, {}, calibrated.images),
    )


def with_one_scale(quantized: QuantizedGraph) -> QuantizedGraph:
    """Return `quantized` with one weight scale for all channels of a layer, rounded to nearest."""
    layers = {}
    for op in quantized.graph.weighted():
        if op.name not in quantized.layers:
            continue
        weights = quantized.layers[op.name]
        scale = np.full_like(weights.scale, weights.scale.max())
        values = np.clip(
            np.rint(op.weight / scale[0]), -simulate.WEIGHT_STEPS, simulate.WEIGHT_STEPS
        )
        step = scale.astype(np.float64) * quantized.tensors[op.input].scale
        bias = np.clip(np.rint(op.bias / step), -BIAS_LIMIT, BIAS_LIMIT)
        layers[op.name] = QuantizedWeights(
            values=values.astype(np.int8), scale=scale, bias=bias.astype(np.int32)
        )
    return replace(quantized, layers=layers)


def _judge(
    quantized: QuantizedGraph, jury: Jury, done: Callable[[], None]
) -> tuple[Closeness, Accuracy | None]:
    rows = []
    for chunk in execute.chunks(jury.images):
        rows.append(simulate.execute(quantized, chunk, lambda *_: None).numpy())
        for _ in chunk:
            done()
    found = np.concatenate(rows)
    return jury.compare(found, jury.reference), _accuracy(found, jury)


def _accuracy(logits: Float32Array, jury: Jury) -> Accuracy | None:
    if jury.accepted is None:
        return None
    return score([top_indices(row, 5) for row in logits], jury.accepted)


def _decibel(noise: float) -> float | None:
    """Return noise, as a share of the signal, as an SQNR; None without any."""
    return -10 * math.log10(noise) if noise > 0 else None


def _ratio_db(signal: float, noise: float) -> float | None:
    return 10 * math.log10(signal / noise) if signal and noise else None


def _or_infinite(decibel: float | None) -> float:
    return math.inf if decibel is None else decibel
