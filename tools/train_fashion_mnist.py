"""Train the embedded Fashion-MNIST MobileNet V1 (plain ReLU) and write its checkpoint.

Needs Debian's `dataset-fashion-mnist` and the `convert` extra. One thread of a 2-core machine takes
about an hour. The test set is read once, after the last epoch; nothing is chosen by it.

    python tools/train_fashion_mnist.py --output edgenet/models/pretrained/FILE.safetensors
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgenet.data.idx import read_idx
from edgenet.models.mobilenet_v1 import MobileNetV1
from edgenet.models.weights import save_checkpoint
from edgenet.preprocess import Preprocessing, prepare

DATA = Path("/usr/share/datasets/fashion-mnist")
LABELS = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
PREPROCESSING = Preprocessing(resolution=64, crop_fraction=1.0)
MEAN = STD = 127.5
BATCH = 128


def load(split: str) -> tuple[Tensor, Tensor]:
    """Return (N, 64, 64) uint8 pixels as the bundle will see them, and (N,) labels."""
    pictures = read_idx(DATA / f"{split}-images-idx3-ubyte.gz")
    labels = read_idx(DATA / f"{split}-labels-idx1-ubyte.gz")
    size = PREPROCESSING.resolution
    pixels = np.empty((len(pictures), size, size), np.uint8)
    for index, picture in enumerate(pictures):
        pixels[index] = prepare(np.repeat(picture[..., None], 3, axis=2), PREPROCESSING)[0, :, :, 0]
    return torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64))


def normalise(pixels: Tensor) -> Tensor:
    """Return (N, 3, 64, 64) float32 in [-1, 1] from (N, 64, 64) uint8."""
    x = (pixels.float() - MEAN) / STD
    return x[:, None].expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Flip half of the pictures, shift each by up to 4 pixels, blank a square in half of them."""
    count, size, _ = pixels.shape
    flipped = torch.where(
        torch.rand(count, 1, 1, generator=generator) < 0.5, pixels, pixels.flip(2)
    )
    padded = nn.functional.pad(flipped, (4, 4, 4, 4))
    out = torch.empty_like(pixels)
    shifts = torch.randint(0, 9, (count, 2), generator=generator).tolist()
    holes = torch.randint(-size, size, (count, 2), generator=generator).tolist()
    for index, ((dy, dx), (top, left)) in enumerate(zip(shifts, holes, strict=True)):
        out[index] = padded[index, dy : dy + size, dx : dx + size]
        if top >= 0 and left >= 0:
            out[index, top : top + size // 3, left : left + size // 3] = 127
    return out


def parameters(model: nn.Module) -> list[dict[str, object]]:
    """Return two groups: decayed weights, and depthwise filters, norms and biases left alone."""
    decayed, free = [], []
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            depthwise = isinstance(module, nn.Conv2d) and module.groups > 1
            (free if depthwise or parameter.ndim == 1 else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": 5e-4}, {"params": free, "weight_decay": 0.0}]


def accuracy(model: nn.Module, pixels: Tensor, labels: Tensor) -> float:
    """Return top-1 in percent."""
    model.eval()
    with torch.inference_mode():
        right = sum(
            int((model(normalise(batch)).argmax(1) == truth).sum())
            for batch, truth in zip(pixels.split(500), labels.split(500), strict=True)
        )
    return 100 * right / len(labels)


def main() -> None:
    """Train, test once, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--width-multiplier", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--peak-learning-rate", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.set_num_threads(1)  # two threads on two shared cores can be 10 times slower than one
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    pixels, labels = load("train")
    model = MobileNetV1(
        options.width_multiplier, PREPROCESSING.resolution, len(LABELS), activation="relu"
    ).to(memory_format=torch.channels_last)
    steps = len(pixels) // BATCH
    optimiser = torch.optim.SGD(parameters(model), lr=0.1, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, options.peak_learning_rate, total_steps=steps * options.epochs, pct_start=0.2
    )
    loss_function = nn.CrossEntropyLoss(label_smoothing=0.05)
    for epoch in range(1, options.epochs + 1):
        model.train()
        started, total = time.monotonic(), 0.0
        order = torch.randperm(len(pixels), generator=generator)[: steps * BATCH]
        for chosen in order.split(BATCH):
            loss = loss_function(
                model(normalise(augment(pixels[chosen], generator))), labels[chosen]
            )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
        seconds = time.monotonic() - started
        print(f"epoch {epoch} loss {total / steps:.4f} {seconds:.0f} s", flush=True)

    top1 = accuracy(model, *load("t10k"))
    print(f"test top-1 {top1:.2f} %")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(
        model,
        options.output,
        mean=(MEAN,) * 3,
        std=(STD,) * 3,
        crop_fraction=PREPROCESSING.crop_fraction,
        labels=LABELS,
        licence="Apache-2.0",
    )


if __name__ == "__main__":
    main()
