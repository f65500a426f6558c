"""Alarms: raised by a dark, blurred or foreign stream, by no ordinary one, and never by a guess."""

import cv2
import numpy as np
import pytest

from edgenet.data import fashion_mnist, photographs
from edgenet.preprocess import Preprocessing, prepare
from edgenet.stream.drift import Look, drift, look_at

LOGITS = np.array([0, 3, 1], np.float32)


@pytest.fixture(scope="module")
def inputs():
    preprocessing = Preprocessing(resolution=96)
    return [prepare(each.read(), preprocessing) for each in photographs.calibration_set().samples]


def looks(images):
    return [look_at(image, LOGITS) for image in images]


def alarms(newest, calibration, **options):
    found = drift(newest, calibration, **{"classes": 1000, **options})
    return {measure.name for measure in found if measure.alarm}


def test_a_look_is_what_it_says():
    image = np.zeros((1, 8, 8, 3), np.uint8)
    image[..., :4, :] = 200
    found = look_at(image, LOGITS)
    assert found.brightness == pytest.approx(100)
    assert found.best == 1
    assert found.confidence == pytest.approx(np.exp(3) / np.exp(LOGITS).sum())
    assert found.sharpness > look_at(cv2.blur(image[0], (5, 5))[None], LOGITS).sharpness > 0
    assert look_at(np.full_like(image, 9), LOGITS).sharpness == 0


def test_the_calibration_set_itself_and_most_single_pictures_give_none(inputs):
    calibration = looks(inputs)
    assert alarms(calibration, calibration) == set()
    quiet = sum(not alarms([look] * 40, calibration) for look in calibration)
    assert quiet >= 0.9 * len(calibration)


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (lambda image: image // 8, "brightness"),
        (lambda image: 255 - (255 - image) // 8, "brightness"),
        (lambda image: cv2.GaussianBlur(image[0], (0, 0), 6)[None], "sharpness"),
    ],
    ids=["dark", "over-exposed", "blurred"],
)
def test_a_spoilt_picture_gives_one(inputs, spoil, name):
    spoilt = [spoil(image).astype(np.uint8) for image in inputs]
    assert name in alarms(looks(spoilt), looks(inputs))


def of_classes(*classes, confidence=0.9):
    return [Look(confidence=confidence, brightness=1, sharpness=1, best=best) for best in classes]


def test_a_network_that_has_become_unsure():
    calibration = of_classes(*range(4)) * 20
    assert "confidence" in alarms(of_classes(*[0] * 40, confidence=0.3), calibration, classes=4)


def test_other_classes():
    calibration = of_classes(*range(4)) * 20
    rng = np.random.default_rng(0)
    for _ in range(50):
        newest = of_classes(*rng.integers(0, 4, 40).tolist())
        assert alarms(newest, calibration, classes=4) == set(), "chance alone gives no alarm"
    found = drift(of_classes(*[2] * 40), calibration, classes=4)[-1]
    assert found.alarm
    assert (found.value, found.grown) == (pytest.approx(0.75), 2)


@pytest.mark.parametrize(
    ("newest", "calibration", "options", "reason"),
    [
        (29, 100, {}, "29 frames so far, it takes 30"),
        (1, 100, {}, "1 frame so far, it takes 30"),
        (40, 100, {"missing": "not on this machine"}, "not on this machine"),
        (40, 29, {}, "29 calibration pictures known, it takes 30"),
    ],
)
def test_no_alarm_without_a_ground_for_it(newest, calibration, options, reason):
    found = drift(
        of_classes(*[0] * newest, confidence=0.1),
        of_classes(*[1] * calibration),
        classes=4,
        **options,
    )
    assert not any(measure.alarm for measure in found)
    assert {measure.reason for measure in found} == {reason}
    assert found[0].value == pytest.approx(0.1), "what is seen is still told"


def test_few_pictures_say_nothing_of_a_thousand_classes():
    found = drift(of_classes(*[0] * 300), of_classes(*[1] * 128), classes=1001)
    assert found[-1].reason.startswith("128 calibration pictures do not tell")
    assert not found[-1].alarm


def test_random_weights_say_nothing_of_classes_and_confidence():
    calibration = of_classes(*range(4)) * 20
    newest = [Look(confidence=0.1, brightness=99, sharpness=99, best=0)] * 40
    assert alarms(newest, calibration, classes=4, trained=False) == {"brightness", "sharpness"}


def test_nothing_seen_yet():
    found = drift([], [], classes=4, missing="not on this machine")
    assert [measure.value for measure in found] == [None] * 4


def test_what_is_foreign_but_as_bright_and_sharp_goes_unseen(inputs):
    """As docs/camera.md says: grey clothes in front of a network calibrated on photographs."""
    preprocessing = Preprocessing(resolution=96)
    drawn = fashion_mnist.calibration_set().draw(100, seed=0)
    clothes = [prepare(sample.read(), preprocessing) for sample in drawn.samples]
    assert alarms(looks(clothes), looks(inputs)) == set()
