"""Checkpoints in and out: from a safetensors file to a reference that is ready to convert.

Two namings are understood: TF-Slim's (Google's checkpoints, convolution HWIO, depthwise HWC1) and
edgenet's own (`MobileNetV1.state_dict()`). What a checkpoint cannot say by itself - activation,
padding, preprocessing, labels - stands in the safetensors header, is fixed by the naming (TF-Slim)
or is asked for: a wrong guess moves the logits of trained weights by several units.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from edgenet.errors import BadWeights, UsageError
from edgenet.models.architecture import Activation, Layer, LayerKind, Padding, layers
from edgenet.models.mobilenet_v1 import MobileNetV1, initialise
from edgenet.models.safetensors_file import read_safetensors
from edgenet.preprocess import Preprocessing

Tensors = Mapping[str, npt.NDArray[np.float32]]

ARCHITECTURE = "mobilenet_v1"
RANDOM = "random"


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A checkpoint that comes with edgenet."""

    file: str
    sha256: str
    width_multiplier: float


PRETRAINED = {
    "imagenet": Pretrained(
        file="mobilenet_v1_1.0_224_imagenet.safetensors",
        sha256="87c2b79ba25ee38e04e11fe1b336c0177d780a81a9d13da890a91399301a410a",
        width_multiplier=1.0,
    ),
    "fashion-mnist": Pretrained(
        file="mobilenet_v1_0.5_64_fashion_mnist.safetensors",
        sha256="9ec5f4b80ecb9d74f1de70f112df225497bb1e39ddb783fd1960f0b18b4cdd43",
        width_multiplier=0.5,
    ),
}
"""Built-in weights by the name that `--weights` takes."""

TF_SLIM_LABELS = "imagenet_1001_labels.txt"
"""Google's checkpoints have the 1,000 ImageNet classes after a background class."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """A network that is ready to convert: the torch module and all that its weights imply."""

    name: str
    """For file names: architecture, width multiplier and resolution."""
    module: MobileNetV1
    mean: tuple[float, ...]
    """Per channel, in steps of the input byte."""
    std: tuple[float, ...]
    """Per channel, in steps of the input byte."""
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    weights: str
    """A built-in name, `random`, or the checkpoint's file name."""
    weights_sha256: str
    """Of the checkpoint's file, or of the random tensors."""
    licence: str

    @property
    def trained(self) -> bool:
        """Tell whether an accuracy of this network means anything."""
        return self.weights != RANDOM


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the user asked for; None means: as the checkpoint says."""

    width_multiplier: float | None = None
    resolution: int | None = None
    activation: Activation | None = None
    padding: Padding | None = None
    labels: tuple[str, ...] | None = None
    seed: int = 0
    """For random weights only."""


def load_reference(weights: str, choices: Choices) -> Reference:
    """Return the reference for a built-in name, `random`, or the path of a checkpoint.

    Raises `UsageError` when no such weights exist for the width multiplier asked for, `BadWeights`
    when a file is damaged or belongs to another network.
    """
    if weights == RANDOM:
        return _random_reference(choices)
    pretrained = PRETRAINED.get(weights)
    if pretrained is None:
        path = Path(weights)
        if not path.is_file():
            raise UsageError(
                f"no weights called {weights!r}: give a safetensors file, "
                f"{', '.join(PRETRAINED)} or {RANDOM}"
            )
        return _checkpoint_reference(path, path.name, choices)
    wanted = choices.width_multiplier
    if wanted is not None and wanted != pretrained.width_multiplier:
        raise UsageError(
            f"no {weights} weights for width multiplier {wanted:g}; built in are "
            + ", ".join(f"{n} at {p.width_multiplier:g}" for n, p in PRETRAINED.items())
            + f"; or --weights {RANDOM}, or a file of your own"
        )
    path = Path(str(files("edgenet.models") / "pretrained" / pretrained.file))
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
    if found != pretrained.sha256:
        raise BadWeights(
            f"{path}: built-in weights are altered or missing (sha256 {found[:12]}, expected "
            f"{pretrained.sha256[:12]}); install edgenet again"
        )
    return _checkpoint_reference(path, weights, choices)


def save_checkpoint(
    model: MobileNetV1,
    path: Path,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    crop_fraction: float,
    labels: tuple[str, ...],
    licence: str,
) -> None:
    """Write `model` as a safetensors file that says all that `convert` needs to know."""
    from safetensors.torch import save_file

    save_file(
        {
            name: tensor.detach().contiguous()
            for name, tensor in model.state_dict().items()
            if not name.endswith("num_batches_tracked")
        },
        path,
        metadata={
            "architecture": ARCHITECTURE,
            "width_multiplier": str(model.width_multiplier),
            "resolution": str(model.resolution),
            "activation": model.activation.value,
            "padding": model.padding.value,
            "mean": json.dumps(mean),
            "std": json.dumps(std),
            "crop_fraction": str(crop_fraction),
            "labels": json.dumps(labels),
            "licence": licence,
        },
    )


def _random_reference(choices: Choices) -> Reference:
    model = MobileNetV1(
        1.0 if choices.width_multiplier is None else choices.width_multiplier,
        choices.resolution or 224,
        1000 if choices.labels is None else len(choices.labels),
        activation=choices.activation or Activation.RELU6,
        padding=choices.padding or Padding.TF_SAME,
    )
    initialise(model, seed=choices.seed)
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    return Reference(
        name=_name(model),
        module=model.eval(),
        mean=(127.5,) * 3,
        std=(127.5,) * 3,
        preprocessing=Preprocessing(resolution=model.resolution),
        labels=choices.labels or _numbered(model.num_classes),
        weights=RANDOM,
        weights_sha256=digest.hexdigest(),
        licence="none",
    )


def _checkpoint_reference(path: Path, weights: str, choices: Choices) -> Reference:
    tensors, header = read_safetensors(path)
    if any(name.startswith("MobilenetV1/") for name in tensors):
        tensors, header = _from_tf_slim(tensors), _tf_slim_facts(header)
    facts = _Facts(path=path, header=header)
    width_multiplier, num_classes = _measure(tensors, path, facts, choices)
    labels = choices.labels or facts.labels(num_classes)
    if len(labels) != num_classes:
        raise BadWeights(f"{path}: has {num_classes} classes, but {len(labels)} labels are given")
    model = MobileNetV1(
        width_multiplier,
        choices.resolution or int(facts.number("resolution", 224)),
        num_classes,
        activation=choices.activation or facts.activation(),
        padding=choices.padding or facts.padding(),
    )
    _fill(model, tensors, path)
    return Reference(
        name=_name(model),
        module=model.eval(),
        mean=facts.per_channel("mean"),
        std=facts.per_channel("std"),
        preprocessing=Preprocessing(
            resolution=model.resolution, crop_fraction=facts.number("crop_fraction", 0.875)
        ),
        labels=labels,
        weights=weights,
        weights_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        licence=header.get("licence", "unknown"),
    )


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """The header of a checkpoint, read value by value with errors that name the key."""

    path: Path
    header: Mapping[str, str]

    def number(self, key: str, default: float) -> float:
        try:
            return float(self.header.get(key, default))
        except ValueError:
            raise self._wrong(key, "a number") from None

    def per_channel(self, key: str) -> tuple[float, ...]:
        try:
            values = tuple(
                float(v) for v in json.loads(self.header.get(key, "[127.5,127.5,127.5]"))
            )
        except (ValueError, TypeError):
            raise self._wrong(key, "three numbers in a JSON list") from None
        if len(values) != 3:
            raise self._wrong(key, "three numbers in a JSON list")
        return values

    def labels(self, num_classes: int) -> tuple[str, ...]:
        if "labels" not in self.header:
            return _numbered(num_classes)
        try:
            return tuple(str(label) for label in json.loads(self.header["labels"]))
        except (ValueError, TypeError):
            raise self._wrong("labels", "a JSON list of names") from None

    def activation(self) -> Activation:
        return Activation(self._choice("activation", [a.value for a in Activation]))

    def padding(self) -> Padding:
        return Padding(self._choice("padding", [p.value for p in Padding]))

    def _choice(self, key: str, allowed: list[str]) -> str:
        if key not in self.header:
            raise BadWeights(
                f"{self.path}: its header does not name the {key}, and a guess would change the "
                f"logits; add --{key} {'|'.join(allowed)}"
            )
        if self.header[key] not in allowed:
            raise self._wrong(key, " or ".join(allowed))
        return self.header[key]

    def _wrong(self, key: str, right: str) -> BadWeights:
        return BadWeights(f"{self.path}: {key} {self.header[key]!r} in its header is not {right}")


def _measure(tensors: Tensors, path: Path, facts: _Facts, choices: Choices) -> tuple[float, int]:
    """Return (width multiplier, classes) as the tensors' shapes tell; check it against the wish."""
    last, classifier = tensors.get("conv_pw_13.conv.weight"), tensors.get("fc.weight")
    if last is None or classifier is None or classifier.ndim != 2:
        missing = "fc.weight" if last is not None else "conv_pw_13.conv.weight"
        raise BadWeights(
            f"{path}: tensor {missing} is missing; a MobileNet V1 checkpoint has edgenet's names "
            "(MobileNetV1.state_dict()) or TF-Slim's"
        )
    measured = last.shape[0] / 1024
    wanted = choices.width_multiplier
    alpha = wanted if wanted is not None else facts.number("width_multiplier", measured)
    if int(1024 * alpha) != last.shape[0]:
        raise BadWeights(
            f"{path}: tensor conv_pw_13.conv.weight has {last.shape[0]} channels, so these are "
            f"weights for width multiplier {measured:g}, not {alpha:g}"
        )
    return alpha, classifier.shape[0]


def _fill(model: MobileNetV1, tensors: Tensors, path: Path) -> None:
    """Copy `tensors` into `model`; raises `BadWeights` naming the first that does not fit."""
    state = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    given = {name for name in tensors if not name.endswith("num_batches_tracked")}
    for name, slot in state.items():
        if name not in given:
            raise BadWeights(f"{path}: tensor {name} is missing")
        if tensors[name].shape != tuple(slot.shape):
            raise BadWeights(
                f"{path}: tensor {name} has shape {tensors[name].shape}, "
                f"{model.width_multiplier:g} x {model.num_classes} classes needs "
                f"{tuple(slot.shape)}"
            )
        if name.endswith("running_var") and tensors[name].min() < 0:
            raise BadWeights(f"{path}: tensor {name} holds a negative variance")
    extra = sorted(given - state.keys())
    if extra:
        raise BadWeights(f"{path}: tensor {extra[0]} does not belong to a MobileNet V1")
    model.load_state_dict(
        {name: torch.from_numpy(tensors[name].copy()) for name in state}, strict=False
    )


def _from_tf_slim(tensors: Tensors) -> Tensors:
    """Return TF-Slim variables under edgenet's names and in torch's layouts.

    What does not follow TF-Slim's names keeps its own, so that `_fill` can name it.
    """
    renamed = dict(tensors)
    norm = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean"}
    norm["moving_variance"] = "running_var"
    for layer in layers()[:-1]:
        scope = _tf_slim_scope(layer)
        depthwise = layer.kind is LayerKind.DEPTHWISE
        weight = renamed.pop(f"{scope}/{'depthwise_' if depthwise else ''}weights", None)
        if weight is not None and weight.ndim == 4:
            renamed[f"{layer.name}.conv.weight"] = weight.transpose(
                (2, 3, 0, 1) if depthwise else (3, 2, 0, 1)
            )
        for theirs, ours in norm.items():
            values = renamed.pop(f"{scope}/BatchNorm/{theirs}", None)
            if values is not None:
                renamed[f"{layer.name}.bn.{ours}"] = values
    head = "MobilenetV1/Logits/Conv2d_1c_1x1"
    weight, bias = renamed.pop(f"{head}/weights", None), renamed.pop(f"{head}/biases", None)
    if weight is not None and weight.ndim == 4:
        renamed["fc.weight"] = weight[0, 0].T
    if bias is not None:
        renamed["fc.bias"] = bias
    return renamed


def _tf_slim_scope(layer: Layer) -> str:
    if layer.kind is LayerKind.CONVOLUTION:
        return "MobilenetV1/Conv2d_0"
    number = layer.name.rsplit("_", 1)[1]
    return f"MobilenetV1/Conv2d_{number}_{layer.kind.value}"


def _tf_slim_facts(header: Mapping[str, str]) -> dict[str, str]:
    """Return what every TF-Slim MobileNet V1 has in common; see docs/decisions."""
    labels = (files("edgenet.models") / "pretrained" / TF_SLIM_LABELS).read_text("utf-8")
    return {
        "activation": Activation.RELU6.value,
        "padding": Padding.TF_SAME.value,
        "labels": json.dumps(labels.splitlines()),
        "licence": header.get("license", "unknown"),
    }


def _numbered(num_classes: int) -> tuple[str, ...]:
    return tuple(f"class {index}" for index in range(num_classes))


def _name(model: MobileNetV1) -> str:
    alpha = f"{model.width_multiplier:g}" if model.width_multiplier != 1 else "1.0"
    return f"{ARCHITECTURE}_{alpha}_{model.resolution}"
