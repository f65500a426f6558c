"""`manifest.json`: a bundle to disk and back.

`load_bundle` checks the manifest against the published schema and every file against its hash. Only
this module knows the manifest's JSON. Needs no runtime and no converter; runs on boards.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from edgenet.bundle import (
    AGAIN,
    LABELS,
    MANIFEST,
    QUANTIZATION,
    Artifact,
    Bundle,
    BundleFile,
    CalibrationIdentity,
    GoldenFiles,
    LayerWork,
    LimitResult,
    Model,
    Output,
    Precision,
    Quantization,
    combined_sha256,
    describe_file,
    files_sha256,
)
from edgenet.errors import BadData, BrokenBundle, UsageError
from edgenet.writing import write_whole

PART, PART_VERSION = "part.json", "1.0"
"""Beside the manifest of a bundle that was deployed: which of its files are left out there."""
SCHEMA_VERSION = "1.5"


def load_bundle(root: Path) -> Bundle:
    """Return the bundle at `root`, its manifest validated and every file's hash checked.

    Raises `UsageError` when there is no such folder, `BrokenBundle` when it is not a bundle, comes
    from a newer schema, lacks a file or has one that was changed. A copy that `edgenet deploy` made
    on a board says in `part.json` which artefacts it lacks; those alone may be missing.
    """
    manifest = read_manifest(root)
    left_out = _left_out(root, manifest)
    files = _check_files(root, manifest, left_out)
    try:
        bundle = _parse(root, manifest, files, left_out)
    except BadData as error:
        raise BrokenBundle(f"{root / MANIFEST}: {error}") from None
    if manifest["preprocessing_sha256"] != bundle.preprocessing.sha256():
        raise BrokenBundle(
            f"{root / MANIFEST}: preprocessing_sha256 does not belong to the preprocessing beside "
            f"it; {AGAIN}"
        )
    classes = bundle.outputs[0].shape[1] if bundle.is_classifier else 0
    if len(bundle.labels) != classes:
        raise BrokenBundle(
            f"{root / MANIFEST}: has {len(bundle.labels)} labels for {classes} classes; {AGAIN}"
        )
    return bundle


def write_manifest(bundle: Bundle) -> None:
    """Write `manifest.json` into the bundle's folder, after all that it lists."""
    size = bundle.model.resolution
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "name": bundle.name,
        "licence": bundle.licence,
        "model": asdict(bundle.model),
        "input": {
            "name": "image",
            "shape": [1, size, size, 3],
            "dtype": "uint8",
            "layout": "NHWC",
            "colour": "RGB",
        },
        "outputs": [
            {**asdict(output), "dtype": "float32", "layout": output.layout}
            for output in bundle.outputs
        ],
        "normalisation": {"mean": bundle.mean, "std": bundle.std},
        "preprocessing": bundle.preprocessing.spec(),
        "preprocessing_sha256": bundle.preprocessing.sha256(),
        "labels": {"file": LABELS, "count": len(bundle.labels)} if bundle.labels else None,
        "artifacts": [
            {**asdict(artifact), "precision": artifact.precision.value}
            for artifact in bundle.artifacts
        ],
        "files": [asdict(file) for file in bundle.files],
        "calibration": bundle.calibration and asdict(bundle.calibration),
        "quantizations": [_quantization_entry(found) for found in bundle.quantizations],
        "golden": bundle.golden and asdict(bundle.golden),
        "layers": [asdict(layer) for layer in bundle.layers],
        "tools": dict(bundle.tools),
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    _validate(json.loads(text), bundle.root / MANIFEST)
    write_whole(bundle.root / MANIFEST, text.encode())


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the class names in a text file, one a line.

    Raises `BadData` for a file that is empty, is not UTF-8 or has a line without a name.
    """
    try:
        labels = tuple(path.read_text("utf-8-sig").splitlines())
    except UnicodeDecodeError as error:
        raise BadData(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    if not labels:
        raise BadData(f"{path}: is empty; write one class name a line")
    for number, label in enumerate(labels, start=1):
        if not label.strip():
            raise BadData(f"{path}: line {number} is empty; write one class name a line")
    return labels


def read_manifest(root: Path) -> dict[str, Any]:
    """Return the manifest of the bundle at `root`, checked against the schema; files are not.

    Raises `UsageError` when there is no such folder, `BrokenBundle` for what is no manifest, or one
    of a newer schema.
    """
    path = root / MANIFEST
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder; give a bundle made by edgenet convert")
    if not path.is_file():
        raise BrokenBundle(f"{root}: is not a bundle (no {MANIFEST}); {AGAIN}")
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BrokenBundle(f"{path}: is not JSON ({error}); {AGAIN}") from None
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    major = version.partition(".")[0] if isinstance(version, str) else ""
    if not major.isdecimal():
        raise BrokenBundle(f"{path}: has no schema_version; {AGAIN}")
    if int(major) > int(SCHEMA_VERSION.partition(".")[0]):
        raise BrokenBundle(
            f"{path}: schema version {version} is newer than the {SCHEMA_VERSION} that this "
            "edgenet reads; upgrade edgenet"
        )
    _validate(manifest, path)
    return dict(manifest)


def _validate(manifest: object, path: Path) -> None:
    import fastjsonschema

    try:
        _validator()(manifest)
    except fastjsonschema.JsonSchemaValueException as error:
        raise BrokenBundle(
            f"{path}: {error.message.replace('data', 'manifest', 1)}; {AGAIN}"
        ) from None


@cache
def _validator() -> Any:
    import fastjsonschema

    schema = json.loads((package_files("edgenet.schemas") / "manifest.schema.json").read_bytes())
    return fastjsonschema.compile(schema)


def left_out_files(bundle: Bundle, artifacts: Sequence[Artifact]) -> frozenset[str]:
    """Return the files that a copy of a bundle with only these of its artefacts lacks."""
    kept = {path for artifact in artifacts for path in artifact.files}
    known = {path for it in (*bundle.artifacts, *bundle.left_out) for path in it.files}
    return frozenset(known - kept)


def part_document(bundle: Bundle, artifacts: Sequence[Artifact]) -> str:
    """Return the text of `part.json`, one line, for a copy with only these of its artefacts."""
    part = {
        "schema_version": PART_VERSION,
        "bundle_sha256": bundle.sha256,
        "left_out": sorted(left_out_files(bundle, artifacts)),
    }
    return json.dumps(part) + "\n"


def _left_out(root: Path, manifest: dict[str, Any]) -> frozenset[str]:
    """Return the paths that a deployed part of a bundle lacks on purpose: artefacts alone."""
    path = root / PART
    if not path.exists():
        return frozenset()
    listed = tuple(BundleFile(**_known_fields(BundleFile, file)) for file in manifest["files"])
    of_artifacts = {path for entry in manifest["artifacts"] for path in entry["files"]}
    try:
        part = json.loads(path.read_bytes())
        same_version = part["schema_version"].partition(".")[0] == PART_VERSION.partition(".")[0]
        left_out = frozenset(part["left_out"])
        right = same_version and part["bundle_sha256"] == files_sha256(listed)
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        right, left_out = False, frozenset()
    if not right or not left_out <= of_artifacts:
        raise BrokenBundle(f"{path}: does not say what this copy of the bundle lacks; {AGAIN}")
    return left_out


def _check_files(
    root: Path, manifest: dict[str, Any], left_out: frozenset[str]
) -> tuple[BundleFile, ...]:
    """Return the bundle's files after reading each; whatever the manifest names is one of them."""
    files = tuple(BundleFile(**_known_fields(BundleFile, file)) for file in manifest["files"])
    listed = {file.path: file for file in files}
    if len(listed) != len(files):
        raise BrokenBundle(f"{root / MANIFEST}: lists a file twice; {AGAIN}")
    golden = manifest.get("golden")
    used = [
        *([manifest["labels"]["file"]] if manifest["labels"] else []),
        *(path for entry in manifest["artifacts"] for path in entry["files"]),
        *(entry["file"] for entry in manifest.get("quantizations", ())),
        *(_golden_files(golden).paths if golden else ()),
    ]
    for path in used:
        if path not in listed:
            raise BrokenBundle(f"{root / MANIFEST}: {path} is not in its list of files; {AGAIN}")
    for expected in files:
        path = root / expected.path
        if expected.path in left_out:
            continue
        if not path.is_file():
            raise BrokenBundle(f"{path}: is missing; {AGAIN}")
        found = describe_file(root, expected.path)
        if found != expected:
            raise BrokenBundle(
                f"{path}: was changed after it was written (sha256 {found.sha256[:12]}, manifest "
                f"says {expected.sha256[:12]}); {AGAIN}"
            )
    return files


def _parse(
    root: Path,
    manifest: dict[str, Any],
    files: tuple[BundleFile, ...],
    left_out: frozenset[str],
) -> Bundle:
    from edgenet.preprocess import preprocessing_from_spec

    artifacts = tuple(
        Artifact(
            runtime=entry["runtime"],
            precision=Precision(entry["precision"]),
            files=tuple(entry["files"]),
            size_bytes=entry["size_bytes"],
            sha256=entry["sha256"],
            variant=entry.get("variant"),
        )
        for entry in manifest["artifacts"]
    )
    missing = tuple(it for it in artifacts if left_out.intersection(it.files))
    golden = manifest.get("golden")
    return Bundle(
        root=root,
        name=manifest["name"],
        licence=manifest["licence"],
        model=Model(**_known_fields(Model, manifest["model"])),
        mean=tuple(manifest["normalisation"]["mean"]),
        std=tuple(manifest["normalisation"]["std"]),
        preprocessing=preprocessing_from_spec(manifest["preprocessing"]),
        outputs=tuple(
            Output(
                name=entry["name"],
                shape=tuple(entry["shape"]),
                layer=entry.get("layer"),
            )
            for entry in manifest["outputs"]
        ),
        labels=_labels(root, manifest["labels"]),
        files=files,
        artifacts=tuple(it for it in artifacts if it not in missing),
        left_out=missing,
        calibration=_calibration(root, manifest["calibration"]),
        tools=manifest["tools"],
        quantizations=tuple(_quantization(entry) for entry in manifest.get("quantizations", ())),
        golden=golden and _golden_files(golden),
        layers=_layers(manifest),
    )


def _golden_files(entry: dict[str, Any]) -> GoldenFiles:
    known = _known_fields(GoldenFiles, entry)
    return GoldenFiles(**{**known, "images": tuple(known["images"])})


def _labels(root: Path, entry: dict[str, Any] | None) -> tuple[str, ...]:
    if entry is None:
        return ()
    label_file = root / entry["file"]
    labels = read_labels(label_file)
    if len(labels) != entry["count"]:
        raise BrokenBundle(
            f"{label_file}: has {len(labels)} lines, the manifest says {entry['count']}; {AGAIN}"
        )
    return labels


def _calibration(root: Path, entry: dict[str, Any] | None) -> CalibrationIdentity | None:
    if entry is None:
        return None
    known = _known_fields(CalibrationIdentity, entry)
    found = CalibrationIdentity(**{**known, "images": tuple(known.get("images", ()))})
    if found.images and combined_sha256(found.images) != found.sha256:
        raise BrokenBundle(
            f"{root / MANIFEST}: the calibration's sha256 does not belong to its images; {AGAIN}"
        )
    return found


def _quantization(entry: dict[str, Any]) -> Quantization:
    judged = entry["judged"]
    return Quantization(
        name=entry["name"],
        float_layers=tuple(entry["float_layers"]),
        method=entry["method"],
        sqnr_db=judged["sqnr_db"],
        agreement_right=judged["agreement"] and judged["agreement"]["right"],
        images=judged["images"],
        judged_on=judged["on"],
        weighted_layers=entry.get("weighted_layers"),
        limits=tuple(
            LimitResult(**_known_fields(LimitResult, limit)) for limit in entry.get("limits", ())
        ),
        cosine=judged.get("cosine"),
        layers=_layers(entry),
    )


def _quantization_entry(found: Quantization) -> dict[str, Any]:
    """Return a quantised model's entry in the manifest, as `_quantization` reads it."""
    right, images = found.agreement_right, found.images
    percent = None if right is None else round(100 * right / images, 2)
    return {
        "name": found.name,
        "file": QUANTIZATION,
        "float_layers": found.float_layers,
        "method": found.method,
        "judged": {
            "on": found.judged_on,
            "images": images,
            "sqnr_db": found.sqnr_db,
            "cosine": found.cosine,
            "agreement": None if right is None else {"right": right, "percent": percent},
        },
        "weighted_layers": found.weighted_layers,
        "limits": [asdict(limit) for limit in found.limits],
        "layers": [asdict(layer) for layer in found.layers],
    }


def _layers(entry: dict[str, Any]) -> tuple[LayerWork, ...]:
    """Return the layers of a manifest or of a quantised model's entry."""
    return tuple(LayerWork(**_known_fields(LayerWork, layer)) for layer in entry.get("layers", ()))


def _known_fields(kind: type[Any], entry: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `entry` that this version knows; a newer minor version may add some."""
    known = {field.name for field in fields(kind)}
    return {key: value for key, value in entry.items() if key in known}
