"""The bundle: what a folder that explains itself says, as data.

`edgenet.manifest` reads and writes it. Needs no runtime and no converter; runs on boards.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from importlib.resources import files as package_files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenet.errors import BadData, UsageError

if TYPE_CHECKING:
    from edgenet.preprocess import Preprocessing

MANIFEST = "manifest.json"
LABELS = "labels.txt"
QUANTIZATION = "quantization.json"
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
    layers: tuple[LayerWork, ...] = ()
    """Those of the bundle's that have less to do here; unknown, so none, before version 1.5."""

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

    def work(self, artifact: Artifact) -> tuple[LayerWork, ...]:
        """Return what each layer has to do in an artefact, in the order of execution."""
        form = next((q for q in self.quantizations if q.name == artifact.quantization), None)
        changed = {layer.name: layer for layer in form.layers} if form else {}
        return tuple(changed.get(layer.name, layer) for layer in self.layers)

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


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
