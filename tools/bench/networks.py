"""Three networks of the kinds that other people bring, in plain torch, and their ONNX files.

ResNet-18 (residuals, max pooling; He et al. 2016, table 1), MobileNetV2 (inverted residuals, ReLU6;
Sandler et al. 2018, table 2) and MobileNetV3-Small (hard-swish, squeeze-and-excite; Howard et al.
2019, table 2).

`export` writes them with random, seeded weights; the statistics of each BatchNorm are those of the
embedded photographs, so that every activation lies where training would put it. Their labels mean
nothing and their logits lie close together: compare SQNR with them, never an accuracy.

`train` makes logits that mean something, in minutes: Fashion-MNIST at 64, on 8,000 of the embedded
test images, with the other 2,000 to say how right it is (one thread of a 2-core machine):

    network              epochs  minutes  top-1
    mobilenet_v3_small        8      3.0  88.7 %
    mobilenet_v2              4      4.2  84.7 %
    resnet_18                 2      3.3  85.8 %

    python tools/bench/networks.py mobilenet_v3_small mobilenet_v3_small.onnx --epochs 8
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgenet.data import fashion_mnist
from edgenet.data.photographs import calibration_set
from edgenet.preprocess import Preprocessing, prepare

MEAN = (123.675, 116.28, 103.53)
"""Of ImageNet, in steps of the input byte: what these networks are usually trained with."""
STD = (58.395, 57.12, 57.375)
CLASSES = 1000
OPSET = 17

TRAINED_RESOLUTION = 64
TRAINED_MEAN = TRAINED_STD = (127.5, 127.5, 127.5)
"""Of the trained networks, in steps of the input byte."""
TRAINING_IMAGES = 8000
BATCH = 64


class ConvNorm(nn.Sequential):
    """Convolution without bias, BatchNorm, activation."""

    def __init__(
        self,
        channels: tuple[int, int],
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: Callable[[], nn.Module] = nn.Identity,
    ) -> None:
        super().__init__(
            nn.Conv2d(*channels, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(channels[1]),
            activation(),
        )


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and the input again: figure 5, left, of the ResNet paper."""

    def __init__(self, channels: tuple[int, int], stride: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, kernel=3, stride=stride, activation=nn.ReLU)
        self.second = ConvNorm((channels[1], channels[1]), kernel=3)
        same = stride == 1 and channels[0] == channels[1]
        self.shortcut = nn.Identity() if same else ConvNorm(channels, stride=stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, out, H / stride, W / stride)."""
        total: Tensor = self.relu(self.second(self.first(x)) + self.shortcut(x))
        return total


class SqueezeExcite(nn.Module):
    """Each channel times a number in 0 ... 1 that the means of all of them give."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = max(8, (channels // 4 + 4) // 8 * 8)  # a quarter, to the nearest eight
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.relu = nn.ReLU()
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H, W)."""
        means = nn.functional.adaptive_avg_pool2d(x, 1)
        return x * self.gate(self.expand(self.relu(self.reduce(means))))


class InvertedResidual(nn.Module):
    """Expand, depthwise, (squeeze-and-excite,) project; and the input again where shapes allow."""

    def __init__(
        self,
        channels: tuple[int, int],
        expanded: int,
        *,
        kernel: int,
        stride: int,
        activation: Callable[[], nn.Module],
        squeeze: bool = False,
    ) -> None:
        super().__init__()
        wide = (expanded, expanded)
        self.expand = (
            nn.Identity()
            if expanded == channels[0]
            else ConvNorm((channels[0], expanded), activation=activation)
        )
        self.depthwise = ConvNorm(
            wide, kernel=kernel, stride=stride, groups=expanded, activation=activation
        )
        self.squeeze = SqueezeExcite(expanded) if squeeze else nn.Identity()
        self.project = ConvNorm((expanded, channels[1]))
        self.residual = stride == 1 and channels[0] == channels[1]

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, out, H / stride, W / stride)."""
        y: Tensor = self.project(self.squeeze(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


class Classifier(nn.Module):
    """Features, their mean over height and width, and a head."""

    def __init__(self, features: list[nn.Module], head: list[nn.Module]) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(*head)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, classes) for normalised pixels (N, 3, H, W)."""
        logits: Tensor = self.classifier(self.pool(self.features(x)).flatten(1))
        return logits


def resnet_18(classes: int = CLASSES) -> nn.Module:
    """Return ResNet-18: 11.7 million parameters, 1.81 billion mult-adds at 224."""
    layers: list[nn.Module] = [
        ConvNorm((3, 64), kernel=7, stride=2, activation=nn.ReLU),
        nn.MaxPool2d(3, 2, 1),
    ]
    before = 64
    for channels in (64, 128, 256, 512):
        for position in range(2):
            stride = 2 if channels > 64 and position == 0 else 1
            layers.append(BasicBlock((before, channels), stride))
            before = channels
    return Classifier(layers, [nn.Linear(512, classes)])


def mobilenet_v2(classes: int = CLASSES) -> nn.Module:
    """Return MobileNetV2 1.0: 3.5 million parameters, 0.30 billion mult-adds at 224."""
    layers: list[nn.Module] = [ConvNorm((3, 32), kernel=3, stride=2, activation=nn.ReLU6)]
    before = 32
    # Expansion, channels, repetitions, stride of the first.
    for expansion, channels, repetitions, first in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for position in range(repetitions):
            stride = first if position == 0 else 1
            layers.append(
                InvertedResidual(
                    (before, channels),
                    before * expansion,
                    kernel=3,
                    stride=stride,
                    activation=nn.ReLU6,
                )
            )
            before = channels
    layers.append(ConvNorm((before, 1280), activation=nn.ReLU6))
    return Classifier(layers, [nn.Dropout(0.2), nn.Linear(1280, classes)])


def mobilenet_v3_small(classes: int = CLASSES) -> nn.Module:
    """Return MobileNetV3-Small 1.0: 2.5 million parameters, 0.06 billion mult-adds at 224."""
    layers: list[nn.Module] = [ConvNorm((3, 16), kernel=3, stride=2, activation=nn.Hardswish)]
    before = 16
    # Kernel, expanded channels, channels, squeeze-and-excite, activation, stride.
    for kernel, expanded, channels, squeeze, activation, stride in (
        (3, 16, 16, True, nn.ReLU, 2),
        (3, 72, 24, False, nn.ReLU, 2),
        (3, 88, 24, False, nn.ReLU, 1),
        (5, 96, 40, True, nn.Hardswish, 2),
        (5, 240, 40, True, nn.Hardswish, 1),
        (5, 240, 40, True, nn.Hardswish, 1),
        (5, 120, 48, True, nn.Hardswish, 1),
        (5, 144, 48, True, nn.Hardswish, 1),
        (5, 288, 96, True, nn.Hardswish, 2),
        (5, 576, 96, True, nn.Hardswish, 1),
        (5, 576, 96, True, nn.Hardswish, 1),
    ):
        layers.append(
            InvertedResidual(
                (before, channels),
                expanded,
                kernel=kernel,
                stride=stride,
                activation=activation,
                squeeze=squeeze,
            )
        )
        before = channels
    layers.append(ConvNorm((before, 576), activation=nn.Hardswish))
    head = [nn.Linear(576, 1024), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(1024, classes)]
    return Classifier(layers, head)


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "resnet_18": resnet_18,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3_small": mobilenet_v3_small,
}


def build(name: str, *, resolution: int = 224, photographs: int = 32, seed: int = 0) -> nn.Module:
    """Return a network in eval mode: seeded weights, BatchNorm set by that many photographs."""
    torch.manual_seed(seed)
    model = NETWORKS[name]()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            # Trained gains and shifts differ from channel to channel; ones and zeros are too kind.
            norm.weight.uniform_(0.4, 1.6)
            norm.bias.normal_(0.0, 0.3)
            norm.momentum = 1.0  # the statistics are those of one batch
        model.train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.eval()
        model(pictures(photographs, resolution))
    return model.eval()


def pictures(count: int, resolution: int) -> Tensor:
    """Return the first embedded photographs, normalised: (count, 3, resolution, resolution)."""
    preprocessing = Preprocessing(resolution=resolution)
    samples = calibration_set().samples[:count]
    pixels = [torch.from_numpy(prepare(sample.read(), preprocessing)[0]) for sample in samples]
    x = torch.stack(pixels).float()
    return ((x - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2).contiguous()


def train(name: str, *, epochs: int, seed: int = 0) -> tuple[nn.Module, float]:
    """Return a network of ten classes in eval mode, and its top-1 in percent on 2,000 images.

    Its input is (N, 3, 64, 64), normalised with `TRAINED_MEAN` and `TRAINED_STD`.
    """
    torch.manual_seed(seed)
    pixels, labels = _fashion_mnist()
    model = NETWORKS[name](fashion_mnist.CLASSES).to(memory_format=torch.channels_last)
    steps = TRAINING_IMAGES // BATCH
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 3e-3, total_steps=steps * epochs, pct_start=0.2
    )
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(TRAINING_IMAGES)[: steps * BATCH].split(BATCH):
            flipped = pixels[chosen].flip(2) if torch.rand(()) < 0.5 else pixels[chosen]
            loss = nn.functional.cross_entropy(model(_normalised(flipped)), labels[chosen])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
    model.eval()
    with torch.inference_mode():
        rest = pixels[TRAINING_IMAGES:].split(BATCH)
        found = torch.cat([model(_normalised(batch)).argmax(1) for batch in rest])
    top1 = 100 * float((found == labels[TRAINING_IMAGES:]).float().mean())
    return model.to(memory_format=torch.contiguous_format), top1


def _fashion_mnist() -> tuple[Tensor, Tensor]:
    """Return the embedded test images (10000, 64, 64) uint8, grey, and their labels (10000,)."""
    preprocessing = Preprocessing(resolution=TRAINED_RESOLUTION, crop_fraction=1.0)
    samples = fashion_mnist.test_set().samples
    pixels = np.stack([prepare(sample.read(), preprocessing)[0, :, :, 0] for sample in samples])
    labels = torch.tensor([int(sample.labels[0]) for sample in samples])
    return torch.from_numpy(pixels), labels


def _normalised(pixels: Tensor) -> Tensor:
    """Return (N, 3, 64, 64) float32 for (N, 64, 64) uint8."""
    x = (pixels.float() - TRAINED_MEAN[0]) / TRAINED_STD[0]
    return x[:, None].expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def export(name: str, path: Path, *, resolution: int = 224) -> None:
    """Write a network of `NETWORKS` as ONNX: float32 NCHW pixels to `logits`."""
    export_module(build(name, resolution=resolution), path, resolution=resolution)


def export_module(
    model: nn.Module, path: Path, *, resolution: int, outputs: Sequence[str] = ("logits",)
) -> None:
    """Write a module as ONNX with torch's older exporter, which needs no further package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            model,
            (torch.zeros(1, 3, resolution, resolution),),
            str(path),
            input_names=["pixels"],
            output_names=list(outputs),
            opset_version=OPSET,
            dynamo=False,
        )


def main() -> None:
    """Write one network, trained if epochs are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=NETWORKS)
    parser.add_argument("path", type=Path)
    parser.add_argument("--resolution", type=int, default=224, help="of random weights")
    parser.add_argument("--epochs", type=int, default=0, help="0: random weights")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.epochs == 0:
        export(options.name, options.path, resolution=options.resolution)
        return
    started = time.monotonic()
    model, top1 = train(options.name, epochs=options.epochs)
    export_module(model, options.path, resolution=TRAINED_RESOLUTION)
    minutes = (time.monotonic() - started) / 60
    print(f"{options.name}: {options.epochs} epochs, {minutes:.1f} minutes, top-1 {top1:.1f} %")


if __name__ == "__main__":
    main()
