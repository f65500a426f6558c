"""`edgenet convert`: a model becomes a bundle."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgenet.cli.options import (
    LARGEST_SEED,
    JsonOption,
    PrecisionOption,
    RuntimeOption,
    finite,
    precisions,
    split,
)
from edgenet.cli.output import StepProgress, print_json
from edgenet.errors import UsageError, needs_extra

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgenet.convert.calibration import Calibration
    from edgenet.convert.limits import Int8Options
    from edgenet.convert.pipeline import Target
    from edgenet.convert.source import Source
    from edgenet.models.weights import Choices

EXAMPLES = """\b
Examples:
  edgenet convert -o mobilenet
  edgenet convert --resolution 128 --runtime litert --precision int8 -o small
  edgenet convert --weights fashion-mnist -o fashion
  edgenet convert my_model.safetensors --calibration my_pictures/ -o mine
  edgenet convert resnet.onnx --mean 123.675,116.28,103.53 --std 58.395,57.12,57.375 -o resnet
  edgenet convert --full-integer --runtime litert --precision int8 -o for_an_accelerator
  edgenet convert --min-sqnr 30 -o nearer
"""

BUILT_IN_MODEL = "mobilenet_v1"
LARGEST_SQNR_DB = 200
"""Beyond what float32 itself can hold; keeps infinity out."""
MOST_POINTS = 100


def convert(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="BUNDLE", help="Folder to write.")
    ],
    model: Annotated[
        str,
        typer.Argument(
            metavar="[MODEL]", help="mobilenet_v1, a safetensors checkpoint, or an ONNX file."
        ),
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
    mean: Annotated[
        str | None,
        typer.Option(metavar="R,G,B", help="Of an ONNX file's input, in steps of 0 to 255."),
    ] = None,
    std: Annotated[
        str | None,
        typer.Option(metavar="R,G,B", help="Of an ONNX file's input, in steps of 0 to 255."),
    ] = None,
    crop_fraction: Annotated[
        float,
        typer.Option(
            min=0.1,
            max=1,
            metavar="F",
            callback=finite,
            help="Of an ONNX file's pictures: how much of them is seen.",
        ),
    ] = 0.875,
    take: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Of an ONNX file's outputs, those to take; repeat it or use commas. Default: all.",
        ),
    ] = None,
    runtime: RuntimeOption = None,
    precision: PrecisionOption = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|CSV",
            help="Pictures like those the camera will see, for INT8 and to check every file. "
            "Default: the embedded set.",
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Calibration images to draw. Default: 128."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="minmax, percentile, mse, entropy, or a JSON file of yours. Default: minmax.",
        ),
    ] = None,
    full_integer: Annotated[
        bool,
        typer.Option(
            "--full-integer", help="INT8 without any layer in float, for accelerators that need it."
        ),
    ] = False,
    min_sqnr: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=LARGEST_SQNR_DB,
            metavar="DB",
            callback=finite,
            help="Put layers back in float until INT8's logits are this near.",
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=MOST_POINTS,
            metavar="POINTS",
            callback=finite,
            help="The same until top-1 on --data falls by no more.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="NAME|DIR|CSV", help="Labelled pictures for --max-drop."),
    ] = None,
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
    from edgenet.manifest import load_bundle
    from edgenet.report.inspection import artifact_table, bundle_document, quantization_text

    targets = pipeline.select_targets(split(runtime), precisions(precision))
    _check_int8_is_written(
        targets,
        {
            "--recipe": recipe,
            "--full-integer": full_integer or None,
            "--min-sqnr": min_sqnr,
            "--max-drop": max_drop,
        },
    )
    _check_samples(samples, min_sqnr)
    int8 = _int8_options(recipe, full_integer, min_sqnr, max_drop, data)
    torch.set_num_threads(1)  # sums in another order would give other bytes on other machines
    choices = _choices(width_multiplier, resolution, activation, padding, labels, seed)
    source = (
        _onnx_source(
            model,
            weights,
            choices,
            (_numbers("--mean", mean), _numbers("--std", std)),
            crop_fraction,
            split(take),
        )
        if _is_onnx(model)
        else _reference_source(_weights(model, weights), choices, mean, std, take)
    )
    with StepProgress() as progress:
        pipeline.convert(
            source,
            output,
            targets=targets,
            calibration=_calibration(calibration, source.model.weights, samples, seed),
            int8=int8,
            progress=progress,
            replace=force,
        )
    bundle = load_bundle(output)
    if as_json:
        print_json(bundle_document(bundle))
    else:
        typer.echo(f"{output}: {bundle.name}, bundle {bundle.sha256[:12]}\n")
        typer.echo(artifact_table(bundle))
        if bundle.quantizations:
            typer.echo("\n" + quantization_text(bundle))


def _check_int8_is_written(targets: Sequence[Target], options: Mapping[str, object]) -> None:
    """Raise `UsageError` for options of INT8 (None where not given) that would do nothing."""
    from edgenet.bundle import Precision

    idle = [name for name, value in options.items() if value is not None]
    if idle and all(target.precision is not Precision.INT8 for target in targets):
        raise UsageError(
            f"{', '.join(idle)}: nothing in INT8 is written; leave it out, or add int8 to "
            "--precision"
        )


def _check_samples(samples: int | None, min_sqnr: float | None) -> None:
    """Raise `UsageError` where so few images are asked for that none can judge."""
    from edgenet.convert.calibration import FEWEST_TO_HOLD_OUT

    if min_sqnr is not None and samples is not None and samples < FEWEST_TO_HOLD_OUT:
        raise UsageError(
            f"--samples {samples}: --min-sqnr judges on a quarter of the calibration set; give "
            f"--samples {FEWEST_TO_HOLD_OUT} or more"
        )


def _int8_options(
    recipe: str | None,
    full_integer: bool,
    min_sqnr: float | None,
    max_drop: float | None,
    data: str | None,
) -> Int8Options:
    from edgenet.convert.limits import Int8Options
    from edgenet.data.dataset import open_dataset
    from edgenet.quantize.recipe import DEFAULT, load_recipe

    if max_drop is not None and data is None:
        raise UsageError("--max-drop needs labelled pictures: give --data, or use --min-sqnr")
    if data is not None and max_drop is None:
        raise UsageError("--data is for --max-drop; give how many points may be lost")
    return Int8Options(
        recipe=load_recipe(DEFAULT if recipe is None else recipe),
        full_integer=full_integer,
        min_sqnr_db=min_sqnr,
        max_drop_points=max_drop,
        labelled=None if data is None else open_dataset(data, labelled=True),
    )


def _is_onnx(file: str) -> bool:
    return Path(file).suffix.lower() == ".onnx"


def _reference_source(
    weights: str,
    choices: Choices,
    mean: str | None,
    std: str | None,
    take: list[str] | None,
) -> Source:
    from edgenet.convert.source import of_reference
    from edgenet.models.weights import load_reference

    if mean is not None or std is not None:
        raise UsageError("--mean and --std are for ONNX files; weights bring their own")
    if take:
        raise UsageError("--take is for ONNX files; MobileNet V1 has logits only")
    return of_reference(load_reference(weights, choices))


def _onnx_source(
    model: str,
    weights: str | None,
    choices: Choices,
    normalisation: tuple[tuple[float, ...] | None, tuple[float, ...] | None],
    crop_fraction: float,
    outputs: tuple[str, ...],
) -> Source:
    from edgenet.convert.source import of_onnx

    mean, std = normalisation

    if not Path(model).is_file():
        raise UsageError(f"{model}: no such ONNX file")
    if weights or choices.width_multiplier or choices.activation or choices.padding:
        raise UsageError(
            f"{model} brings its own weights and layers; leave out --weights, --width-multiplier, "
            "--activation and --padding"
        )
    if mean is None or std is None:
        raise UsageError(
            f"{model} does not say what its input is normalised by: give --mean and --std in steps "
            "of 0 to 255; usual are 123.675,116.28,103.53 and 58.395,57.12,57.375, or 127.5 and "
            "127.5; 0 and 1 for a file that takes bytes"
        )
    return of_onnx(
        Path(model),
        mean=mean,
        std=std,
        resolution=choices.resolution,
        crop_fraction=crop_fraction,
        labels=choices.labels,
        outputs=outputs,
    )


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Return one number or three, in steps of the byte."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3) or not all(map(math.isfinite, values)):
        raise UsageError(f"{option} {text}: give one number or three, such as 127.5 or 124,116,104")
    if option == "--std" and min(values) < 1:
        raise UsageError(
            f"{option} {text}: is for pixels from 0 to 1; give it in steps of 0 to 255, that is "
            + ",".join(f"{255 * value:g}" for value in values)
        )
    return values


def _weights(model: str, weights: str | None) -> str:
    """Return which weights the two ways of naming them mean."""
    if weights is not None and _is_onnx(weights):
        raise UsageError(
            f"--weights {weights}: an ONNX file brings its own layers; give it as MODEL: "
            f"edgenet convert {weights} --mean ... --std ... -o BUNDLE"
        )
    if model == BUILT_IN_MODEL:
        return weights or "imagenet"
    if not Path(model).is_file():
        raise UsageError(
            f"no model {model!r}: give {BUILT_IN_MODEL}, an ONNX file or a safetensors checkpoint"
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
    from edgenet.manifest import read_labels
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


def _calibration(source: str | None, weights: str, samples: int | None, seed: int) -> Calibration:
    from edgenet.convert.calibration import Calibration
    from edgenet.data import fashion_mnist, photographs
    from edgenet.data.dataset import open_dataset

    if source is not None:
        dataset = open_dataset(source, labelled=False)
    elif weights == "fashion-mnist":
        dataset = fashion_mnist.calibration_set()
    else:
        dataset = photographs.calibration_set()
    return Calibration(dataset=dataset, samples=samples, seed=seed)
