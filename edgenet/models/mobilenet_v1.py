"""The reference MobileNet V1 in PyTorch (Howard et al. 2017, arXiv 1704.04861, Table 1).

Built from the layer table of `architecture.py`. Knows nothing of files: `weights.py` fills it.
Needs torch, so it is imported on the host only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgenet.models.architecture import Activation, Layer, LayerKind, Padding, layers

BATCH_NORM_EPSILON = 1e-3
"""TF-Slim and Keras use 1e-3; torch's default of 1e-5 moves the real weights' logits by 2.5."""

BATCH_NORM_MOMENTUM = 0.01
"""torch's word for a moving average that keeps 0.99 (Keras)."""


class ConvLayer(nn.Module):
    """Convolution, BatchNorm and activation of one row of Table 1."""

    def __init__(self, layer: Layer, activation: Activation, epsilon: float) -> None:
        super().__init__()
        before, after = layer.pad
        self.pad = nn.ZeroPad2d((before, after, before, after))
        self.conv = nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel,
            stride=layer.stride,
            groups=layer.groups,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(layer.out_channels, eps=epsilon, momentum=BATCH_NORM_MOMENTUM)
        self.act = nn.ReLU6() if activation is Activation.RELU6 else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, out_channels, H', W') float32 from (N, in_channels, H, W)."""
        y: Tensor = self.act(self.bn(self.conv(self.pad(x))))
        return y


class MobileNetV1(nn.Module):
    """MobileNet V1: normalised RGB (N, 3, resolution, resolution) float32 to logits (N, classes).

    28 weighted layers counting depthwise and pointwise apart, named `stem`, `conv_dw_1`,
    `conv_pw_1` ... `conv_pw_13`, `fc`. Activation and padding are parameters because they decide
    the logits of trained weights; the defaults are those of Google's checkpoints. The padding is
    laid out for one resolution, so another input size is refused.
    """

    def __init__(
        self,
        width_multiplier: float = 1.0,
        resolution: int = 224,
        num_classes: int = 1000,
        *,
        activation: Activation | str = Activation.RELU6,
        padding: Padding | str = Padding.TF_SAME,
        batch_norm_epsilon: float = BATCH_NORM_EPSILON,
    ) -> None:
        """Build the network with torch's initial weights; raises `UsageError` if none exists."""
        super().__init__()
        self.width_multiplier = width_multiplier
        self.resolution = resolution
        self.num_classes = num_classes
        self.activation = Activation(activation)
        self.padding = Padding(padding)
        self.layers = layers(
            width_multiplier=width_multiplier,
            resolution=resolution,
            num_classes=num_classes,
            padding=self.padding,
        )
        for layer in self.layers:
            if layer.kind is LayerKind.FULLY_CONNECTED:
                self.add_module(layer.name, nn.Linear(layer.in_channels, layer.out_channels))
            else:
                self.add_module(layer.name, ConvLayer(layer, self.activation, batch_norm_epsilon))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes) from normalised RGB (N, 3, resolution, resolution)."""
        if x.shape[1:] != (3, self.resolution, self.resolution):
            raise ValueError(
                f"expected (N, 3, {self.resolution}, {self.resolution}), got {tuple(x.shape)}"
            )
        for layer in self.layers[:-1]:
            x = self.get_submodule(layer.name)(x)
        logits: Tensor = self.get_submodule(self.layers[-1].name)(x.mean(dim=(2, 3)))
        return logits


def initialise(model: MobileNetV1, *, seed: int) -> None:
    """Fill `model` in place with seeded random weights whose activations keep their scale."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(
                module.weight, mode="fan_in", nonlinearity="relu", generator=generator
            )
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5, generator=generator)
            nn.init.zeros_(module.bias)
