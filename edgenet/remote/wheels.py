"""What is installed on a board: edgenet's own wheel, and which others it needs.

edgenet is on no index: its wheel is made from what is installed here, whether from a checkout or
from a wheel, without what only the host needs. The others are fetched by this machine's pip for the
board's platform, or chosen by the board's own.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path

from edgenet import __version__
from edgenet.bundle import MANIFEST, Artifact, Bundle, shipped_bundle
from edgenet.errors import DeployRefused
from edgenet.manifest import PART, left_out_files, load_bundle, part_document
from edgenet.remote.receiver import NOT_NEEDED

DATA_PACKAGES = ("calibration", "targets")
"""Stand beside edgenet in a checkout and inside it in a wheel."""
LEFT_OUT: Mapping[str, str] = {
    r"models/pretrained/.*\.safetensors": "weights to convert from",
    r"calibration/(images|fashion_mnist)/": "calibration and test pictures",
    r"targets/[^/]+/trees/": "documented boards",
}
"""What of edgenet stays on the host, by its path (a regular expression) with what it is."""
SHIPPED = "shipped"
LICENCES = ("LICENSE", "NOTICE")
BOARD_EXTRAS = ("board", "viewer", "mqtt")
OTHER_EXTRAS: Mapping[str, tuple[str, ...]] = {"litert": ("litert", "tflite-runtime")}
"""The extras that bring a runtime, where it is not one of its own name; the preferred first."""
OLDEST_GLIBC_MINOR = 17
FETCH_TIMEOUT_S = 600.0
NO_NETWORK = re.compile(
    "(?i)connection broken|failed to establish|name resolution|network is unreachable|"
    "max retries|timed out|ssl"
)
"""In what pip says where it reached no index at all."""
NO_WHEEL = re.compile(r"No matching distribution found for ([^\s;(]+)")
TIME = (1980, 1, 1, 0, 0, 0)
"""Of every file in our wheel: the same content is the same wheel."""


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What wheels have to fit."""

    python: str
    """Major and minor version: "3.11"."""
    architecture: str
    """As in the names of wheels: aarch64, armv7l, x86_64."""
    glibc: tuple[int, int]

    @property
    def tags(self) -> tuple[str, ...]:
        """Return the platform tags that pip accepts there, the newest first."""
        major, newest = self.glibc
        names = [
            f"manylinux_{major}_{minor}_{self.architecture}"
            for minor in range(newest, OLDEST_GLIBC_MINOR - 1, -1)
        ]
        return (*names, f"manylinux2014_{self.architecture}", f"linux_{self.architecture}")


class NoWheel(Exception):
    """A package without a wheel for a platform; never leaves `edgenet.remote`."""

    def __init__(self, package: str) -> None:
        super().__init__(package)
        self.package = package


@dataclass(frozen=True, kw_only=True)
class RunnerWheel:
    """edgenet's own wheel for a board."""

    name: str
    data: bytes
    left_out: Mapping[str, int]
    """Bytes of what stays on the host, by what it is."""

    @property
    def sha256(self) -> str:
        """Return its hash."""
        return hashlib.sha256(self.data).hexdigest()


def requirements(extras: Sequence[str], python: str) -> tuple[str, ...]:
    """Return what edgenet with these extras needs on a Python, without conditions.

    pip evaluates conditions for the machine that it runs on, which here is another one.
    """
    found = []
    for line in _declared("Requires-Dist"):
        wanted, _, condition = line.partition(";")
        if any(_holds(condition, extra, python) for extra in ("", *extras)):
            found.append(wanted.strip())
    return tuple(dict.fromkeys(sorted(found)))


def known_extras() -> tuple[str, ...]:
    """Return the extras that edgenet has."""
    return _declared("Provides-Extra")


def _declared(field: str) -> tuple[str, ...]:
    """Return the values of a field of edgenet's own metadata."""
    return tuple(metadata.metadata("edgenet").get_all(field) or ())


def runtime_extras(runtime: str) -> tuple[str, ...]:
    """Return the extras that can bring a runtime, the preferred first; none where none can."""
    names = OTHER_EXTRAS.get(runtime, (runtime,))
    return tuple(name for name in names if name in known_extras())


CONDITION = re.compile(
    r"^\(*\s*(extra|python_version)\s*(==|<=|>=|<|>)\s*['\"]([^'\"]+)['\"]\s*\)*$"
)


def _holds(condition: str, extra: str, python: str) -> bool:
    """Tell whether a requirement's condition holds; only what edgenet's own say is understood."""
    if not condition.strip():
        return extra == ""
    parts = [CONDITION.match(part.strip()) for part in condition.split(" and ")]
    if extra and not any(part and part[1] == "extra" for part in parts):
        return False
    return all(_compare(part, extra, python) for part in parts)


def _compare(part: re.Match[str] | None, extra: str, python: str) -> bool:
    assert part is not None, "pyproject.toml has a condition that deploy does not understand"
    name, sign, value = part.groups()
    if name == "extra":
        return extra == value
    here, there = (tuple(map(int, text.split("."))) for text in (python, value))
    return {
        "==": here == there,
        "<": here < there,
        "<=": here <= there,
        ">": here > there,
        ">=": here >= there,
    }[sign]


def fetch(wanted: Sequence[str], platform: Platform) -> tuple[Path, ...]:
    """Return wheels that fulfil requirements on a platform, from this machine's index or cache.

    Raises `NoWheel` for a package that has none, `DeployRefused` where nothing can be fetched.
    """
    key = hashlib.sha256(json.dumps([sorted(wanted), platform.tags, platform.python]).encode())
    folder = _cache() / key.hexdigest()[:16]
    if not folder.is_dir():
        _download(wanted, platform, folder)
    return tuple(sorted(folder.glob("*.whl")))


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "edgenet" / "wheels"


def _download(wanted: Sequence[str], platform: Platform, folder: Path) -> None:
    """Fill a folder of the cache, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    tags = [word for tag in platform.tags for word in ("--platform", tag)]
    only = ("--only-binary=:all:", "--python-version", platform.python, "--retries", "1")
    try:
        done = subprocess.run(  # noqa: S603
            [*pip, *only, *tags, "--dest", str(new), *wanted],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=FETCH_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise why_pip_failed(done.stderr, "pip on this machine")
        if not folder.is_dir():  # another deployment may have been quicker
            new.rename(folder)
    except subprocess.TimeoutExpired:
        raise DeployRefused(
            f"pip on this machine fetched no wheels in {FETCH_TIMEOUT_S:g} s; is it on a network?"
        ) from None
    finally:
        shutil.rmtree(new, ignore_errors=True)


def why_pip_failed(said: str, who: str) -> NoWheel | DeployRefused:
    """Return what pip's messages mean: a package without a wheel, or no index, or else."""
    if found := NO_WHEEL.search(said):
        if NO_NETWORK.search(said):
            return DeployRefused(f"{who} reaches no index for {found[1]}; is it on a network?")
        return NoWheel(found[1])
    errors = [line for line in said.splitlines() if line.strip()]
    errors = [line for line in errors if "error" in line.lower()] or errors or ["it says nothing"]
    return DeployRefused(f"{who} failed: {errors[-1].strip()}")


def unpacked_bytes(wheel: Path) -> int:
    """Return what a wheel takes on the board."""
    with zipfile.ZipFile(wheel) as archive:
        return sum(
            member.file_size
            for member in archive.infolist()
            if not NOT_NEEDED.search(member.filename)
        )


def runner_wheel(runtimes: Sequence[str]) -> RunnerWheel:
    """Return edgenet's own wheel, light, with the built-in bundle for these runtimes.

    The same installed files give the same bytes.
    """
    contents, left_out = {}, dict.fromkeys(LEFT_OUT.values(), 0)
    for name, path in _installed_files():
        reason = next((why for what, why in LEFT_OUT.items() if re.match(what, name)), None)
        if reason is None:
            contents[f"edgenet/{name}"] = path.read_bytes()
        else:
            left_out[reason] += path.stat().st_size
    shipped, not_shipped = _shipped(runtimes)
    left_out["artefacts of the built-in bundle for other runtimes"] = not_shipped
    contents.update(shipped)
    information = f"edgenet-{__version__}.dist-info"
    contents[f"{information}/METADATA"] = _metadata()
    contents[f"{information}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: edgenet deploy\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    for path in _licences():
        contents[f"{information}/licenses/{path.name}"] = path.read_bytes()
    return RunnerWheel(
        name=f"edgenet-{__version__}-py3-none-any.whl",
        data=_zip(contents, f"{information}/RECORD"),
        left_out={what: size for what, size in left_out.items() if size},
    )


def _metadata() -> bytes:
    """Return what pip and `importlib.metadata` on the board are told of edgenet."""
    lines = [
        "Metadata-Version: 2.1",
        "Name: edgenet",
        f"Version: {__version__}",
        *(f"Requires-Dist: {line}" for line in sorted(_declared("Requires-Dist"))),
    ]
    return "".join(line + "\n" for line in lines).encode()


def _licences() -> list[Path]:
    """Return the files of licences, which go wherever edgenet goes."""
    (package,) = set(import_module("edgenet").__path__)
    beside = [Path(package).parent / name for name in LICENCES]
    if all(path.is_file() for path in beside):
        return beside  # a checkout
    installed = metadata.files("edgenet") or ()
    return sorted(Path(str(file.locate())) for file in installed if file.name in LICENCES)


def _installed_files() -> Iterator[tuple[str, Path]]:
    """Yield every file of the package but the built-in bundle, by its path inside it."""
    places = {"": "edgenet", **{f"{name}/": f"edgenet.{name}" for name in DATA_PACKAGES}}
    for prefix, package in places.items():
        (folder,) = set(import_module(package).__path__)
        for path in sorted(Path(folder).rglob("*")):
            name = prefix + path.relative_to(folder).as_posix()
            parts = name.split("/")
            hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
            inside_twice = not prefix and parts[0] in (*DATA_PACKAGES, SHIPPED)
            if path.is_file() and not hidden and not inside_twice:
                yield name, path


def _shipped(runtimes: Sequence[str]) -> tuple[dict[str, bytes], int]:
    """Return the built-in bundle's files for these runtimes, and the bytes of the others.

    Nothing of it where no artefact fits.
    """
    bundle = load_bundle(shipped_bundle())
    total = sum(file.size_bytes for file in bundle.files)
    if not any(artifact.runtime in runtimes for artifact in bundle.artifacts):
        return {}, total
    chosen = tuple(it for it in bundle.artifacts if it.runtime in runtimes)
    at = f"edgenet/{SHIPPED}/{bundle.root.name}"
    contents = {
        f"{at}/{name}": (bundle.root / name).read_bytes() for name in board_files(bundle, chosen)
    }
    held = sum(map(len, contents.values()))
    contents[f"{at}/{PART}"] = part_document(bundle, chosen).encode()
    return contents, max(total - held, 0)


def board_files(bundle: Bundle, artifacts: Sequence[Artifact]) -> tuple[str, ...]:
    """Return the paths of a bundle's files with only these of its artefacts, and its manifest."""
    others = left_out_files(bundle, artifacts)
    return (*(file.path for file in bundle.files if file.path not in others), MANIFEST)


def _zip(contents: Mapping[str, bytes], record: str) -> bytes:
    """Return a wheel's bytes: sorted, without times, RECORD at its end."""
    lines = []
    for name, data in sorted(contents.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}\n")
    lines.append(f"{record},,\n")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (*sorted(contents.items()), (record, "".join(lines).encode())):
            member = zipfile.ZipInfo(name, TIME)
            member.external_attr = 0o644 << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, data)
    return buffer.getvalue()
