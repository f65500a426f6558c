"""The harness itself: what it adds, and that reading sensors beside it adds nothing that shows."""

from contextlib import nullcontext
from statistics import median

import numpy as np
import pytest

from edgenet.board.detect import detect
from edgenet.board.machine import Machine
from edgenet.board.sampling import board_sampler
from edgenet.measure.launch import Launch
from edgenet.measure.profile import null_artifact

RUNS, TURNS = 20_000, 5


@pytest.fixture(scope="module")
def medians_us(small_bundle, tmp_path_factory):
    """The median of null in each of several turns, alone and with the sensors read."""
    images = tmp_path_factory.mktemp("floor") / "images.npy"
    np.save(images, np.zeros((1, 64, 64, 3), np.uint8))
    machine = Machine()
    target = detect(machine).target
    path = small_bundle.path(null_artifact(small_bundle))
    found = {"alone": [], "read": []}
    with Launch("null", path, threads=1, images=images) as launch:
        launch.open()
        launch.back_to_back(runs=RUNS, seconds=0)
        for _ in range(TURNS):
            for name, taken in found.items():
                sampled = board_sampler(machine, target, interval_s=0.01)
                with sampled if name == "read" else nullcontext():
                    taken.append(median(launch.back_to_back(runs=RUNS, seconds=0)) / 1000)
    return found


def test_the_floor_is_below_20_microseconds(medians_us):
    assert min(medians_us["alone"]) < 20


def test_reading_sensors_costs_the_measured_process_nothing_that_shows(medians_us):
    """Read a hundred times as often as usual; generous, as others share the machine."""
    assert min(medians_us["read"]) < 1.3 * min(medians_us["alone"])
