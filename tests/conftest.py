"""What several tests share: torch on one thread, the built-in networks, one small bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgenet.bundle import Bundle, load_bundle
from edgenet.convert.pipeline import WRITERS, Calibration, convert
from edgenet.data import fashion_mnist
from edgenet.models.weights import Choices, Reference, load_reference

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


@pytest.fixture(scope="session")
def small_bundle(fashion: Reference, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of `fashion` with every artefact. Read only: copy its `root` to change it."""
    path = convert(
        fashion,
        tmp_path_factory.mktemp("bundles") / "small",
        targets=WRITERS,
        calibration=Calibration(dataset=fashion_mnist.calibration_set(), samples=16, seed=0),
        progress=Silent(),
    )
    return load_bundle(path)
