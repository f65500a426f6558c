"""Calibration hygiene: silent on sets that are well, loud on those that are not."""

from dataclasses import dataclass

import numpy as np
import pytest

from edgenet.data import fashion_mnist, photographs
from edgenet.data.dataset import open_dataset
from edgenet.data.hygiene import (
    Answers,
    check_count,
    check_disjoint,
    classes_of,
    inspect_calibration,
)
from edgenet.data.sample import Sample
from edgenet.errors import BadData
from edgenet.models.fold import fold
from edgenet.preprocess import pixels_sha256, prepare
from edgenet.quantize.statistics import collect
from edgenet.runtimes.torch import TorchSession

IMAGENET_STATISTICS = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
SYMMETRIC = {"mean": (127.5,) * 3, "std": (127.5,) * 3}


def inputs(dataset, preprocessing):
    return [prepare(sample.read(), preprocessing) for sample in dataset.samples]


def hashes(images):
    return [pixels_sha256(image) for image in images]


def warnings(images, *, normalisation=SYMMETRIC, **options):
    return inspect_calibration(images, hashes(images), **normalisation, **options).warnings


@pytest.fixture(scope="module")
def embedded(imagenet):
    """The photographs that INT8 is calibrated on unless told otherwise, as the network's input."""
    return inputs(photographs.calibration_set(), imagenet.preprocessing)


def answers(reference, images):
    session = TorchSession(
        reference.module,
        resolution=reference.module.resolution,
        mean=reference.mean,
        std=reference.std,
    )
    return np.stack([session.run(np.ascontiguousarray(image))["logits"][0] for image in images])


@pytest.mark.parametrize("normalisation", [SYMMETRIC, IMAGENET_STATISTICS])
def test_silent_on_plain_sets(embedded, fashion, imagenet, normalisation):
    assert warnings(embedded, normalisation=normalisation) == ()
    grey = inputs(fashion_mnist.calibration_set(), fashion.preprocessing)
    assert warnings(grey, normalisation=normalisation) == ()
    cutouts = inputs(photographs.labelled(), imagenet.preprocessing)
    (few,) = warnings(cutouts, normalisation=normalisation)
    assert few == "only 57 calibration images; 64 or more give ranges that hold"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda image: (image / 255).round(),  # 0 ... 1 saved as bytes
        lambda image: np.clip((image - 127.5) / 127.5, 0, None),  # -1 ... 1 saved as bytes
        lambda image: np.clip((image - 120.0) / 58 + 120, 0, 255),  # squeezed
        lambda image: image * 0,
        lambda image: image * 0 + 255,
    ],
)
@pytest.mark.parametrize("normalisation", [SYMMETRIC, IMAGENET_STATISTICS])
def test_pictures_normalised_twice(embedded, spoil, normalisation):
    spoilt = [spoil(image).astype(np.uint8) for image in embedded]
    found = inspect_calibration(spoilt, hashes(embedded), **normalisation).warnings
    assert len(found) == 1
    assert "are they normalised already" in found[0]


def test_a_normalisation_given_for_another_range(embedded):
    unit = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    (found,) = warnings(embedded, normalisation=unit)
    assert "another network's" in found


def test_blue_for_red(embedded, imagenet):
    some = embedded[::2]
    given = answers(imagenet, some)
    exchanged = answers(imagenet, [image[..., ::-1] for image in some])
    right = inspect_calibration(
        some, hashes(some), **SYMMETRIC, answers=Answers(logits=given, exchanged=exchanged)
    )
    assert right.warnings == ()
    assert right.exchanged_surer < -3
    assert right.spread.known_from == "the reference's answers"
    assert right.spread.classes > 40
    (warning,) = warnings(some, answers=Answers(logits=exchanged, exchanged=given))
    assert "were they stored as BGR?" in warning
    grey = inspect_calibration(
        some, hashes(some), **SYMMETRIC, answers=Answers(logits=given, exchanged=given)
    )
    assert grey.exchanged_surer is None


def test_duplicates_and_one_class(embedded):
    found = inspect_calibration(
        embedded,
        hashes([*embedded[:-3], *embedded[:3]]),
        **SYMMETRIC,
        classes=["cat"] * 100 + ["dog"] * 28,
    )
    assert found.duplicates == 3
    assert found.spread.classes == 2
    assert [warning.partition(";")[0] for warning in found.warnings] == [
        "3 of 128 calibration images are duplicates",
        "78 % of the calibration images are of one class (by its labels or sub-folders)",
    ]


def test_one_duplicate_is_one(embedded):
    found = inspect_calibration(embedded, hashes([*embedded[:-1], embedded[0]]), **SYMMETRIC)
    assert found.warnings[0].startswith("1 of 128 calibration images is a duplicate; ")


@dataclass
class Range:
    """What one tensor showed."""

    low: np.ndarray
    high: np.ndarray


def test_ranges_that_move(embedded):
    def halves(high):
        steady = Range(np.zeros(2), np.ones(2))
        return (
            {"stem": steady, "fc": Range(np.array([-1.0, 0]), np.array([1.0, 2]))},
            {"stem": steady, "fc": Range(np.array([-1.0, 0]), np.array([1.0, high]))},
        )

    (warning,) = warnings(embedded, halves=halves(8.0))
    assert warning.startswith("the range of fc moves by 67 % between the two halves")
    found = inspect_calibration(embedded, hashes(embedded), **SYMMETRIC, halves=halves(4.0))
    assert (found.range_shift.tensor, found.range_shift.share) == ("fc", 0.4)
    assert found.warnings == ()


def test_real_ranges_hold(fashion):
    images = inputs(fashion_mnist.calibration_set().draw(128, seed=0), fashion.preprocessing)
    graph = fold(fashion.module, name="fashion", mean=fashion.mean, std=fashion.std)
    halves = (collect(graph, images[::2]), collect(graph, images[1::2]))
    assert warnings(images, halves=halves) == ()


@pytest.mark.parametrize(("count", "asked"), [(8, None), (8, 128), (2, 2), (1, 1), (200, 100)])
def test_counts_that_are_taken(count, asked):
    check_count(count, asked=asked, name="set")


@pytest.mark.parametrize(("count", "asked"), [(0, None), (1, None), (7, None), (7, 128), (1, 2)])
def test_counts_that_are_refused(count, asked):
    with pytest.raises(BadData, match=rf"^set: {count} .* too few .*--samples {max(count, 1)} "):
        check_count(count, asked=asked, name="set")


def test_shared_images_are_counted_and_the_first_named():
    check_disjoint(["a", "b"], [("x", "c")])
    check_disjoint([], [("x", "c")])
    with pytest.raises(BadData, match=r"1 of 1 evaluation images is a calibration image of this"):
        check_disjoint(["a"], [("x", "a")])
    with pytest.raises(BadData, match=r"2 of 3 evaluation .* the first is y;"):
        check_disjoint(["a", "b"], [("x", "c"), ("y", "b"), ("z", "a")])


def test_built_in_sets_are_disjoint():
    for calibration, evaluation in (
        (fashion_mnist.calibration_set(), fashion_mnist.test_set()),
        (photographs.calibration_set(), photographs.labelled()),
    ):
        named = [(sample.name, pixels_sha256(sample.read())) for sample in evaluation.samples]
        check_disjoint([pixels_sha256(s.read()) for s in calibration.samples], named)


def test_classes_that_a_set_tells(tmp_path):
    def sample(name, *labels):
        return Sample(name=name, read=lambda: None, labels=labels, origin=name)

    assert classes_of([sample("x", "cat|tabby"), sample("y", "dog")]) == ("cat|tabby", "dog")
    assert classes_of([sample("only/a.jpg"), sample("only/b.jpg")]) is None
    assert classes_of([sample("cat/a.jpg"), sample("b.jpg")]) is None
    assert classes_of([]) is None
    for name in ("cat/a.jpg", "dog/b.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    found = open_dataset(str(tmp_path), labelled=False)
    assert classes_of(found.samples) == ("cat", "dog")
