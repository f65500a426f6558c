"""What is converted: a graph with all that belongs to it, wherever it came from.

`of_reference` takes the built-in network with its weights, `of_onnx` another network's file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgenet.bundle import Model, Output
from edgenet.errors import BadData
from edgenet.graph import LOGITS, Float32Array, Graph, Normalise
from edgenet.models.fold import fold
from edgenet.models.onnx_file import ImportedModel, import_onnx, run_file
from edgenet.models.weights import ARCHITECTURE, Reference
from edgenet.preprocess import Preprocessing, UInt8Array
from edgenet.runtimes.torch import TorchSession


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A network that is ready to convert."""

    name: str
    """For file names."""
    graph: Graph
    answers: Callable[[UInt8Array], Float32Array]
    """What files must answer: the original's own outputs one after the other, (N, values), for
    (N, H, W, 3) uint8 RGB; maps with their channels last."""
    original: str
    """What gives these answers, for messages."""
    mean: tuple[float, ...]
    """Per channel, in steps of the input byte."""
    std: tuple[float, ...]
    """Per channel, in steps of the input byte."""
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    """Empty for what is no classifier."""
    licence: str
    model: Model
    notes: tuple[str, ...] = ()
    """What a user should know about the reading of it."""

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Return what the network gives out, in the manifest's order."""
        shapes = self.graph.output_shapes
        return tuple(
            Output(name=name, shape=shapes[name], layer=layer)
            for layer, name in self.graph.outputs.items()
        )


def of_reference(reference: Reference) -> Source:
    """Return MobileNet V1 with its weights, BatchNorm folded."""
    module = reference.module

    def answers(images: UInt8Array) -> Float32Array:
        session = TorchSession(
            module, resolution=module.resolution, mean=reference.mean, std=reference.std
        )
        return np.concatenate([session.run(image[None])["logits"] for image in images])

    return Source(
        name=reference.name,
        graph=fold(module, name=reference.name, mean=reference.mean, std=reference.std),
        answers=answers,
        original="torch",
        mean=reference.mean,
        std=reference.std,
        preprocessing=reference.preprocessing,
        labels=reference.labels,
        licence=reference.licence,
        model=Model(
            architecture=ARCHITECTURE,
            width_multiplier=module.width_multiplier,
            resolution=module.resolution,
            num_classes=module.num_classes,
            activation=module.activation.value,
            padding=module.padding.value,
            weights=reference.weights,
            weights_sha256=reference.weights_sha256,
            trained=reference.trained,
        ),
    )


def of_onnx(
    path: Path,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    resolution: int | None,
    crop_fraction: float,
    labels: tuple[str, ...] | None,
    outputs: Sequence[str] = (),
) -> Source:
    """Return the network in an ONNX file; without `labels` the classes of one are numbered.

    `mean` and `std` in steps of the byte, `outputs` the file's outputs to take, all if none is
    named. Raises `BadWeights` or `UnsupportedOperator` for a file that takes no image or holds what
    no graph can, `BadData` for labels that are not as many as classes.
    """
    imported = import_onnx(path, mean=mean, std=std, resolution=resolution, outputs=outputs)
    classes = imported.graph.output_shapes[LOGITS][1] if imported.graph.is_classifier else None
    if labels is not None and classes is None:
        names = ", ".join(imported.graph.outputs.values())
        raise BadData(
            f"{path}: is no classifier (its outputs are {names}), so --labels has nothing to name; "
            "leave it out, or choose a classifier's output with --take"
        )
    if labels is not None and len(labels) != classes:
        raise BadData(f"{path}: has {classes} classes, but --labels names {len(labels)}")

    def answers(images: UInt8Array) -> Float32Array:
        return run_file(imported, path, images)

    # What the file does to its input by itself is in there too.
    normalise = imported.graph.operators[0]
    assert isinstance(normalise, Normalise)

    return Source(
        name=imported.graph.name,
        graph=imported.graph,
        answers=answers,
        original=f"{path.name} in ONNX Runtime",
        mean=_decimals(normalise.mean),
        std=_decimals(normalise.std),
        preprocessing=Preprocessing(resolution=imported.resolution, crop_fraction=crop_fraction),
        labels=labels or tuple(f"class {number}" for number in range(classes or 0)),
        licence="not stated",
        model=_model(imported, path, classes),
        notes=imported.notes,
    )


def _model(imported: ImportedModel, path: Path, classes: int | None) -> Model:
    return Model(
        architecture=imported.graph.name,
        width_multiplier=None,
        resolution=imported.resolution,
        num_classes=classes,
        activation=None,
        padding=None,
        weights=path.name,
        weights_sha256=imported.sha256,
        trained=True,
    )


def _decimals(values: Float32Array) -> tuple[float, ...]:
    """Return the shortest decimals that stand for the same float32."""
    return tuple(float(str(value)) for value in values)
