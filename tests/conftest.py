"""Fixtures that more than one test module needs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgenet.bundle import Bundle, load_bundle
from edgenet.convert.pipeline import Calibration, convert, select_targets
from edgenet.data import fashion_mnist
from edgenet.models.weights import Choices, Reference, load_reference

# On two shared cores torch with two threads can be ten times slower than with one.
torch.set_num_threads(1)

CALIBRATION_SAMPLES = 32


class Quiet:
    """A progress that shows nothing and remembers the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def step(self, description: str, *, total: int = 1) -> Callable[[], None]:
        return lambda: None

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def convert_to(folder: Path, reference: Reference, **options) -> Bundle:
    """Convert `reference` into `folder`, every artefact unless `targets` says otherwise."""
    convert(
        reference,
        folder,
        **{
            "targets": select_targets((), ()),
            "calibration": Calibration(
                dataset=fashion_mnist.calibration_set(), samples=CALIBRATION_SAMPLES, seed=0
            ),
            "progress": Quiet(),
            **options,
        },
    )
    return load_bundle(folder)


@pytest.fixture(scope="session")
def imagenet() -> Reference:
    return load_reference("imagenet", Choices())


@pytest.fixture(scope="session")
def fashion() -> Reference:
    return load_reference("fashion-mnist", Choices())


@pytest.fixture(scope="session")
def small_bundle(fashion, tmp_path_factory) -> Bundle:
    """The embedded Fashion-MNIST network, whole: eight artefacts."""
    return convert_to(tmp_path_factory.mktemp("small") / "bundle", fashion)
