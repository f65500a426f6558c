"""Pictures as a person sees them, the same on every machine, and refused when not whole."""

import io

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from edgenet.data import photographs
from edgenet.errors import BadData, BadImage
from edgenet.preprocess import (
    Preprocessing,
    decode,
    pixels_sha256,
    prepare,
    preprocessing_from_spec,
    read_picture,
    resize,
)

RNG = np.random.default_rng(0)
RGBA = RNG.integers(0, 256, (6, 4, 4), dtype=np.uint8)
PHOTO = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)

# What one x86-64 machine made of embedded photographs; every other must make the same.
GOLDEN = {
    "gcompris_bee_1.jpg": "5eee3777094e8bb0930780592b39280649d3789a591a57e53c2549aca2b7fb7e",
    "skimage_coffee_1.jpg": "29b42ce93ff132f16026f856101a2ae567f6b983d17d76fb1505fba0bd41337b",
}


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def oriented(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_orientation_is_obeyed(orientation, kind):
    data = encoded(Image.fromarray(PHOTO), kind, exif=oriented(orientation))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    found = decode(data)
    assert found.shape == expected.shape
    # Decoders round JPEG's colours differently, by a few steps.
    assert np.abs(found.astype(int) - expected).mean() < (3 if kind == "JPEG" else 1e-9)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_over_white_and_upright(orientation, kind):
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    image = Image.fromarray(RGBA)
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    white.alpha_composite(image)
    expected = white.convert("RGB")
    expected.getexif()[0x0112] = orientation
    found = decode(encoded(image, kind, exif=oriented(orientation), **options))
    assert np.abs(found.astype(int) - np.asarray(ImageOps.exif_transpose(expected))).max() <= 1


def test_greyscale_palette_and_16_bit():
    grey = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
    np.testing.assert_array_equal(
        decode(encoded(Image.fromarray(grey), "PNG")), np.dstack([grey] * 3)
    )
    palette = Image.fromarray(PHOTO).quantize(16)
    np.testing.assert_array_equal(
        decode(encoded(palette, "PNG")), np.asarray(palette.convert("RGB"))
    )
    deep = RNG.integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    _, data = cv2.imencode(".png", deep)
    np.testing.assert_array_equal(decode(data.tobytes()), deep[:, :, ::-1] >> 8)
    half = Image.fromarray(grey).convert("LA")
    np.testing.assert_array_equal(decode(encoded(half, "PNG")), np.dstack([grey] * 3))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_cut_off_picture_is_refused(kind, share):
    data = encoded(Image.fromarray(PHOTO), kind)
    with pytest.raises(BadImage):
        decode(data[: min(int(len(data) * share), len(data) - 2)])


def test_a_thumbnail_does_not_hide_the_cut():
    """An embedded thumbnail is a whole JPEG; its end is not the picture's."""
    thumbnail = encoded(Image.fromarray(PHOTO[:8, :8]), "JPEG")
    data = encoded(Image.fromarray(PHOTO), "JPEG")
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    whole = data[:2] + segment + data[2:]
    assert decode(whole).shape == PHOTO.shape
    with pytest.raises(BadImage, match="cut off"):
        decode(whole[: len(whole) // 2 + len(segment) // 2])


@pytest.mark.parametrize("data", [b"", b"not a picture", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture(data):
    with pytest.raises(BadImage):
        decode(data)


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "WEBP", "GIF", "PPM"])
def test_opencv_adds_nothing_to_the_error(kind, capfd):
    data = encoded(Image.fromarray(PHOTO), kind)
    with pytest.raises(BadImage):
        decode(data[: len(data) // 2])
    assert capfd.readouterr().err == ""


def test_cmyk():
    data = encoded(Image.fromarray(PHOTO).resize((200, 200)).convert("CMYK"), "JPEG", quality=95)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.abs(decode(data).astype(int) - expected).mean() < 3


def test_errors_name_the_file(tmp_path):
    with pytest.raises(BadImage, match=r"none\.jpg: cannot be read"):
        read_picture(tmp_path / "none.jpg")
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(BadImage, match=r"text\.jpg: is not a picture"):
        read_picture(tmp_path / "text.jpg")


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    resolution=st.integers(32, 128),
    fraction=st.sampled_from([0.5, 0.875, 1.0]),
)
def test_any_size_becomes_the_input(height, width, resolution, fraction):
    assume(max(height, width) <= 100 * min(height, width))
    picture = np.full((height, width, 3), (10, 20, 30), np.uint8)
    image = prepare(picture, Preprocessing(resolution=resolution, crop_fraction=fraction))
    assert image.shape == (1, resolution, resolution, 3)
    assert image.flags.c_contiguous
    assert (image == (10, 20, 30)).all()


@settings(max_examples=150, deadline=None)
@given(
    resolution=st.sampled_from([32, 64, 96, 128, 160, 224]),
    fraction=st.sampled_from([0.5, 0.875, 1.0]),
    step=st.sampled_from([1, 2, 3, 4, 8, 16]),
    extra=st.integers(0, 40),
    width=st.integers(40, 700),
    seed=st.integers(0, 2**32 - 1),
)
def test_resizing_a_part_alone_changes_no_bit(resolution, fraction, step, extra, width, seed):
    """Resized whole and then cut, for heights of which a part may be resized alone, and others."""
    shorter = round(resolution / fraction)
    height = shorter + extra * shorter // step
    assume(max(height, width) <= 100 * min(height, width))
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    scale = shorter / min(height, width)
    size = (max(shorter, round(width * scale)), max(shorter, round(height * scale)))
    left, top = (size[0] - resolution) // 2, (size[1] - resolution) // 2
    whole = resize(picture, size)[top : top + resolution, left : left + resolution]
    spec = Preprocessing(resolution=resolution, crop_fraction=fraction)
    np.testing.assert_array_equal(prepare(picture, spec)[0], whole)


@pytest.mark.parametrize(
    "shape", [(480, 640), (720, 1280), (256, 300), (448, 800), (1080, 1920), (1233, 1645)]
)
def test_frames_of_cameras_resized_whole_or_in_part(shape):
    picture = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    scale = 256 / shape[0]
    size = (round(shape[1] * scale), 256)
    left = (size[0] - 224) // 2
    whole = resize(picture, size)[16:240, left : left + 224]
    np.testing.assert_array_equal(prepare(picture, Preprocessing(resolution=224))[0], whole)


def test_the_centre_is_kept():
    picture = np.zeros((224, 600, 3), np.uint8)
    picture[:, 300:] = 255
    image = prepare(picture, Preprocessing(resolution=224, crop_fraction=1.0))[0]
    assert (image[:, :112] == 0).all()
    assert (image[:, 112:] == 255).all()


def test_crop_first():
    picture = RNG.integers(0, 256, (100, 120, 3), dtype=np.uint8)
    spec = Preprocessing(resolution=32, crop_fraction=1.0, crop=(10, 20, 32, 32))
    np.testing.assert_array_equal(prepare(picture, spec)[0], picture[20:52, 10:42])
    with pytest.raises(BadImage, match="does not fit"):
        prepare(picture[:40], spec)


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_halving_is_the_rounded_mean(data):
    height, width = (data.draw(st.integers(20, 90)) for _ in range(2))
    picture = np.random.default_rng(height * 100 + width).integers(
        0, 256, (4 * height, 4 * width, 3), dtype=np.uint8
    )
    means = picture.astype(int).reshape(2 * height, 2, 2 * width, 2, 3).sum((1, 3))
    halved = ((means + 2) // 4).astype(np.uint8)
    # From four times the size: one exact halving, then exactly one half again.
    np.testing.assert_array_equal(resize(picture, (width, height)), resize(halved, (width, height)))


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_pixels(name):
    (sample,) = (s for s in photographs.calibration_set().samples if s.name == name)
    assert pixels_sha256(prepare(sample.read(), Preprocessing(resolution=160))) == GOLDEN[name]


def test_specification_round_trip():
    spec = Preprocessing(resolution=192, crop_fraction=0.9, crop=(1, 2, 30, 40))
    assert preprocessing_from_spec(spec.spec()) == spec
    assert preprocessing_from_spec(spec.spec()).sha256() == spec.sha256()
    assert spec.sha256() != Preprocessing(resolution=192, crop_fraction=0.9).sha256()
    with pytest.raises(BadData, match="differs from this edgenet's in: version"):
        preprocessing_from_spec({**spec.spec(), "version": 99})
    with pytest.raises(BadData, match="crop fraction"):
        Preprocessing(resolution=32, crop_fraction=0)


def test_a_strip_is_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "strip.png"), np.zeros((1, 101, 3), np.uint8))
    with pytest.raises(BadImage, match=r"strip\.png: is 101 x 1 pixels, a strip"):
        read_picture(tmp_path / "strip.png")
