"""The reference against the paper's table and against an implementation written apart from it."""

from importlib.resources import files

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch.nn import functional

from edgenet.data import photographs
from edgenet.errors import UsageError
from edgenet.graph import Normalise
from edgenet.models.architecture import Padding, layers
from edgenet.models.fold import fold
from edgenet.models.mobilenet_v1 import MobileNetV1, initialise
from edgenet.preprocess import prepare
from edgenet.quantize.execute import execute

WEIGHTS = "pretrained/mobilenet_v1_1.0_224_imagenet.safetensors"
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


def test_28_layers():
    model = MobileNetV1()
    assert len(model.layers) == 28
    assert sum(p.numel() for p in model.parameters()) == 4_231_976
    assert [layer.output_size for layer in model.layers if layer.stride == 2] == [
        112,
        56,
        28,
        14,
        7,
    ]


@pytest.mark.parametrize("alpha", [1 / 32, 0.25, 0.35, 1.0])
@pytest.mark.parametrize("resolution", [32, 33, 100, 512])
@pytest.mark.parametrize("padding", list(Padding))
def test_shapes_follow_the_table(alpha, resolution, padding):
    if resolution == 512 and alpha == 1.0:
        resolution = 225
    model = MobileNetV1(alpha, resolution, 7, padding=padding).eval()
    x = torch.zeros(1, 3, resolution, resolution)
    with torch.inference_mode():
        for layer in model.layers[:-1]:
            x = model.get_submodule(layer.name)(x)
            assert x.shape == (1, layer.out_channels, layer.output_size, layer.output_size)


def test_odd_sizes_by_padding():
    def sizes(padding):
        return [
            row.output_size for row in layers(resolution=100, padding=padding) if row.stride == 2
        ]

    assert sizes(Padding.TF_SAME) == sizes(Padding.SYMMETRIC) == [50, 25, 13, 7, 4]
    assert sizes(Padding.KERAS) == [50, 25, 12, 6, 3]


@pytest.mark.parametrize("alpha", [0, -1, 2, 1.01, 1 / 33, float("nan"), float("inf")])
def test_width_multiplier_out_of_range(alpha):
    with pytest.raises(UsageError, match="width multiplier"):
        MobileNetV1(alpha)


@pytest.mark.parametrize("resolution", [17, 31, 513, 0, -224])
def test_resolution_out_of_range(resolution):
    with pytest.raises(UsageError, match="resolution"):
        MobileNetV1(1.0, resolution)


def test_another_input_size_is_refused():
    with pytest.raises(ValueError, match="expected"):
        MobileNetV1(0.25, 64, 10)(torch.zeros(1, 3, 96, 96))


def independent(images, *, same=True, epsilon=1e-3, limit=6.0):
    """MobileNet V1 in numpy names and torch functions, straight from TF-Slim's variables."""
    variables = load_file(files("edgenet.models") / WEIGHTS)
    tensors = {name: torch.from_numpy(value) for name, value in variables.items()}

    def convolve(x, scope, kernel, stride, groups):
        size = x.shape[-1]
        total = max((-(-size // stride) - 1) * stride + kernel.shape[-1] - size, 0)
        begin, end = (total // 2, total - total // 2) if same else (kernel.shape[-1] // 2,) * 2
        x = functional.conv2d(
            functional.pad(x, (begin, end, begin, end)), kernel, stride=stride, groups=groups
        )
        norm = [
            tensors[f"MobilenetV1/{scope}/BatchNorm/{part}"]
            for part in ("moving_mean", "moving_variance", "gamma", "beta")
        ]
        return functional.batch_norm(x, *norm, eps=epsilon).clamp(0, limit)

    x = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    x = convolve(x, "Conv2d_0", tensors["MobilenetV1/Conv2d_0/weights"].permute(3, 2, 0, 1), 2, 1)
    for number, stride in enumerate(STRIDES, start=1):
        scope = f"Conv2d_{number}_depthwise"
        kernel = tensors[f"MobilenetV1/{scope}/depthwise_weights"].permute(2, 3, 0, 1)
        x = convolve(x, scope, kernel, stride, x.shape[1])
        scope = f"Conv2d_{number}_pointwise"
        x = convolve(x, scope, tensors[f"MobilenetV1/{scope}/weights"].permute(3, 2, 0, 1), 1, 1)
    head = "MobilenetV1/Logits/Conv2d_1c_1x1"
    return x.mean((2, 3)) @ tensors[f"{head}/weights"][0, 0] + tensors[f"{head}/biases"]


@pytest.fixture(scope="module")
def pictures(imagenet):
    samples = photographs.calibration_set().draw(3, seed=0).samples
    return torch.from_numpy(
        np.concatenate([prepare(sample.read(), imagenet.preprocessing) for sample in samples])
    )


def test_real_weights_against_an_independent_network(imagenet, pictures):
    with torch.inference_mode():
        x = (pictures.permute(0, 3, 1, 2).float() - 127.5) / 127.5
        logits = imagenet.module(x)
        assert (logits - independent(pictures)).abs().max() < 1e-4
        # The mistakes that the logits of real weights show at once:
        assert (logits - independent(pictures, same=False)).abs().max() > 0.5
        assert (logits - independent(pictures, epsilon=1e-5)).abs().max() > 0.2
        assert (logits - independent(pictures, limit=1e9)).abs().max() > 1


def test_folded_graph_is_the_same_network(imagenet, pictures):
    graph = fold(imagenet.module, name="x", mean=imagenet.mean, std=imagenet.std)
    assert isinstance(graph.operators[0], Normalise)
    with torch.inference_mode():
        expected = imagenet.module((pictures.permute(0, 3, 1, 2).float() - 127.5) / 127.5)
        found = execute(graph, pictures, lambda name, x: None)
    assert (found - expected).abs().max() < 1e-4


@pytest.mark.parametrize("padding", list(Padding))
def test_folding_random_statistics(padding):
    model = MobileNetV1(0.25, 49, 5, activation="relu", padding=padding).eval()
    initialise(model, seed=3)
    draw = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=draw))
            module.running_var.copy_(torch.rand(module.num_features, generator=draw) + 0.1)
    graph = fold(model, name="x", mean=(100.0, 110.0, 120.0), std=(50.0, 60.0, 70.0))
    image = torch.randint(0, 256, (2, 49, 49, 3), dtype=torch.uint8, generator=draw)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([100.0, 110, 120], [50.0, 60, 70]))
    with torch.inference_mode():
        expected = model((image.permute(0, 3, 1, 2).float() - mean) / std)
        found = execute(graph, image, lambda name, x: None)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
