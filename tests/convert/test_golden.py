"""Golden vectors as they are written: which pictures, how large, and with what tolerance."""

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest

from edgenet.bundle import Output, Precision, Quantization
from edgenet.convert.calibration import HELD_OUT
from edgenet.convert.golden import (
    LONGEST_SIDE,
    choose_pictures,
    spread_pictures,
    tolerance,
    write_golden,
)
from edgenet.data import fashion_mnist, photographs
from edgenet.errors import BrokenBundle
from edgenet.golden import LOGITS, prepare_pictures, read_golden, read_reference
from edgenet.preprocess import Preprocessing, pixels_sha256, read_picture

INTEGER = Quantization(
    name="int8",
    float_layers=(),
    method="min-max",
    sqnr_db=30.0,
    agreement_right=9,
    images=10,
    judged_on="held out",
)
MIXED = replace(INTEGER, float_layers=("stem",))
LOGITS_OUTPUT = Output(name="logits", shape=(1, 3))
ANSWERS = np.array([[0.0, 4.0, -20.0]], np.float32)


@pytest.mark.parametrize(
    ("runtime", "precision", "form", "largest"),
    [
        ("onnxruntime", Precision.FLOAT32, None, 0.002),
        ("litert", Precision.FLOAT16, None, 20 / 2048),
        ("onnxruntime", Precision.INT8, INTEGER, 0),
        ("litert", Precision.INT8, INTEGER, 0),
        ("litert", Precision.INT8, MIXED, 0.5),
        ("openvino", Precision.INT8, INTEGER, 0.75),
        ("openvino", Precision.INT8, MIXED, 0.75),
    ],
)
def test_tolerances(small_bundle, runtime, precision, form, largest):
    artifact = replace(small_bundle.artifacts[0], runtime=runtime, precision=precision)
    found = tolerance(artifact, LOGITS_OUTPUT, ANSWERS, form=form, output_step=0.25)
    assert found.largest == pytest.approx(largest, rel=1e-4)
    assert found.reason


def test_a_map_may_be_further_off(small_bundle):
    (artifact,) = small_bundle.select(("openvino",), (Precision.INT8,))
    output = Output(name="mask", shape=(1, 1, 1, 3))
    found = tolerance(artifact, output, ANSWERS, form=INTEGER, output_step=0.25)
    assert found.largest == pytest.approx(3.0, rel=1e-4)


def test_a_tolerance_that_cannot_be_stated(small_bundle):
    (artifact,) = small_bundle.select(("openvino",), (Precision.INT8,))
    with pytest.raises(ValueError, match="the scale of its output is not given"):
        tolerance(artifact, LOGITS_OUTPUT, ANSWERS, form=INTEGER, output_step=None)
    with pytest.raises(ValueError, match="its quantised model is not named"):
        tolerance(artifact, LOGITS_OUTPUT, ANSWERS, form=None, output_step=0.25)


def test_clear_pictures_of_different_classes_are_chosen():
    best = [0, 0, 0, 1, 1, 2, 2, 3]
    lead = [9, 8, 7, 6, 1, 5, 2, 3]  # the median is between 5 and 6
    logits = np.zeros((8, 4), np.float32)
    logits[np.arange(8), best] = lead
    assert choose_pictures(logits) == (0, 1, 2, 3)
    assert choose_pictures(logits, 2) == (0, 3)
    assert choose_pictures(np.eye(9, dtype=np.float32), 4) == (0, 2, 4, 6)
    assert choose_pictures(logits[:1]) == (0,)
    assert choose_pictures(logits[:, :1]) == (0, 1, 2, 3)


def test_pictures_without_classes_are_from_all_over():
    assert spread_pictures(32) == (0, 8, 16, 24)
    assert spread_pictures(3) == (0, 1, 2)


@pytest.fixture
def written(small_bundle, tmp_path):
    """Return a function that writes the golden vectors of one float artefact."""
    (artifact,) = small_bundle.select(("onnxruntime",), (Precision.FLOAT32,))

    def write(name, pictures, preprocessing=small_bundle.preprocessing):
        folder = tmp_path / name
        folder.mkdir()
        (folder / artifact.files[0]).write_bytes(small_bundle.path(artifact).read_bytes())
        return folder, write_golden(
            folder, pictures, preprocessing, [artifact], outputs=small_bundle.outputs
        )

    return write


def test_the_same_bytes_twice_and_kilobytes_only(written):
    samples = photographs.calibration_set().samples[:4]
    pictures = [(sample.name, sample.read()) for sample in samples]
    (one, files), (two, _) = written("one", pictures), written("two", pictures)
    for path in files.paths:
        assert (one / path).read_bytes() == (two / path).read_bytes()
    assert np.load(one / LOGITS).shape == (1, 4, 10)
    assert sum((one / path).stat().st_size for path in files.paths) < 300_000


def test_what_the_reference_answered_travels_too(small_bundle):
    vectors, reference = read_golden(small_bundle), read_reference(small_bundle)
    expected = vectors.expected["onnxruntime float32"].values
    np.testing.assert_allclose(reference, expected, atol=1e-3)


def test_int8_was_not_calibrated_on_them(small_bundle):
    """Else agreement on them, where nothing else can tell it, would flatter."""
    table = json.loads((small_bundle.root / small_bundle.golden.file).read_bytes())
    identity = small_bundle.calibration
    drawn = fashion_mnist.calibration_set().draw(identity.count, seed=identity.seed).samples
    assert tuple(pixels_sha256(sample.read()) for sample in drawn) == identity.images
    held_out = {sample.name for sample in drawn[HELD_OUT - 1 :: HELD_OUT]}
    assert {picture["made_of"] for picture in table["images"]} < held_out


def test_damaged_answers_of_the_reference(small_bundle, tmp_path):
    root = shutil.copytree(small_bundle.root, tmp_path / "bundle")
    bundle = replace(small_bundle, root=root)
    path = root / small_bundle.golden.reference
    np.save(path, np.zeros((4, 9), np.float32))
    with pytest.raises(BrokenBundle, match=r"values are float32 \(4, 9\), not float32 \(4, 10\)"):
        read_reference(bundle)
    path.write_bytes(b"nothing")
    with pytest.raises(BrokenBundle, match="holds no answers"):
        read_reference(bundle)


def test_large_pictures_shrink_unless_a_crop_counts_their_pixels(written):
    large = cv2.resize(photographs.calibration_set().samples[0].read(), (1500, 1000))
    folder, files = written("plain", [("large", large)])
    assert read_picture(folder / files.images[0]).shape == (427, LONGEST_SIDE, 3)
    cropped = Preprocessing(resolution=64, crop=(900, 400, 600, 600))
    folder, files = written("cropped", [("large", large)], cropped)
    (image,) = prepare_pictures(folder, files.images, cropped)
    assert image.shape == (1, 64, 64, 3)
