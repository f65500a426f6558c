"""What several tests share: torch on one thread, the built-in networks, one small bundle."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from machines import copy_of as copy_of
from machines import make_machine as make_machine
from ssh_server import board as board
from ssh_server import small_disk as small_disk
from virtual_board import VirtualBoard, started

from edgenet.bundle import Bundle
from edgenet.convert.calibration import Calibration
from edgenet.convert.limits import Int8Options
from edgenet.convert.pipeline import WRITERS, convert
from edgenet.convert.source import of_reference
from edgenet.data import fashion_mnist
from edgenet.data.sample import Dataset
from edgenet.graph import Graph
from edgenet.manifest import load_bundle
from edgenet.models.fold import fold
from edgenet.models.weights import Choices, Reference, load_reference
from edgenet.preprocess import UInt8Array, prepare
from edgenet.quantize.recipe import load_recipe

# Tests import openvino themselves; edgenet does it so that nothing is sent (docs/privacy.md).
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

# A shell gives what it starts in the background no Ctrl-C, and children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# More threads than free cores make torch 10 to 30 times slower.
torch.set_num_threads(1)


class Silent:
    """A progress that keeps what it was told and shows nothing."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.warnings: list[str] = []

    def step(self, description: str, *, total: int = 1) -> Callable[[], None]:
        self.steps.append(description)
        return lambda: None

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture
def progress() -> Silent:
    return Silent()


@pytest.fixture(scope="session")
def imagenet() -> Reference:
    """Google's ImageNet weights, 1.0 at 224. Do not change its module."""
    return load_reference("imagenet", Choices())


@pytest.fixture(scope="session")
def fashion() -> Reference:
    """The small trained network, 0.5 at 64, ten classes. Do not change its module."""
    return load_reference("fashion-mnist", Choices())


def convert_quietly(reference: Reference, folder: Path, **options: object) -> Bundle:
    """Convert with 128 Fashion-MNIST images, every artefact unless `options` say otherwise."""
    calibration = Calibration(dataset=fashion_mnist.calibration_set(), samples=128, seed=0)
    defaults = {
        "targets": WRITERS,
        "calibration": calibration,
        "int8": Int8Options(recipe=load_recipe("minmax")),
        "progress": Silent(),
    }
    return load_bundle(convert(of_reference(reference), folder, **{**defaults, **options}))


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Bundle]:
    """Return a function (reference, name, **options of convert) that makes a bundle."""
    return lambda reference, name="bundle", **options: convert_quietly(
        reference, tmp_path / name, **options
    )


@pytest.fixture(scope="session")
def small_bundle(fashion: Reference, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of `fashion` with every artefact. Read only: copy its `root` to change it."""
    return convert_quietly(fashion, tmp_path_factory.mktemp("bundles") / "small")


@pytest.fixture(scope="session")
def pi5() -> Iterator[VirtualBoard]:
    """A virtual Raspberry Pi 5 without network, booted once. Leave on it only what you name."""
    with started("pi5", f"tests-pi5-{os.getpid()}") as board:
        yield board


def folded(reference: Reference) -> Graph:
    """Return the network of `reference` as operators."""
    return fold(reference.module, name=reference.name, mean=reference.mean, std=reference.std)


def network_inputs(dataset: Dataset, reference: Reference, count: int) -> list[UInt8Array]:
    """Return what the network sees of some of a set's images, (1, H, W, 3) each."""
    drawn = dataset.draw(count, seed=1)
    return [prepare(sample.read(), reference.preprocessing) for sample in drawn.samples]
