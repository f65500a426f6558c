"""`edgenet convert`: a model becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgenet.cli.options import (
    LARGEST_SEED,
    JsonOption,
    PrecisionOption,
    RuntimeOption,
    precisions,
    split,
)
from edgenet.cli.output import StepProgress, print_json
from edgenet.errors import UsageError, needs_extra

if TYPE_CHECKING:
    from edgenet.convert.pipeline import Calibration
    from edgenet.models.weights import Choices

EXAMPLES = """\b
Examples:
  edgenet convert -o mobilenet
  edgenet convert --resolution 128 --runtime litert --precision int8 -o small
  edgenet convert --weights fashion-mnist -o fashion
  edgenet convert my_model.safetensors --calibration my_pictures/ -o mine
"""

BUILT_IN_MODEL = "mobilenet_v1"


def convert(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="BUNDLE", help="Folder to write.")
    ],
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="mobilenet_v1, or a safetensors checkpoint.")
    ] = BUILT_IN_MODEL,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="imagenet, fashion-mnist, random, or a safetensors file. Default: imagenet.",
        ),
    ] = None,
    width_multiplier: Annotated[
        float | None,
        typer.Option(metavar="A", help="1/32 to 1. Default: what the weights were made for."),
    ] = None,
    resolution: Annotated[
        int | None,
        typer.Option(metavar="R", help="32 to 512. Default: what the weights were made for."),
    ] = None,
    activation: Annotated[
        str | None, typer.Option(metavar="NAME", help="relu6 or relu, if the file does not say.")
    ] = None,
    padding: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="tf_same, keras or symmetric, if the file does not say."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="One class name a line.")
    ] = None,
    runtime: RuntimeOption = None,
    precision: PrecisionOption = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|CSV",
            help="Pictures like those the camera will see, for INT8. Default: the embedded set.",
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, metavar="N", help="Calibration images to draw.")
    ] = 128,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, metavar="S", help="For every random choice.")
    ] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write ONNX, OpenVINO and TFLite artefacts of a model, float and INT8, as one bundle."""
    with needs_extra("convert"):
        import torch

        from edgenet.convert import pipeline
        from edgenet.models.weights import load_reference
    from edgenet.bundle import load_bundle
    from edgenet.report.inspection import artifact_table, bundle_document

    targets = pipeline.select_targets(split(runtime), precisions(precision))
    torch.set_num_threads(1)  # sums in another order would give other bytes on other machines
    reference = load_reference(
        _weights(model, weights),
        _choices(width_multiplier, resolution, activation, padding, labels, seed),
    )
    with StepProgress() as progress:
        pipeline.convert(
            reference,
            output,
            targets=targets,
            calibration=_calibration(calibration, reference.weights, samples, seed),
            progress=progress,
            replace=force,
        )
    bundle = load_bundle(output)
    if as_json:
        print_json(bundle_document(bundle))
    else:
        typer.echo(f"{output}: {bundle.name}, bundle {bundle.sha256[:12]}\n")
        typer.echo(artifact_table(bundle))


def _weights(model: str, weights: str | None) -> str:
    """Return which weights the two ways of naming them mean."""
    if model == BUILT_IN_MODEL:
        return weights or "imagenet"
    if not Path(model).is_file():
        raise UsageError(
            f"no model {model!r}: give {BUILT_IN_MODEL} or the path of a safetensors checkpoint"
        )
    if weights is not None:
        raise UsageError(f"{model} brings its own weights; leave --weights out")
    return model


def _choices(
    width_multiplier: float | None,
    resolution: int | None,
    activation: str | None,
    padding: str | None,
    labels: Path | None,
    seed: int,
) -> Choices:
    from edgenet.bundle import read_labels
    from edgenet.models.architecture import (
        Activation,
        Padding,
        check_resolution,
        check_width_multiplier,
    )
    from edgenet.models.weights import Choices

    if width_multiplier is not None:
        check_width_multiplier(width_multiplier)
    if resolution is not None:
        check_resolution(resolution)
    for option, name, kind in (
        ("activation", activation, Activation),
        ("padding", padding, Padding),
    ):
        known = [member.value for member in kind]
        if name is not None and name not in known:
            raise UsageError(f"unknown {option} {name!r}: choose from {', '.join(known)}")
    if labels is not None and not labels.is_file():
        raise UsageError(f"{labels}: no such labels file")
    return Choices(
        width_multiplier=width_multiplier,
        resolution=resolution,
        activation=None if activation is None else Activation(activation),
        padding=None if padding is None else Padding(padding),
        labels=None if labels is None else read_labels(labels),
        seed=seed,
    )


def _calibration(source: str | None, weights: str, samples: int, seed: int) -> Calibration:
    from edgenet.convert.pipeline import Calibration
    from edgenet.data import fashion_mnist, photographs
    from edgenet.data.dataset import open_dataset

    if source is not None:
        dataset = open_dataset(source, labelled=False)
    elif weights == "fashion-mnist":
        dataset = fashion_mnist.calibration_set()
    else:
        dataset = photographs.calibration_set()
    return Calibration(dataset=dataset, samples=samples, seed=seed)
