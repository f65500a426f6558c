"""The bundle: a folder that explains itself, and `manifest.json` at its top.

`new_bundle` fills a hidden folder beside the destination and renames it when it is whole, manifest
last, so that no folder ever loads that is not complete. `load_bundle` checks the manifest against
the published schema and every file against its hash. Only this module knows the manifest's JSON.
Needs no runtime and no converter; runs on boards.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import Enum
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenet.errors import BadData, BrokenBundle, EdgenetError, NotWritable, UsageError

if TYPE_CHECKING:
    from edgenet.preprocess import Preprocessing

MANIFEST = "manifest.json"
PART, PART_VERSION = "part.json", "1.0"
"""Beside the manifest of a bundle that was deployed: which of its files are left out there."""
LABELS = "labels.txt"
QUANTIZATION = "quantization.json"
SCHEMA_VERSION = "1.4"
DECIBEL, POINTS = "dB", "points"
"""Units of limits for the loss: of the logits' SQNR, of top-1 accuracy in percent."""
AGAIN = "copy the bundle again or convert again"


VARIANTS = ("tensorrt",)
"""INT8 models beside the one for all, named after the runtime that they are made for."""


class Precision(str, Enum):
    """What an artefact's weights (and, in int8, its arithmetic) are held in."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"


@dataclass(frozen=True, kw_only=True)
class BundleFile:
    """One file of a bundle."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One model file (and its companions) that one runtime loads."""

    runtime: str
    precision: Precision
    files: tuple[str, ...]
    """Paths inside the bundle; the first is the one to open."""
    size_bytes: int
    sha256: str
    variant: str | None = None
    """The runtime that a second quantised model is made for; None for what every runtime gets."""

    @property
    def form(self) -> str:
        """Return precision and variant, as tables show them."""
        return " ".join(filter(None, (self.precision.value, self.variant)))

    @property
    def label(self) -> str:
        """Return the artefact's name in every table and message: "onnxruntime int8 tensorrt"."""
        return f"{self.runtime} {self.form}"

    @property
    def asked_for_as(self) -> str:
        """Return the runtime's name by which a user asks for it: a variant's is its own."""
        return self.variant or self.runtime

    @property
    def quantization(self) -> str | None:
        """Return the name of the quantised model that it encodes; None for a float artefact."""
        if self.precision is not Precision.INT8:
            return None
        return "-".join(filter(None, (self.precision.value, self.variant)))


@dataclass(frozen=True, kw_only=True)
class CalibrationIdentity:
    """Which images the INT8 ranges come from."""

    name: str
    count: int
    seed: int
    sha256: str
    """Over `images` in their order."""
    method: str
    images: tuple[str, ...] = ()
    """sha256 of each image's decoded RGB pixels; empty in bundles of schema version 1.0."""


@dataclass(frozen=True, kw_only=True)
class LimitResult:
    """A limit for the loss that was asked for, and what a quantised model reached."""

    option: str
    """The option of `convert` that set it."""
    unit: str
    """`DECIBEL`, of which there must be as many at least, or `POINTS` lost at most."""
    asked: float
    reached: float | None
    """Below 0 for points that were gained; None for logits bit-identical to the reference's."""
    judged_on: str
    """Which images it was measured on."""
    images: int

    @property
    def holds(self) -> bool:
        """Tell whether it is as near, or loses as little, as was asked."""
        if self.reached is None:
            return True
        return self.reached >= self.asked if self.unit == DECIBEL else self.reached <= self.asked


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """One quantised model: what stayed in float, and how near it came to the reference."""

    name: str
    """As `Artifact.quantization`: "int8", or with its variant behind: "int8-tensorrt"."""
    float_layers: tuple[str, ...]
    """Operators that compute in float; empty for a model of integers throughout."""
    method: str
    sqnr_db: float | None
    """Of all outputs, in dB; None when they are bit-identical to the reference's."""
    agreement_right: int | None
    """Of `images`, those with the reference's best class; None for what is no classifier."""
    images: int
    judged_on: str
    """Which images these are."""
    weighted_layers: int | None = None
    """How many layers have weights, those in float included; None before schema version 1.2."""
    limits: tuple[LimitResult, ...] = ()
    """What was asked of it; unknown, so empty, before schema version 1.2."""
    cosine: float | None = None
    """Between all outputs and the reference's; None before schema version 1.2."""

    @property
    def is_mostly_float(self) -> bool:
        """Tell whether more than half of its layers compute in float."""
        return 2 * len(self.float_layers) > (self.weighted_layers or math.inf)


@dataclass(frozen=True, kw_only=True)
class LayerWork:
    """What one layer of the network has to do, whatever computes it."""

    name: str
    """Operators of every artefact are named after it."""
    kind: str
    """In words: "convolution", "depthwise convolution", "fully connected", "add", ..."""
    mult_adds: int
    weights: int
    """Values, biases not counted."""
    read: int
    """Values of the tensors that it reads."""
    written: int
    """Values of the tensor that it makes."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """One output of every artefact, float32."""

    name: str
    shape: tuple[int, ...]
    """(1, C) of a vector, (1, H, W, C) of a map."""
    layer: str | None = None
    """Which of the bundle's layers makes it; None before schema version 1.2."""

    @property
    def is_map(self) -> bool:
        """Tell whether it has values at each place of the image."""
        return len(self.shape) == 4

    @property
    def layout(self) -> str:
        """Return what each side of the shape is."""
        return "NHWC" if self.is_map else "NC"


@dataclass(frozen=True, kw_only=True)
class GoldenFiles:
    """Where the golden vectors stand; `edgenet.golden` reads them."""

    file: str
    """Their table: hashes, tolerances, which row of the answers is whose."""
    logits: str
    """The answers: logits, or all outputs of what is no classifier."""
    images: tuple[str, ...]
    layers: str | None = None
    """What each layer made; None before schema version 1.3 and where no runtime could tell."""
    reference: str | None = None
    """What the float reference answered, (pictures, values); None before schema version 1.4."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Return every file of them, for the bundle's list."""
        further = (path for path in (self.layers, self.reference) if path is not None)
        return (self.file, self.logits, *further, *self.images)


@dataclass(frozen=True, kw_only=True)
class Model:
    """Which network a bundle holds."""

    architecture: str
    width_multiplier: float | None
    """None, as the activation and the padding, where the architecture knows no such choice."""
    resolution: int
    num_classes: int | None
    """None for what is no classifier."""
    activation: str | None
    padding: str | None
    weights: str
    weights_sha256: str
    trained: bool

    @property
    def summary(self) -> str:
        """Return the architecture and the choices that it was built with, as a person reads it."""
        choices = {
            f"width multiplier {self.width_multiplier or 0:g}": self.width_multiplier,
            f"{self.activation}": self.activation,
            f"{self.padding} padding": self.padding,
        }
        return ", ".join([self.architecture, *(text for text, value in choices.items() if value)])


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle on disk whose manifest and files were found whole."""

    root: Path
    name: str
    licence: str
    model: Model
    mean: tuple[float, ...]
    std: tuple[float, ...]
    preprocessing: Preprocessing
    outputs: tuple[Output, ...]
    labels: tuple[str, ...]
    """One for each logit; empty for what is no classifier."""
    files: tuple[BundleFile, ...]
    artifacts: tuple[Artifact, ...]
    calibration: CalibrationIdentity | None
    tools: Mapping[str, str]
    quantizations: tuple[Quantization, ...] = ()
    """Empty in bundles of schema version 1.0 and where nothing is in 8 bits."""
    golden: GoldenFiles | None = None
    layers: tuple[LayerWork, ...] = ()
    """In the order of execution; `Output.layer` names one of them. Empty before version 1.2."""
    left_out: tuple[Artifact, ...] = ()
    """Artefacts whose files were left out on purpose when the bundle was put on this board."""

    @property
    def sha256(self) -> str:
        """Return the bundle's identity: the hash over its list of files."""
        return files_sha256(self.files)

    @property
    def is_classifier(self) -> bool:
        """Tell whether the one output is a vector of logits."""
        return [(output.name, output.is_map) for output in self.outputs] == [("logits", False)]

    def require_classifier(self, wish: str) -> None:
        """Raise `BadData` for what is no classifier; `wish` needs labels."""
        if not self.is_classifier:
            names = ", ".join(output.name for output in self.outputs)
            raise BadData(
                f"{self.root}: is no classifier (its outputs are {names}) and has no labels, which "
                f"{wish} needs; verify, diagnose, inspect and profile take it"
            )

    def path(self, artifact: Artifact) -> Path:
        """Return the file of `artifact` that a runtime opens."""
        return self.root / artifact.files[0]

    def select(
        self, runtimes: tuple[str, ...] = (), precisions: tuple[Precision, ...] = ()
    ) -> tuple[Artifact, ...]:
        """Return the artefacts of these runtimes and precisions; all where none is named.

        A variant is found by its own name and stands behind those that every runtime gets. Raises
        `UsageError` listing what there is when nothing fits.
        """
        chosen = tuple(
            artifact
            for artifact in sorted(self.artifacts, key=lambda artifact: artifact.variant or "")
            if (not runtimes or artifact.asked_for_as in runtimes)
            and (not precisions or artifact.precision in precisions)
        )
        if not chosen:
            there = ", ".join(artifact.label for artifact in self.artifacts)
            wanted = " ".join([*runtimes, *(p.value for p in precisions)])
            left = ", ".join(artifact.label for artifact in self.left_out)
            not_here = f"; not deployed here: {left}" if left else ""
            raise UsageError(f"{self.root}: has no artefact for {wanted}; it has {there}{not_here}")
        return chosen


def shipped_bundle() -> Path:
    """Return the folder of the bundle that comes with edgenet: the ImageNet network in INT8."""
    return Path(str(package_files("edgenet"))) / "shipped" / "mobilenet_v1_int8"


def files_sha256(files: tuple[BundleFile, ...]) -> str:
    """Return the hash over a list of files: their paths, sizes and hashes, sorted by path."""
    listing = sorted((asdict(file) for file in files), key=lambda entry: str(entry["path"]))
    return hashlib.sha256(_canonical(listing)).hexdigest()


def load_bundle(root: Path) -> Bundle:
    """Return the bundle at `root`, its manifest validated and every file's hash checked.

    Raises `UsageError` when there is no such folder, `BrokenBundle` when it is not a bundle, comes
    from a newer schema, lacks a file or has one that was changed. A copy that `edgenet deploy` made
    on a board says in `part.json` which artefacts it lacks; those alone may be missing.
    """
    manifest = _read_manifest(root)
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


@contextmanager
def new_bundle(destination: Path, *, replace: bool) -> Iterator[Path]:
    """Give an empty folder to fill; it becomes `destination` when the block ends well.

    The folder is hidden beside the destination and is removed when the block fails. What a killed
    run left there is removed first. Raises `UsageError` when the destination is taken and `replace`
    is not set, or is something other than a bundle, `NotWritable` when there is no room for it.
    """
    if destination.is_symlink():
        raise UsageError(f"{destination}: is a symbolic link; give -o the folder that it points to")
    destination = destination.resolve()
    _remove_leftovers(destination)
    _check_destination(destination, replace=replace)
    parent = destination.parent
    partial = parent / f".{destination.name}.partial-{os.getpid()}"
    old = parent / f".{destination.name}.old-{os.getpid()}"
    missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    with writing(destination):
        try:
            parent.mkdir(parents=True, exist_ok=True)
            partial.mkdir()
            yield partial
            if replace and destination.exists():
                destination.rename(old)
            partial.rename(destination)
            if old.exists():
                old.rename(partial)  # from here on it is litter and never put back
                shutil.rmtree(partial, ignore_errors=True)
        except BaseException:
            if old.exists() and not destination.exists():
                old.rename(destination)
            shutil.rmtree(partial, ignore_errors=True)
            for folder in missing:
                if folder.exists() and not any(folder.iterdir()):
                    folder.rmdir()
            raise


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


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under a temporary name and rename it, so that it is never half there."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    with writing(path):
        try:
            partial.write_bytes(data)
            partial.rename(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def writing(path: Path, *, option: str = "-o") -> Iterator[None]:
    """Turn what the system says against writing below `path` into `NotWritable`, naming `path`.

    `option` is what `path` was given with.
    """
    try:
        yield
    except OSError as error:
        raise NotWritable(
            f"{path}: cannot be written ({error.strerror or error}); make room or choose another "
            f"place with {option}"
        ) from error


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


def describe_file(root: Path, path: str) -> BundleFile:
    """Return size and hash of a file in a bundle's folder."""
    data = (root / path).read_bytes()
    return BundleFile(path=path, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def describe_artifact(
    runtime: str,
    precision: Precision,
    files: tuple[BundleFile, ...],
    *,
    variant: str | None = None,
) -> Artifact:
    """Return the artefact made of `files`, the one to open first."""
    digests = [file.sha256 for file in files]
    return Artifact(
        runtime=runtime,
        precision=precision,
        files=tuple(file.path for file in files),
        size_bytes=sum(file.size_bytes for file in files),
        sha256=digests[0] if len(digests) == 1 else combined_sha256(digests),
        variant=variant,
    )


def artifact_fields(artifact: Artifact) -> dict[str, str | None]:
    """Return what identifies an artefact, as every document of ours has it."""
    return {
        "runtime": artifact.runtime,
        "precision": artifact.precision.value,
        "variant": artifact.variant,
        "sha256": artifact.sha256,
    }


def artifact_label(fields: Mapping[str, Any]) -> str:
    """Return `Artifact.label` of what `artifact_fields` made."""
    names = (fields["runtime"], fields["precision"], fields.get("variant"))
    return " ".join(filter(None, names))


def combined_sha256(hashes: Sequence[str]) -> str:
    """Return one hash over hashes in their order."""
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _read_manifest(root: Path) -> dict[str, Any]:
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
        layers=tuple(
            LayerWork(**_known_fields(LayerWork, entry)) for entry in manifest.get("layers", ())
        ),
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
    }


def _known_fields(kind: type, entry: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `entry` that this version knows; a newer minor version may add some."""
    return {key: value for key, value in entry.items() if key in kind.__dataclass_fields__}  # type: ignore[attr-defined]


def _check_destination(destination: Path, *, replace: bool) -> None:
    above = next(folder for folder in destination.parents if folder.exists())
    if not above.is_dir():
        raise UsageError(f"{above}: is a file, so no bundle fits into it; choose another -o")
    if not destination.exists():
        return
    try:
        _read_manifest(destination)
    except EdgenetError:
        raise UsageError(
            f"{destination}: exists and is no bundle that this edgenet reads, so it is not "
            "replaced; choose another -o or remove it yourself"
        ) from None
    if not replace:
        raise UsageError(f"{destination}: exists already; choose another -o or add --force")


def _remove_leftovers(destination: Path) -> None:
    """Clear what killed runs left beside `destination`; put back a bundle caught in a swap."""
    for kind in ("partial", "old"):
        for folder in destination.parent.glob(f".{destination.name}.{kind}-*"):
            pid = folder.name.rpartition("-")[2]
            # Our own number is a killed run's: in a container every run may get the same one.
            if not pid.isdecimal() or (int(pid) != os.getpid() and _is_running(int(pid))):
                continue
            if kind == "old" and not destination.exists():
                folder.rename(destination)
            else:
                shutil.rmtree(folder, ignore_errors=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
