"""The bundle on disk: whole, explained, and refused when it is neither."""

import json
import os
import shutil
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenet.bundle import (
    MANIFEST,
    QUANTIZATION,
    BundleFile,
    GoldenFiles,
    LimitResult,
    Precision,
    Quantization,
    combined_sha256,
    describe_file,
    files_sha256,
)
from edgenet.convert.destination import new_bundle
from edgenet.convert.pipeline import WRITERS
from edgenet.errors import BadData, BrokenBundle, EdgenetError, NotWritable, UsageError
from edgenet.manifest import left_out_files, load_bundle, part_document, read_labels, write_manifest
from edgenet.writing import write_whole


@pytest.fixture
def root(small_bundle, tmp_path):
    """A copy that may be broken."""
    return shutil.copytree(small_bundle.root, tmp_path / "bundle")


def edit(root, change):
    path = root / MANIFEST
    manifest = json.loads(path.read_text("utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_explains_itself(small_bundle):
    assert small_bundle.name == "mobilenet_v1_0.5_64"
    assert small_bundle.model.weights == "fashion-mnist"
    assert small_bundle.labels[0] == "T-shirt/top"
    assert small_bundle.preprocessing.resolution == 64
    assert small_bundle.calibration.count == 128
    assert {"edgenet", "torch", "onnx", "openvino", "ai-edge-litert"} <= small_bundle.tools.keys()
    assert len(small_bundle.artifacts) == len(WRITERS)
    listed = {file.path for file in small_bundle.files} | {MANIFEST}
    root = small_bundle.root
    found = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert listed == found


@pytest.fixture
def full(root, small_bundle):
    """A bundle with all that later schema versions added."""
    plain_artifacts = [found for found in small_bundle.artifacts if found.variant is None]
    (onnx,) = small_bundle.select(("onnxruntime",), (Precision.INT8,))
    paths = (QUANTIZATION, "golden/golden.json", "golden/logits.npy", "golden/0.jpg")
    (root / "golden").mkdir(exist_ok=True)
    for path in paths:
        (root / path).write_text(path)
    images = ("1" * 64, "2" * 64)
    plain = Quantization(
        name="int8",
        float_layers=("stem", "conv_dw_1"),
        method="min-max",
        sqnr_db=27.5,
        agreement_right=131,
        images=133,
        judged_on="photographs",
        weighted_layers=28,
        limits=(
            LimitResult(
                option="--min-sqnr",
                unit="dB",
                asked=27,
                reached=27.5,
                judged_on="photographs",
                images=133,
            ),
        ),
        layers=(replace(small_bundle.layers[1], mult_adds=9, weights=3),),
    )
    bundle = replace(
        small_bundle,
        root=root,
        files=(
            *(file for file in small_bundle.files if file.path not in paths),
            *(describe_file(root, path) for path in paths),
        ),
        artifacts=(replace(onnx, variant="tensorrt"), *plain_artifacts),
        calibration=replace(
            small_bundle.calibration, images=images, sha256=combined_sha256(images)
        ),
        quantizations=(plain, replace(plain, name="int8-tensorrt", float_layers=(), sqnr_db=None)),
        golden=GoldenFiles(file=paths[1], logits=paths[2], images=paths[3:]),
        model=replace(
            small_bundle.model,
            architecture="resnet18",
            width_multiplier=None,
            activation=None,
            padding=None,
        ),
    )
    write_manifest(bundle)
    return bundle


def test_what_is_written_is_read(full, small_bundle):
    assert load_bundle(full.root) == full
    manifest = json.loads((full.root / MANIFEST).read_text("utf-8"))
    assert manifest["quantizations"][0] == {
        "name": "int8",
        "file": "quantization.json",
        "float_layers": ["stem", "conv_dw_1"],
        "method": "min-max",
        "judged": {
            "on": "photographs",
            "images": 133,
            "sqnr_db": 27.5,
            "cosine": None,
            "agreement": {"right": 131, "percent": 98.5},
        },
        "weighted_layers": 28,
        "limits": [
            {
                "option": "--min-sqnr",
                "unit": "dB",
                "asked": 27,
                "reached": 27.5,
                "judged_on": "photographs",
                "images": 133,
            }
        ],
        "layers": [{**asdict(small_bundle.layers[1]), "mult_adds": 9, "weights": 3}],
    }


def test_an_artefact_has_less_to_do_where_its_form_says_so(full):
    (integer, *_, plain) = sorted(full.artifacts, key=lambda each: each.quantization is None)
    changed = full.quantizations[0].layers[0]
    assert [layer for layer in full.work(integer) if layer not in full.layers] == [changed]
    assert [layer.name for layer in full.work(integer)] == [layer.name for layer in full.layers]
    assert full.work(plain) == full.layers


def test_a_model_says_what_it_knows(full, small_bundle):
    assert full.model.summary == "resnet18"
    assert small_bundle.model.summary == "mobilenet_v1, width multiplier 0.5, relu, tf_same padding"


def test_a_variant_has_its_own_name_and_stands_last(full):
    plain = [artifact for artifact in full.artifacts if artifact.variant is None]
    (variant,) = full.select(("tensorrt",))
    assert (variant.label, variant.quantization) == ("onnxruntime int8 tensorrt", "int8-tensorrt")
    assert full.select() == (*plain, variant)
    assert [found.label for found in full.select(("onnxruntime",))] == [
        "onnxruntime float32",
        "onnxruntime int8",
    ]
    both = full.select(("litert", "tensorrt"), (Precision.INT8,))
    assert [found.label for found in both] == ["litert int8", "onnxruntime int8 tensorrt"]
    with pytest.raises(UsageError, match="it has onnxruntime int8 tensorrt, onnxruntime float32"):
        full.select(("tensorrt",), (Precision.FLOAT32,))


def test_a_bundle_of_schema_version_1_0(full):
    def older(manifest):
        manifest["schema_version"] = "1.0"
        del manifest["quantizations"], manifest["golden"], manifest["calibration"]["images"]
        manifest["artifacts"] = [
            {key: value for key, value in entry.items() if key != "variant"}
            for entry in manifest["artifacts"][1:]
        ]

    edit(full.root, older)
    found = load_bundle(full.root)
    assert found.artifacts == full.artifacts[1:]
    assert (found.quantizations, found.golden, found.calibration.images) == ((), None, ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["golden"].update(logits="x.npy"), "not in its list of files"),
        (lambda m: m["golden"].update(images=["x.jpg"]), "not in its list of files"),
        (lambda m: m["golden"].update(images=[]), "images"),
        (lambda m: m["quantizations"][0].update(file="x.json"), "not in its list of files"),
        (lambda m: m["quantizations"][0].pop("judged"), "judged"),
        (lambda m: m["calibration"]["images"].pop(), "does not belong to its images"),
        (lambda m: m["artifacts"][0].update(variant=""), "variant"),
    ],
)
def test_what_1_1_added_is_checked(full, change, message):
    edit(full.root, change)
    with pytest.raises(BrokenBundle, match=message):
        load_bundle(full.root)


def test_selects(small_bundle):
    assert len(small_bundle.select(("litert",))) == 3
    (found,) = small_bundle.select(("onnxruntime",), (Precision.INT8,))
    assert small_bundle.path(found).name == "mobilenet_v1_0.5_64_int8.onnx"
    with pytest.raises(UsageError, match="it has onnxruntime float32"):
        small_bundle.select(("onnxruntime",), (Precision.FLOAT16,))


def test_every_changed_byte_is_found(root, small_bundle):
    for file in small_bundle.files:
        path = root / file.path
        data = path.read_bytes()
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        with pytest.raises(BrokenBundle, match=path.name):
            load_bundle(root)
        path.write_bytes(data)
    assert load_bundle(root).sha256 == small_bundle.sha256


def test_a_missing_file(root, small_bundle):
    (root / small_bundle.artifacts[-1].files[-1]).unlink()
    with pytest.raises(BrokenBundle, match="is missing"):
        load_bundle(root)


def test_newer_schema(root):
    edit(root, lambda manifest: manifest.update(schema_version="2.0"))
    with pytest.raises(BrokenBundle, match=r"2\.0 is newer than .* upgrade edgenet"):
        load_bundle(root)


def test_newer_minor_version_and_unknown_fields_are_kept(root, small_bundle):
    def change(manifest):
        manifest.update(schema_version="1.9", novelty={"x": 1})
        manifest["model"]["attention"] = True
        manifest["artifacts"][0]["speed"] = 3

    edit(root, change)
    assert load_bundle(root).artifacts == small_bundle.artifacts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("labels"), "labels"),
        (lambda m: m.pop("schema_version"), "no schema_version"),
        (lambda m: m.update(artifacts=[]), "artifacts"),
        (lambda m: m["files"][0].update(path="../secret"), "path"),
        (lambda m: m["files"][0].update(path="/etc/passwd"), "path"),
        (lambda m: m["files"][0].update(size_bytes="many"), "size_bytes"),
        (lambda m: m["artifacts"][0].update(files=["other.onnx"]), "not in its list of files"),
        (lambda m: m["artifacts"][0].update(files=["../x"]), "not in its list of files"),
        (lambda m: m["labels"].update(file="../x"), "not in its list of files"),
        (lambda m: m["files"].append(m["files"][0]), "lists a file twice"),
        (lambda m: m["artifacts"][0].update(precision="int4"), "precision"),
        (lambda m: m["labels"].update(count=3), "10 lines, the manifest says 3"),
        (lambda m: m["preprocessing"].update(resize="nearest"), "differs from this edgenet's"),
        (lambda m: m.update(preprocessing_sha256="0" * 64), "preprocessing_sha256"),
        (lambda m: m["model"].update(resolution=17), "resolution"),
    ],
)
def test_a_wrong_manifest_is_refused(root, change, message):
    edit(root, change)
    with pytest.raises(BrokenBundle, match=message):
        load_bundle(root)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "\udcff", "[" * 100_000])
def test_no_manifest_at_all(root, text):
    (root / MANIFEST).write_text(text, errors="surrogateescape")
    with pytest.raises(BrokenBundle, match=r"manifest\.json"):
        load_bundle(root)


def test_not_a_bundle(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        load_bundle(tmp_path / "none")
    with pytest.raises(BrokenBundle, match="is not a bundle"):
        load_bundle(tmp_path)


FILES = st.lists(
    st.builds(
        BundleFile,
        path=st.text("ab/", min_size=1, max_size=4),
        size_bytes=st.integers(0, 9),
        sha256=st.text("01", min_size=2, max_size=2),
    ),
    unique_by=lambda file: file.path,
    max_size=4,
)


@given(files=FILES, other=FILES)
def test_identity_is_the_list_of_files(files, other):
    assert files_sha256(tuple(files)) == files_sha256(tuple(reversed(files)))
    same = sorted(files, key=lambda f: f.path) == sorted(other, key=lambda f: f.path)
    assert (files_sha256(tuple(files)) == files_sha256(tuple(other))) is same


def test_a_failure_leaves_nothing(tmp_path):
    def fill():
        with new_bundle(tmp_path / "deep/er/bundle", replace=False) as folder:
            (folder / "file").write_text("x")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_replacing_keeps_the_old_one_until_the_new_one_is_whole(root):
    before = load_bundle(root).sha256
    with pytest.raises(RuntimeError, match="half"), new_bundle(root, replace=True):
        raise RuntimeError("half way")
    assert load_bundle(root).sha256 == before
    assert [path.name for path in root.parent.iterdir()] == ["bundle"]


def test_destinations_that_are_refused(root, tmp_path):
    with pytest.raises(UsageError, match="exists already"), new_bundle(root, replace=False):
        pass
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/diary.txt").write_text("x")
    with (
        pytest.raises(UsageError, match="is no bundle"),
        new_bundle(tmp_path / "mine", replace=True),
    ):
        pass
    assert (tmp_path / "mine/diary.txt").exists()


def test_leftovers_of_killed_runs(root):
    dead = 2**22 + 1  # beyond the kernel's largest process id
    leftover = root.parent / f".bundle.partial-{dead}"
    leftover.mkdir()
    root.rename(root.parent / f".bundle.old-{dead}")  # killed between the two renames
    alive = root.parent / f".bundle.partial-{os.getppid()}"
    alive.mkdir()
    with pytest.raises(RuntimeError, match="stop"), new_bundle(root, replace=True):
        raise RuntimeError("stop")
    assert not leftover.exists()
    assert alive.exists()
    assert load_bundle(root)


def test_write_whole_leaves_the_old_file_on_failure(tmp_path):
    path = tmp_path / "record.json"
    write_whole(path, b"old")
    with pytest.raises(TypeError):
        write_whole(path, None)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.json"]


@given(st.binary(max_size=60))
def test_no_manifest_escapes_as_a_bug(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("any")
    (root / MANIFEST).write_bytes(data)
    with pytest.raises(EdgenetError):
        load_bundle(root)


@pytest.mark.parametrize("field", ["model", "files", "artifacts", "labels", "tools", "input"])
@pytest.mark.parametrize("value", [None, 1, "x", [[]]])
def test_a_field_of_the_wrong_type_is_refused(root, field, value):
    edit(root, lambda manifest: manifest.update({field: value}))
    with pytest.raises(BrokenBundle):
        load_bundle(root)


def test_a_bundle_that_appears_meanwhile_is_not_replaced(small_bundle, tmp_path):
    with pytest.raises(NotWritable), new_bundle(tmp_path / "b", replace=False):
        shutil.copytree(small_bundle.root, tmp_path / "b")
    assert load_bundle(tmp_path / "b").sha256 == small_bundle.sha256
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_killed_run_with_our_own_process_id(root):
    """In a container every run may have the same one; without --force nothing is replaced."""
    before = load_bundle(root).sha256
    (root.parent / f".bundle.partial-{os.getpid()}").mkdir()
    root.rename(root.parent / f".bundle.old-{os.getpid()}")
    with pytest.raises(UsageError, match="exists already"), new_bundle(root, replace=False):
        pass
    assert load_bundle(root).sha256 == before
    assert [path.name for path in root.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("replace", [False, True])
def test_nothing_but_a_bundle_is_replaced(tmp_path, replace):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / MANIFEST).write_text('{"name": "a web page"}')
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("site")
    for name, message in (
        ("site", "is no bundle"),
        ("file", "is no bundle"),
        ("file/below", "is a file"),
        ("link", "symbolic link"),
    ):
        with pytest.raises(UsageError, match=message), new_bundle(tmp_path / name, replace=replace):
            pass
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "link", MANIFEST, "site"]


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "is empty"), (b"a\n\nb\n", "line 2 is empty"), (b"a\n\xff\n", "byte 2")],
)
def test_labels_that_are_refused(tmp_path, data, message):
    (tmp_path / "labels.txt").write_bytes(data)
    with pytest.raises(BadData, match=message):
        read_labels(tmp_path / "labels.txt")


def test_labels_of_any_editor(tmp_path):
    (tmp_path / "labels.txt").write_bytes(b"\xef\xbb\xbfa b\r\nc\r\n")
    assert read_labels(tmp_path / "labels.txt") == ("a b", "c")


# A copy that `edgenet deploy` made: artefacts may be missing, if it says so.


def deployed_copy(bundle, folder, runtime):
    """Make a copy with the artefacts of one runtime, as deploy does."""
    kept = tuple(artifact for artifact in bundle.artifacts if artifact.runtime == runtime)
    shutil.copytree(bundle.root, folder)
    for path in left_out_files(bundle, kept):
        (folder / path).unlink()
    (folder / "part.json").write_text(part_document(bundle, kept))
    return folder


def test_a_deployed_part_is_the_same_bundle(small_bundle, tmp_path):
    part = load_bundle(deployed_copy(small_bundle, tmp_path / "part", "litert"))
    assert part.sha256 == small_bundle.sha256
    assert {artifact.runtime for artifact in part.artifacts} == {"litert"}
    assert set(part.artifacts) | set(part.left_out) == set(small_bundle.artifacts)
    with pytest.raises(UsageError, match=r"not deployed here: .*onnxruntime"):
        part.select(("onnxruntime",))


def test_a_part_of_a_part_lacks_what_both_lack(small_bundle, tmp_path):
    part = load_bundle(deployed_copy(small_bundle, tmp_path / "part", "litert"))
    kept = part.artifacts[:1]
    lacking = left_out_files(part, kept)
    assert lacking == left_out_files(small_bundle, kept)


def test_what_a_part_holds_must_be_whole(small_bundle, tmp_path):
    folder = deployed_copy(small_bundle, tmp_path / "part", "litert")
    (folder / "labels.txt").write_text("changed\n")
    with pytest.raises(BrokenBundle, match="was changed"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": "2.0"},
        {"bundle_sha256": "0" * 64},
        {"left_out": ["labels.txt"]},
        {"left_out": ["no-such-file"]},
        {"left_out": None},
        {"schema_version": None},
    ],
)
def test_a_part_that_lies_is_refused(small_bundle, tmp_path, change):
    folder = deployed_copy(small_bundle, tmp_path / "part", "litert")
    part = json.loads((folder / "part.json").read_text())
    (folder / "part.json").write_text(json.dumps({**part, **change}))
    with pytest.raises(BrokenBundle, match=r"part\.json: does not say what this copy"):
        load_bundle(folder)


def test_a_part_without_its_note_is_broken(small_bundle, tmp_path):
    folder = deployed_copy(small_bundle, tmp_path / "part", "litert")
    (folder / "part.json").unlink()
    with pytest.raises(BrokenBundle, match="is missing"):
        load_bundle(folder)
