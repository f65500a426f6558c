"""Calibration and recipes as users get them wrong: one line, the right code, nothing left."""

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgenet.cli import run

SMALL = (
    "convert --weights random --width-multiplier 0.25 --resolution 32 --runtime litert "
    "--precision int8 -o out"
)
FLOAT = SMALL.replace("int8", "float32")
ONNX = "--runtime onnxruntime --samples 8 -o out"
TRAINED = "convert relu.onnx --mean 127.5 --std 127.5 --runtime onnxruntime -o out"


def write_onnx(path, operator, side=32):
    """Write a classifier of one convolution, `operator`, and the mean."""
    random = np.random.default_rng(0)
    weight = random.normal(0, 0.2, (6, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node(operator, ["c"], ["a"], name="middle"),
        helper.make_node("GlobalAveragePool", ["a"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 6])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for folder, count in (("none", 0), ("one", 1), ("seven", 7)):
        Path(folder).mkdir()
        for number in range(count):
            picture = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            cv2.imwrite(f"{folder}/{number}.png", picture)
    Path("set.csv").write_text(
        "file,label\n" + "".join(f"seven/{i}.png,{i % 6}\n" for i in range(7))
    )
    Path("unknown.json").write_text('{"ranges": "minmax", "rounding": true}')
    Path("wrong.json").write_text('{"ranges": "percentile", "percentile": "most"}')
    Path("text.json").write_text("minmax")
    Path("two.txt").write_text("a\nb\n")
    write_onnx("relu.onnx", "Relu")
    write_onnx("odd.onnx", "Erf")
    write_onnx("RELU.ONNX", "Relu")
    write_onnx("open.onnx", "Relu", side="side")
    Path("list.json").write_text("[]")
    return tmp_path


NORMALISED = "--mean 127.5 --std 127.5"
CASES = [
    (f"{SMALL} --calibration none", 1, ["none", "holds no pictures; put some there"]),
    (f"{SMALL} --calibration one", 1, ["1 calibration image is too few", "--samples 1"]),
    (f"{SMALL} --calibration seven", 1, ["7 calibration images are too few", "at least 8"]),
    (f"{SMALL} --calibration one --samples 8", 1, ["1 calibration image is too few"]),
    (f"{SMALL} --recipe unknown.json", 1, ["unknown.json", "unknown key 'rounding'", "percentile"]),
    (f"{SMALL} --recipe wrong.json", 1, ["wrong.json", 'percentile is "most"', "above 50"]),
    (f"{SMALL} --recipe text.json", 1, ["text.json", "is not JSON"]),
    (f"{SMALL} --recipe list.json", 1, ['such as {"ranges": "minmax"}']),
    (f"{SMALL} --recipe none.json", 2, ["no recipe 'none.json'", "minmax, percentile, mse"]),
    (f"{SMALL} --max-drop 1", 2, ["--max-drop needs labelled pictures", "--min-sqnr"]),
    (f"{SMALL} --max-drop -1 --data set.csv", 2, ["--max-drop"]),
    *((f"{SMALL} --min-sqnr {db}", 2, ["'--min-sqnr'"]) for db in ("nan", "inf", "-5")),
    *(
        (f"{SMALL} --max-drop {points} --data set.csv", 2, ["'--max-drop'"])
        for points in ("nan", "inf", "101")
    ),
    (f"{SMALL} --max-drop 1 --data set.csv", 2, ["random, so their accuracy means nothing"]),
    *(
        (f"{FLOAT} {option}", 2, [option.split()[0], "nothing in INT8 is written"])
        for option in (
            "--min-sqnr 20",
            "--max-drop 1 --data set.csv",
            "--full-integer",
            "--recipe mse",
        )
    ),
    (f"{SMALL} --data set.csv", 2, ["--data is for --max-drop"]),
    (f"{SMALL} --samples 8 --min-sqnr 200", 1, ["cannot hold --min-sqnr 200", "dB short"]),
    (
        f"{SMALL} --samples 8 --min-sqnr 200 --full-integer",
        1,
        ["full-integer form cannot hold", "dB short", "leave out --full-integer"],
    ),
    (f"{SMALL} --samples 7 --min-sqnr 20", 2, ["--samples 7", "give --samples 8 or more"]),
    (
        f"{TRAINED} --calibration set.csv --samples 7 --max-drop 1 --data set.csv",
        1,
        ["7 of 7 evaluation images are calibration images"],
    ),
    (
        f"{TRAINED} --samples 8 --max-drop 100 --data photographs",
        1,
        ["has 1001 classes and this bundle 6"],
    ),
    (
        "convert --weights fashion-mnist -o out --max-drop 100 --data photographs",
        1,
        ["has 1001 classes and this bundle 10"],
    ),
    ("convert --weights RELU.ONNX -o out", 2, ["give it as MODEL: edgenet convert RELU.ONNX"]),
    (f"convert RELU.ONNX {ONNX}", 2, ["RELU.ONNX", "give --mean and --std"]),
    (f"convert open.onnx {ONNX} {NORMALISED}", 1, ["such as --resolution 224"]),
    (f"convert relu.onnx {ONNX}", 2, ["relu.onnx", "--mean and --std", "123.675,116.28,103.53"]),
    (f"convert relu.onnx {ONNX} --mean 127.5", 2, ["give --mean and --std"]),
    (f"convert relu.onnx {ONNX} --mean 1,2 --std 1", 2, ["--mean 1,2", "one number or three"]),
    (f"convert relu.onnx {ONNX} --mean 0.5 --std 0.5", 2, ["--std 0.5", "that is 127.5"]),
    (f"convert {ONNX} --mean 127.5 --std 127.5", 2, ["--mean and --std are for ONNX files"]),
    (f"convert none.onnx {ONNX} {NORMALISED}", 2, ["none.onnx: no such ONNX file"]),
    (
        f"convert odd.onnx {ONNX} {NORMALISED}",
        1,
        ["odd.onnx: Erf (middle)", "it takes Add", "replace it by"],
    ),
    (
        f"convert relu.onnx {ONNX} {NORMALISED} --labels two.txt",
        1,
        ["6 classes", "--labels names 2"],
    ),
]


@pytest.mark.parametrize(("line", "code", "parts"), CASES, ids=[case[0] for case in CASES])
def test_one_line_and_nothing_left(place, capsys, line, code, parts):
    before = sorted(place.rglob("*"))
    assert run(line.split()) == code
    out, err = capsys.readouterr()
    lines = [row for row in err.splitlines() if not row.startswith("edgenet: warning: ")]
    assert out == ""
    (complaint,) = [row for row in lines if row.startswith("edgenet: ")]
    assert all(part in complaint for part in parts), complaint
    assert "Traceback" not in err and "bug in edgenet" not in err
    assert sorted(place.rglob("*")) == before


def test_what_cannot_be_judged_is_told_before_the_work(place, capsys):
    """Nothing was calibrated when it is refused."""
    for line in (
        "convert --weights fashion-mnist -o out --max-drop 100 --data photographs",
        f"{SMALL} --samples 5 --min-sqnr 20",
    ):
        assert run(line.split()) != 0
        assert "calibrat" not in capsys.readouterr().err.partition("edgenet: ")[0]


def test_one_image_on_purpose(place, capsys):
    assert run(f"{SMALL} --calibration one --samples 1".split()) == 0
    assert "only 1 calibration image;" in capsys.readouterr().err


def rotated_jpeg(picture, path):
    """Write a JPEG turned by a quarter, with the EXIF tag that turns it back."""
    _, data = cv2.imencode(".jpg", cv2.rotate(picture, cv2.ROTATE_90_COUNTERCLOCKWISE))
    tag = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    exif = b"Exif\0\0" + tag
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    path.write_bytes(data.tobytes()[:2] + segment + data.tobytes()[2:])


def test_pictures_of_every_mode_calibrate_as_a_person_sees_them(tmp_path, monkeypatch, capsys):
    """Grey, with alpha, of 16 bits, turned by EXIF: the pixels are those of plain RGB files."""
    from edgenet.data.dataset import open_dataset
    from edgenet.preprocess import Preprocessing, prepare

    monkeypatch.chdir(tmp_path)
    Path("odd").mkdir()
    Path("plain").mkdir()
    ramp = np.add.outer(np.arange(60), 2 * np.arange(60)).astype(np.uint8)
    grey = np.repeat(ramp[..., None], 3, axis=2)
    colour = np.dstack([ramp, ramp[::-1], np.full_like(ramp, 90)])
    opaque = np.full_like(ramp, 255)
    cv2.imwrite("odd/0.png", ramp)
    cv2.imwrite("odd/1.png", np.dstack([colour, opaque]))
    cv2.imwrite("odd/2.png", colour.astype(np.uint16) * 257)
    cv2.imwrite("odd/3.png", ramp.astype(np.uint16) * 257)
    for number, picture in enumerate((grey, colour, colour, grey)):
        cv2.imwrite(f"plain/{number}.png", picture)
    _, jpeg = cv2.imencode(".jpg", cv2.rotate(colour, cv2.ROTATE_90_COUNTERCLOCKWISE))
    turned = cv2.rotate(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), cv2.ROTATE_90_CLOCKWISE)
    rotated_jpeg(colour, Path("odd/4.jpg"))
    cv2.imwrite("plain/4.png", turned)
    preprocessing = Preprocessing(resolution=32)
    odd, plain = (
        [prepare(s.read(), preprocessing) for s in open_dataset(name, labelled=False).samples]
        for name in ("odd", "plain")
    )
    for number, (ours, theirs) in enumerate(zip(odd, plain, strict=True)):
        assert np.abs(ours.astype(int) - theirs).max() <= 1, number
    assert run(f"{SMALL} --calibration odd --samples 5".split()) == 0
    assert "left out" not in capsys.readouterr().err
