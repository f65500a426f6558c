"""What a MobileNet V1 costs: multiply-adds and parameters, counted the paper's way.

The convention, found by reproducing the paper's Table 2 to its last digit: multiply-adds are the
weights of convolutions and classifier times the positions they are applied to; parameters are
those weights alone. BatchNorm, biases and pooling count nothing. The other conventions in use
(trainable, Keras, folded for deployment) are given beside it. Knows no tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgenet.models.architecture import Layer, LayerKind, layers


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One layer and what it costs."""

    layer: Layer
    weights: int
    mult_adds: int


@dataclass(frozen=True, kw_only=True)
class SeparableSaving:
    """A depthwise separable block against the full convolution it replaces (paper, section 3.1)."""

    block: int
    ratio: float
    """Multiply-adds of the depthwise and pointwise layers over those of the full convolution."""
    formula: float
    """1/N + 1/Dk^2, with N output channels and a Dk x Dk kernel."""


@dataclass(frozen=True, kw_only=True)
class ModelCost:
    """The cost of a whole network."""

    width_multiplier: float
    resolution: int
    num_classes: int
    layers: tuple[LayerCost, ...]
    mult_adds: int
    params: int
    """Weights only: the paper's convention."""
    params_trainable: int
    """Weights, BatchNorm gamma and beta, classifier bias: what torch counts."""
    params_keras: int
    """Trainable and the BatchNorm statistics: Keras' `count_params`."""
    params_deployed: int
    """Weights and one bias a channel, BatchNorm folded: what an artefact stores."""
    full_convolution_mult_adds: int
    """The same network with full 3 x 3 convolutions, classifier left out (paper, Table 4)."""

    def share(self, kind: LayerKind) -> tuple[float, float]:
        """Return the (mult-adds, params) percentages of one layer type (paper, Table 2)."""
        rows = [row for row in self.layers if row.layer.kind is kind]
        return (
            100 * sum(row.mult_adds for row in rows) / self.mult_adds,
            100 * sum(row.weights for row in rows) / self.params,
        )

    def savings(self) -> tuple[SeparableSaving, ...]:
        """Return the 13 blocks' saving, counted and by the formula."""
        body = self.layers[1:-1]
        return tuple(
            SeparableSaving(
                block=number,
                ratio=(depthwise.mult_adds + pointwise.mult_adds)
                / _full_convolution(depthwise.layer, pointwise.layer),
                formula=1 / pointwise.layer.out_channels + 1 / depthwise.layer.kernel**2,
            )
            for number, (depthwise, pointwise) in enumerate(
                zip(body[::2], body[1::2], strict=True), start=1
            )
        )


def count(
    *, width_multiplier: float = 1.0, resolution: int = 224, num_classes: int = 1000
) -> ModelCost:
    """Count one network; raises `UsageError` for one that does not exist."""
    table = layers(
        width_multiplier=width_multiplier, resolution=resolution, num_classes=num_classes
    )
    rows = tuple(_cost(layer) for layer in table)
    weights = sum(row.weights for row in rows)
    norms = sum(layer.out_channels for layer in table[:-1])
    body = table[1:-1]
    return ModelCost(
        width_multiplier=width_multiplier,
        resolution=resolution,
        num_classes=num_classes,
        layers=rows,
        mult_adds=sum(row.mult_adds for row in rows),
        params=weights,
        params_trainable=weights + 2 * norms + num_classes,
        params_keras=weights + 4 * norms + num_classes,
        params_deployed=weights + norms + num_classes,
        full_convolution_mult_adds=rows[0].mult_adds
        + sum(_full_convolution(dw, pw) for dw, pw in zip(body[::2], body[1::2], strict=True)),
    )


GRID_WIDTH_MULTIPLIERS = (1.0, 0.75, 0.5, 0.25)
GRID_RESOLUTIONS = (224, 192, 160, 128)


def grid(num_classes: int = 1000) -> tuple[ModelCost, ...]:
    """Return the paper's 16 models (Figures 4 and 5): 4 width multipliers at 4 resolutions."""
    return tuple(
        count(width_multiplier=alpha, resolution=size, num_classes=num_classes)
        for alpha in GRID_WIDTH_MULTIPLIERS
        for size in GRID_RESOLUTIONS
    )


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """What the paper prints for a model: ImageNet top-1 %, millions of mult-adds and parameters."""

    top1: float
    mult_adds_millions: int
    params_millions: float
    source: str


PAPER = {
    (1.0, 224): PaperRow(
        top1=70.6, mult_adds_millions=569, params_millions=4.2, source="Tables 6 and 7"
    ),
    (0.75, 224): PaperRow(top1=68.4, mult_adds_millions=325, params_millions=2.6, source="Table 6"),
    (0.5, 224): PaperRow(top1=63.7, mult_adds_millions=149, params_millions=1.3, source="Table 6"),
    (0.25, 224): PaperRow(top1=50.6, mult_adds_millions=41, params_millions=0.5, source="Table 6"),
    (1.0, 192): PaperRow(top1=69.1, mult_adds_millions=418, params_millions=4.2, source="Table 7"),
    # 290.7 million; the paper cuts where it rounds elsewhere.
    (1.0, 160): PaperRow(top1=67.2, mult_adds_millions=290, params_millions=4.2, source="Table 7"),
    (1.0, 128): PaperRow(top1=64.4, mult_adds_millions=186, params_millions=4.2, source="Table 7"),
}
"""Printed figures by (width multiplier, resolution); the paper tabulates 7 of the 16."""


def _cost(layer: Layer) -> LayerCost:
    weights = layer.kernel**2 * layer.in_channels // layer.groups * layer.out_channels
    return LayerCost(layer=layer, weights=weights, mult_adds=weights * layer.output_size**2)


def _full_convolution(depthwise: Layer, pointwise: Layer) -> int:
    return (
        depthwise.kernel**2
        * depthwise.in_channels
        * pointwise.out_channels
        * pointwise.output_size**2
    )
