"""The cost of MobileNet V1 as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgenet.models.architecture import LayerKind
from edgenet.models.cost import PAPER, LayerCost, ModelCost
from edgenet.report.table import render

SCHEMA_VERSION = "1.0"
CONVENTION = (
    "mult-adds and params count the weights of convolutions and classifier "
    "(no BatchNorm, no bias): the paper's convention"
)


def model_table(model: ModelCost) -> str:
    """Return one model, layer by layer, with totals, shares and the saving."""
    layers = render(
        ("layer", "type", "stride", "filter", "input", "params", "mult-adds"),
        [
            (
                row.layer.name,
                row.layer.kind.value,
                str(row.layer.stride),
                _filter(row),
                f"{row.layer.input_size} x {row.layer.input_size} x {row.layer.in_channels}",
                f"{row.weights:,}",
                f"{row.mult_adds:,}",
            )
            for row in model.layers
        ],
    )
    shares = render(
        ("type", "mult-adds %", "params %"),
        [(kind.value, *(f"{share:.2f}" for share in model.share(kind))) for kind in LayerKind],
    )
    savings = render(
        ("block", "separable / full", "1/N + 1/Dk^2"),
        [(str(row.block), f"{row.ratio:.6f}", f"{row.formula:.6f}") for row in model.savings()],
    )
    body = sum(row.mult_adds for row in model.layers[:-1])
    return "\n\n".join(
        (
            f"MobileNet V1, width multiplier {model.width_multiplier:g}, resolution "
            f"{model.resolution}, {model.num_classes} classes",
            layers,
            f"mult-adds            {model.mult_adds:,}\n"
            f"params               {model.params:,} weights\n"
            f"  trainable          {model.params_trainable:,} (with BatchNorm and bias, as torch)\n"
            f"  Keras count        {model.params_keras:,} (with BatchNorm statistics)\n"
            f"  deployed           {model.params_deployed:,} (BatchNorm folded into a bias)",
            shares,
            savings,
            f"with full 3 x 3 convolutions the body takes {model.full_convolution_mult_adds:,} "
            f"mult-adds instead of {body:,}: {model.full_convolution_mult_adds / body:.2f} times",
            CONVENTION,
        )
    )


def grid_table(models: Sequence[ModelCost]) -> str:
    """Return the grid, one model a line, with the paper's printed figures beside ours."""
    rows = []
    for model in models:
        paper = PAPER.get((model.width_multiplier, model.resolution))
        rows.append(
            (
                f"{model.width_multiplier:g}",
                str(model.resolution),
                f"{model.mult_adds:,}",
                f"{model.params:,}",
                f"{paper.mult_adds_millions} M" if paper else "-",
                f"{paper.params_millions} M" if paper else "-",
                f"{paper.top1}" if paper else "-",
                paper.source if paper else "",
            )
        )
    headers = ("width", "resolution", "mult-adds", "params")
    printed = ("paper mult-adds", "paper params", "paper top-1 %", "in the paper")
    return render((*headers, *printed), rows) + f"\n\n{CONVENTION}"


def model_document(model: ModelCost) -> dict[str, Any]:
    """Return one model as JSON values."""
    return {
        "schema_version": SCHEMA_VERSION,
        **_totals(model),
        "layers": [
            {
                "name": row.layer.name,
                "type": row.layer.kind.value,
                "stride": row.layer.stride,
                "filter_shape": _filter_shape(row),
                "input_shape": [
                    row.layer.input_size,
                    row.layer.input_size,
                    row.layer.in_channels,
                ],
                "output_shape": [
                    row.layer.output_size,
                    row.layer.output_size,
                    row.layer.out_channels,
                ],
                "params": row.weights,
                "mult_adds": row.mult_adds,
            }
            for row in model.layers
        ],
        "share_percent": {
            kind.value: dict(zip(("mult_adds", "params"), model.share(kind), strict=True))
            for kind in LayerKind
        },
        "separable_saving": [
            {"block": row.block, "ratio": row.ratio, "formula": row.formula}
            for row in model.savings()
        ],
        "full_convolution_mult_adds": model.full_convolution_mult_adds,
    }


def grid_document(models: Sequence[ModelCost]) -> dict[str, Any]:
    """Return the grid as JSON values."""
    return {"schema_version": SCHEMA_VERSION, "models": [_totals(model) for model in models]}


def _totals(model: ModelCost) -> dict[str, Any]:
    paper = PAPER.get((model.width_multiplier, model.resolution))
    return {
        "width_multiplier": model.width_multiplier,
        "resolution": model.resolution,
        "classes": model.num_classes,
        "mult_adds": model.mult_adds,
        "params": model.params,
        "params_trainable": model.params_trainable,
        "params_keras": model.params_keras,
        "params_deployed": model.params_deployed,
        "paper": paper
        and {
            "mult_adds_millions": paper.mult_adds_millions,
            "params_millions": paper.params_millions,
            "top1_percent": paper.top1,
            "source": paper.source,
        },
    }


def _filter_shape(row: LayerCost) -> list[int]:
    """Return the filter as the paper writes it: height, width, in, out; dw has one in a channel."""
    layer = row.layer
    if layer.kind is LayerKind.DEPTHWISE:
        return [layer.kernel, layer.kernel, layer.in_channels]
    if layer.kind is LayerKind.FULLY_CONNECTED:
        return [layer.in_channels, layer.out_channels]
    return [layer.kernel, layer.kernel, layer.in_channels, layer.out_channels]


def _filter(row: LayerCost) -> str:
    shape = " x ".join(map(str, _filter_shape(row)))
    return f"{shape} dw" if row.layer.kind is LayerKind.DEPTHWISE else shape
