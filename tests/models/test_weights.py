"""Checkpoints: whole ones load, damaged ones say where."""

import json
import struct
from importlib.resources import files

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from edgenet.errors import BadWeights, UsageError
from edgenet.models.architecture import Activation, Padding
from edgenet.models.mobilenet_v1 import MobileNetV1, initialise
from edgenet.models.weights import PRETRAINED, Choices, load_reference, save_checkpoint

IMAGENET = files("edgenet.models") / "pretrained" / PRETRAINED["imagenet"].file


@pytest.fixture
def checkpoint(tmp_path):
    """A small network of our own naming, saved with its facts."""
    model = MobileNetV1(0.25, 64, 3, activation="relu", padding="keras")
    initialise(model, seed=1)
    path = tmp_path / "own.safetensors"
    save_checkpoint(
        model,
        path,
        mean=(1.0, 2.0, 3.0),
        std=(4.0, 5.0, 6.0),
        crop_fraction=0.9,
        labels=("a", "b", "c"),
        licence="MIT",
    )
    return path


def load(path, **choices):
    return load_reference(str(path), Choices(**choices))


def test_built_in(imagenet, fashion):
    assert imagenet.name == "mobilenet_v1_1.0_224"
    assert len(imagenet.labels) == 1001
    assert imagenet.labels[:2] == ("background", "tench, Tinca tinca")
    assert imagenet.licence == "Apache-2.0"
    assert (fashion.module.activation, len(fashion.labels)) == (Activation.RELU, 10)
    assert fashion.preprocessing.crop_fraction == 1


def test_round_trip(checkpoint):
    reference = load(checkpoint)
    assert reference.labels == ("a", "b", "c")
    assert (reference.mean, reference.std) == ((1, 2, 3), (4, 5, 6))
    assert reference.preprocessing.crop_fraction == 0.9
    assert reference.module.padding is Padding.KERAS
    assert reference.module.resolution == 64
    assert load(checkpoint, resolution=96).module.resolution == 96


def test_no_such_width(tmp_path):
    with pytest.raises(UsageError, match=r"imagenet at 1, fashion-mnist at 0\.5"):
        load_reference("imagenet", Choices(width_multiplier=0.5))


def test_no_such_weights():
    with pytest.raises(UsageError, match="imagenet, fashion-mnist or random"):
        load_reference("imagnet", Choices())


def test_file_of_another_width(checkpoint):
    with pytest.raises(BadWeights, match=r"width multiplier 0\.25, not 0\.5"):
        load(checkpoint, width_multiplier=0.5)


def test_wrong_number_of_labels(checkpoint):
    with pytest.raises(BadWeights, match="3 classes, but 2 labels"):
        load(checkpoint, labels=("x", "y"))


def test_bare_state_dict_is_not_guessed(tmp_path):
    model = MobileNetV1(0.25, 64, 3)
    path = tmp_path / "bare.safetensors"
    save_file({k: v.numpy() for k, v in model.state_dict().items()}, path)
    with pytest.raises(BadWeights, match=r"--activation relu6\|relu"):
        load(path)
    with pytest.raises(BadWeights, match=r"--padding tf_same\|keras\|symmetric"):
        load(path, activation=Activation.RELU)
    whole = load(path, activation=Activation.RELU, padding=Padding.TF_SAME)
    assert whole.labels == ("class 0", "class 1", "class 2")


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0, "ends at byte 0"),
        (5, "ends at byte 5"),
        (100, "cut off or not a safetensors file"),
        (-1, "tensor .* should end at byte"),
        (-100_000, "tensor .* should end at byte"),
    ],
)
def test_truncated(checkpoint, size, message):
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[:size])
    with pytest.raises(BadWeights, match=message):
        load(checkpoint)


def test_damaged_header_names_the_byte(checkpoint):
    data = bytearray(checkpoint.read_bytes())
    data[40] = 0xFF
    checkpoint.write_bytes(data)
    with pytest.raises(BadWeights, match="byte 40"):
        load(checkpoint)


def test_not_safetensors(tmp_path):
    path = tmp_path / "text.safetensors"
    path.write_text("this is a plain text file, not weights\n" * 10)
    with pytest.raises(BadWeights, match="not a safetensors file"):
        load(path)
    header = json.dumps([1, 2]).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(BadWeights, match="not a JSON object"):
        load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("conv_dw_3.bn.weight"), r"conv_dw_3\.bn\.weight is missing"),
        (lambda t: t.pop("fc.weight"), r"fc\.weight is missing"),
        (lambda t: t.update(extra=np.zeros(2, np.float32)), "extra does not belong"),
        (
            lambda t: t.update({"conv_pw_2.conv.weight": np.zeros((3, 3), np.float32)}),
            r"conv_pw_2\.conv\.weight has shape \(3, 3\)",
        ),
        (
            lambda t: t["conv_pw_4.bn.bias"].__setitem__(2, np.nan),
            r"conv_pw_4\.bn\.bias is not finite at element 2",
        ),
        (
            lambda t: t["stem.bn.running_var"].__setitem__(0, -1),
            r"stem\.bn\.running_var holds a negative variance",
        ),
    ],
)
def test_wrong_tensors_are_named(checkpoint, change, message):
    tensors = {name: value.copy() for name, value in load_file(checkpoint).items()}
    change(tensors)
    save_file(tensors, checkpoint)
    with pytest.raises(BadWeights, match=message):
        load(checkpoint, activation=Activation.RELU, padding=Padding.KERAS)


def test_a_gamma_moves_the_logits(tmp_path, imagenet):
    tensors = load_file(IMAGENET)
    tensors["MobilenetV1/Conv2d_5_pointwise/BatchNorm/gamma"] *= 1.05
    path = tmp_path / "changed.safetensors"
    save_file(tensors, path)
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        assert (load(path).module(x) - imagenet.module(x)).abs().max() > 0.05


def test_random_weights_repeat():
    first, again, other = (
        load_reference("random", Choices(width_multiplier=0.25, resolution=32, seed=seed))
        for seed in (4, 4, 5)
    )
    assert first.weights_sha256 == again.weights_sha256 != other.weights_sha256
    assert not first.trained
