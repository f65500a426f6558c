"""The INT8 form from end to end: calibrate, equalise, choose layers for float, encode, correct.

`calibrate` looks at the images once; `make_form` makes one form of what it saw, `hold_budget` makes
forms with more and more layers in float until a loss is small enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from edgenet.errors import ConversionFailed
from edgenet.graph import Float32Array, Graph, QuantizedGraph, inputs_of
from edgenet.measure.accuracy import score, top_indices
from edgenet.measure.agreement import Closeness, agreement, closeness
from edgenet.preprocess import UInt8Array
from edgenet.quantize import execute, sensitivity, simulate
from edgenet.quantize.correct import Corrections, correct
from edgenet.quantize.encode import encode, with_integer_normaliser
from edgenet.quantize.equalise import Equalised, equalise
from edgenet.quantize.ranges import Range, find_ranges
from edgenet.quantize.recipe import Recipe
from edgenet.quantize.sensitivity import Choice, Noise
from edgenet.quantize.spare import Filled, fill_spare_channels
from edgenet.quantize.statistics import ChannelStatistics, collect, merge


class Progress(Protocol):
    """Where the work says how far it is."""

    def step(self, description: str, *, total: int = 1) -> Callable[[], None]:
        """Begin a step of `total` parts; the function returned marks one as done."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibrated:
    """What the calibration set shows, for every form that is made of it."""

    recipe: Recipe
    images: Sequence[UInt8Array]
    """(1, H, W, 3) uint8 RGB."""
    reference: Graph
    equalised: Equalised
    ranges: Mapping[str, Range]
    noise: Noise
    """To be expected of the form with nothing in float."""
    ranking: tuple[Choice, ...]
    halves: tuple[Mapping[str, ChannelStatistics], Mapping[str, ChannelStatistics]]
    """What every second image and what the others show of the reference."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Form:
    """One INT8 form of a network."""

    calibrated: Calibrated
    filled: Filled
    """Its graph in float."""
    plain: QuantizedGraph
    """Before the corrections."""
    quantized: QuantizedGraph
    float_layers: tuple[str, ...]

    @property
    def output_steps(self) -> Mapping[str, float]:
        """Return the scale that each output has in 8 bits, or would have where it stays float."""
        outputs = self.quantized.graph.outputs
        return {name: self._step(tensor) for tensor, name in outputs.items()}

    def _step(self, tensor: str) -> float:
        if tensor in self.quantized.tensors:
            return self.quantized.tensors[tensor].scale
        low, high = self.calibrated.ranges[tensor]
        return (max(high, 0.0) - min(low, 0.0)) / simulate.STEPS


def calibrate(
    graph: Graph, images: Sequence[UInt8Array], recipe: Recipe, *, seed: int, progress: Progress
) -> Calibrated:
    """Return what `images`, (1, H, W, 3) uint8 RGB, show of `graph`."""
    done = progress.step("calibrate", total=len(images))
    halves = images[::2], images[1::2] or images
    first, second = (collect(graph, half, on_image=done) for half in halves)
    seen = merge(first, second, share=len(halves[0]) / sum(map(len, halves)))
    equalised = (
        equalise(graph, seen)
        if recipe.equalise
        else Equalised(graph=graph, statistics=seen, headroom={}, factors={})
    )
    again = recipe.ranges != "minmax"
    ranges = find_ranges(
        recipe,
        equalised.graph,
        equalised.statistics,
        equalised.headroom,
        images,
        on_image=progress.step(f"ranges by {recipe.ranges}", total=len(images))
        if again
        else lambda: None,
    )
    done = progress.step("rank layers")
    _, plain = _encode(recipe, equalised, lambda graph: encode(graph, ranges, float_output=True))
    noise = sensitivity.measure_noise(plain, images, seed=seed)
    if recipe.learned_rounding:
        noise = noise.with_learned_rounding()
    ranking = sensitivity.rank(equalised.graph, noise)
    done()
    return Calibrated(
        recipe=recipe,
        images=images,
        reference=graph,
        equalised=equalised,
        ranges=ranges,
        noise=noise,
        ranking=ranking,
        halves=(first, second),
    )


def make_form(
    calibrated: Calibrated,
    float_layers: Sequence[str],
    *,
    symmetric: bool = False,
    progress: Progress,
) -> Form:
    """Return the INT8 form with `float_layers` in float, corrected as the recipe says."""
    filled, plain = encode_form(calibrated, float_layers, symmetric=symmetric)
    recipe = calibrated.recipe
    what = "correct TensorRT's layers" if symmetric else "correct layers"
    quantized = correct(
        plain,
        filled.statistics,
        calibrated.images,
        corrections=Corrections(
            learned_rounding=recipe.learned_rounding, bias=recipe.bias_correction
        ),
        on_layer=progress.step(what, total=len(plain.layers)),
    )
    return Form(
        calibrated=calibrated,
        filled=filled,
        plain=plain,
        quantized=quantized,
        float_layers=tuple(
            op.name for op in calibrated.reference.weighted() if op.name in float_layers
        ),
    )


def encode_form(
    calibrated: Calibrated,
    float_layers: Sequence[str],
    *,
    symmetric: bool = False,
) -> tuple[Filled, QuantizedGraph]:
    """Return the INT8 form with weights rounded to nearest, before any correction, and its graph.

    The graph in float is the equalised one, with copies in its spare channels.
    """
    equalised = calibrated.equalised
    graph = equalised.graph
    wide_layers = (
        () if symmetric else sensitivity.wide_layers(graph, calibrated.noise, float_layers)
    )
    image = graph.operators[0].name
    readers = {op.name for op in graph.operators if image in inputs_of(op)}
    if not symmetric and not readers.issubset(float_layers):
        equalised = replace(equalised, graph=with_integer_normaliser(graph))

    def encoded(graph: Graph) -> QuantizedGraph:
        return encode(
            graph,
            calibrated.ranges,
            float_layers=float_layers,
            wide_layers=wide_layers,
            float_output=True,
            symmetric=symmetric,
        )

    return _encode(calibrated.recipe, equalised, encoded)


def _encode(
    recipe: Recipe, equalised: Equalised, encoded: Callable[[Graph], QuantizedGraph]
) -> tuple[Filled, QuantizedGraph]:
    """Return a graph, its spare channels used if the recipe says so, and its INT8 form."""
    filled = Filled(graph=equalised.graph, statistics=equalised.statistics, copies={}, left_out={})
    plain = encoded(filled.graph)
    if recipe.spare_channels:
        filled = fill_spare_channels(filled.graph, plain, filled.statistics)
        plain = encoded(filled.graph) if filled.copies or filled.left_out else plain
    return filled, plain


@dataclass(frozen=True, kw_only=True, eq=False)
class Jury:
    """Pictures that a form is judged on, and what the reference says of them."""

    on: str
    """What they are, for messages and the manifest."""
    images: Sequence[UInt8Array]
    """(1, H, W, 3) uint8 RGB."""
    reference: Float32Array
    """(n, values): a classifier's logits, or all outputs of another network."""
    compare: Callable[[Float32Array, Float32Array], Closeness]
    """How values and the reference's are: for a classifier an `Agreement`."""
    accepted: Sequence[frozenset[int]] | None = None
    """Labels that count as right, where there are any."""

    def agreement(self, quantized: QuantizedGraph) -> Closeness:
        """Return how a form's answers agree with the reference's."""
        return self.compare(simulate.answers(quantized, self.images), self.reference)

    def drop(self, quantized: QuantizedGraph) -> float:
        """Return how many points of top-1 accuracy a form loses; below 0 it gains."""
        assert self.accepted is not None
        ours, theirs = (
            score([top_indices(row, 5) for row in rows], self.accepted).top1.percent
            for rows in (simulate.answers(quantized, self.images), self.reference)
        )
        return theirs - ours


def jury(
    on: str,
    graph: Graph,
    images: Sequence[UInt8Array],
    accepted: Sequence[frozenset[int]] | None = None,
) -> Jury:
    """Return a jury of `images`, (1, H, W, 3) uint8 RGB, with the answers of `graph`."""
    return Jury(
        on=on,
        images=images,
        reference=execute.answers(graph, images),
        compare=agreement if graph.is_classifier else closeness,
        accepted=accepted,
    )


@dataclass(frozen=True, kw_only=True)
class Limit:
    """How much INT8 may lose."""

    name: str
    """The option that sets it."""
    unit: str
    allowed: float
    """Least SQNR in dB, or most points of accuracy lost, as a negative number."""
    measure: Callable[[QuantizedGraph], float]
    """What is compared with it; more is better."""


def hold_limits(
    calibrated: Calibrated,
    limits: Sequence[Limit],
    *,
    full_integer: bool,
    symmetric: bool = False,
    progress: Progress,
) -> Form:
    """Return the form with the fewest layers in float, down the ranking, that keeps every limit.

    Without limits that is the default form, or the full-integer one. Raises `ConversionFailed` with
    the best that was found when no form keeps them.
    """
    ranking = calibrated.ranking
    free = () if full_integer else sensitivity.free_layers(ranking)
    count = len(free)
    while True:
        layers = tuple(choice.layer for choice in ranking[:count])
        form = make_form(calibrated, layers, symmetric=symmetric, progress=progress)
        missed = [limit for limit in limits if limit.measure(form.quantized) < limit.allowed]
        if not missed:
            return form
        if full_integer or count >= len(ranking) - 1:  # the last one would leave nothing in INT8
            raise ConversionFailed(_too_far(form, missed[0], full_integer=full_integer))
        count = _more(ranking, count, missed[0], form)


def _more(ranking: Sequence[Choice], count: int, missed: Limit, form: Form) -> int:
    """Return how many layers to try next: as many as are predicted to make up for what is missed.

    Accuracy has no prediction; two more layers are tried.
    """
    most = len(ranking) - 1
    if missed.unit != "dB":
        return min(count + 2, most)
    wanted = missed.allowed - missed.measure(form.quantized)
    now = ranking[count - 1].predicted_sqnr_db if count else ranking[0].predicted_sqnr_db
    for number in range(count + 1, most):
        if ranking[number - 1].predicted_sqnr_db - now >= wanted:
            return number
    return most


def _too_far(form: Form, missed: Limit, *, full_integer: bool) -> str:
    reached = missed.measure(form.quantized)
    where = "the full-integer form" if full_integer else "INT8, whatever is left in float,"
    return (
        f"{where} cannot hold {missed.name} {abs(missed.allowed):g}: it reaches "
        f"{abs(reached):.2f} {missed.unit}, {missed.allowed - reached:.2f} {missed.unit} short; "
        + ("leave out --full-integer, or " if full_integer else "")
        + "allow more loss or give more calibration images"
    )
