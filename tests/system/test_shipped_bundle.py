"""The bundle in the package is what `edgenet convert` makes of what else is in the package."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgenet import runtimes
from edgenet.bundle import shipped_bundle
from edgenet.golden import prepare_pictures
from edgenet.manifest import load_bundle

ROOT = Path(__file__).parents[2]
LARGEST_BYTES = 10_000_000


@pytest.fixture(scope="module")
def shipped():
    return load_bundle(shipped_bundle())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "bundle"
    subprocess.run(
        [sys.executable, ROOT / "tools" / "make_shipped_bundle.py", "-o", folder],
        check=True,
        capture_output=True,
    )
    return load_bundle(folder)


def test_it_is_small_and_says_what_it_is(shipped):
    assert sum(file.size_bytes for file in shipped.files) < LARGEST_BYTES
    assert [artifact.label for artifact in shipped.artifacts] == ["onnxruntime int8", "litert int8"]
    assert shipped.model.weights == "imagenet"
    assert shipped.licence == "Apache-2.0"
    assert len(shipped.labels) == 1001


def test_the_same_is_made_again(shipped, made):
    """Decisions are the same on every machine; bytes are where the tools' versions are."""
    assert made.model == shipped.model
    assert made.preprocessing == shipped.preprocessing
    assert made.calibration == shipped.calibration
    assert made.labels == shipped.labels
    assert made.layers == shipped.layers
    assert [found.float_layers for found in made.quantizations] == [
        found.float_layers for found in shipped.quantizations
    ]
    assert [file.path for file in made.files] == [file.path for file in shipped.files]


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_the_same_answers(shipped, made, runtime):
    """On the golden pictures: equal but for what a last digit of a scale may move."""
    images = prepare_pictures(shipped.root, shipped.golden.images, shipped.preprocessing)
    answers = []
    for bundle in (shipped, made):
        (artifact,) = bundle.select((runtime,))
        session = runtimes.load(runtime, bundle.path(artifact), threads=1)
        answers.append(np.concatenate([session.run(image)["logits"] for image in images]))
        session.close()
    difference = np.abs(answers[0] - answers[1]).max()
    assert difference <= 0.05 * np.ptp(answers[0])
    assert (answers[0].argmax(axis=1) == answers[1].argmax(axis=1)).all()
