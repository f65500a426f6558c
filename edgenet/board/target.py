"""A target: what edgenet knows about a family of boards, as data in `targets/<name>/target.toml`.

A user's own board is one more such file. What a file may say is in
`edgenet/schemas/target.schema.json`; a file that says anything else is refused.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from edgenet.errors import BadTarget, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "target.toml"


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """How a machine shows that it is of this family: by any one of these.

    None at all makes it the target of last resort.
    """

    model: str | None = None
    """Regular expression that is found in the device tree's model."""
    files: tuple[str, ...] = ()
    """Any of them is there."""
    architectures: tuple[str, ...] = ()
    """As `uname -m` says; counts for less than the others."""


@dataclass(frozen=True, kw_only=True)
class RuntimeChoice:
    """A runtime that the family can use."""

    name: str
    install: str
    """The command that installs it there."""
    why: str


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """One sensor, and what its kind has to be told about this family."""

    kind: str
    """One of `edgenet.board.sensors.KINDS`."""
    soc: str | None = None
    """Regular expression: which zones are of processor and chip."""
    chips: tuple[str, ...] = ()
    """Names of hwmon devices."""
    alerts: str | None = None
    """Regular expression: which cooling devices are alerts."""
    files: tuple[str, ...] = ()
    """Patterns of counters that are summed."""
    means: str = ""
    """What has happened when such a counter rises."""
    totals: tuple[tuple[str, ...], ...] = ()
    """Rails that make up the whole, the preferred set first."""
    load_files: tuple[str, ...] = ()
    clock_files: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ThreadAdvice:
    """Which cores to use."""

    cores: str
    """`fastest`: of those that no other outdoes, one thread a core; slow ones hold up the others.
    `all` where they are alike."""
    advice: str


@dataclass(frozen=True, kw_only=True)
class CameraDefault:
    """The camera that the family usually has."""

    uri: str
    width: int
    height: int
    fps: int


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What is known of one model of the family."""

    pattern: str
    """Regular expression that is found in the model's name."""
    chip: str
    cores: str
    facts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LatencyBand:
    """A published latency, to see whether a measurement is anywhere near."""

    pattern: str
    """Regular expression that is found in the model's name."""
    network: str
    precision: str
    threads: int
    runtime: str
    low_ms: float
    high_ms: float
    published_by: str
    """Not by edgenet: who measured it, and what to know about it."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A family of boards."""

    name: str
    title: str
    verified_on_hardware: bool
    """Whether this file has been tried on such a board rather than written from documentation."""
    recognised: Recognition
    runtimes: tuple[RuntimeChoice, ...]
    """The preferred first."""
    sensors: tuple[Sensor, ...]
    """Where two tell the same, the first counts."""
    threads: ThreadAdvice
    camera: CameraDefault | None
    traps: tuple[str, ...]
    models: tuple[ModelFacts, ...]
    latency_bands: tuple[LatencyBand, ...]

    def facts_of(self, model: str) -> ModelFacts | None:
        """Return what is known of the model of this name."""
        return next((facts for facts in self.models if re.search(facts.pattern, model)), None)

    def bands_of(self, model: str) -> tuple[LatencyBand, ...]:
        """Return the published latencies for the model of this name."""
        return tuple(band for band in self.latency_bands if re.search(band.pattern, model))


def targets() -> tuple[str, ...]:
    """Return the names of the targets that come with edgenet."""
    folders = files("edgenet.targets").iterdir()
    return tuple(sorted(folder.name for folder in folders if (folder / FILE).is_file()))


def load_target(name_or_path: str) -> Target:
    """Return the target of that name, or that of a user's own TOML file.

    Raises `UsageError` where there is none, `BadTarget` naming file, key and what would be right.
    """
    if name_or_path in targets():
        text = (files("edgenet.targets") / name_or_path / FILE).read_text("utf-8")
        return parse_target(text, name=name_or_path, origin=f"targets/{name_or_path}/{FILE}")
    path = Path(name_or_path)
    if not path.is_file():
        raise UsageError(
            f"no target {name_or_path!r}: choose from {', '.join(targets())} or give a TOML file"
        )
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise BadTarget(f"{path}: is not UTF-8 text (byte {error.start})") from None
    return parse_target(text, name=path.stem, origin=str(path))


def parse_target(text: str, *, name: str, origin: str) -> Target:
    """Return the target in a TOML text; `origin` stands in front of what is wrong with it."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadTarget(f"{origin}: is not TOML ({error})") from None
    _validate(content, origin)
    camera = content.get("camera")
    return Target(
        name=name,
        title=content["title"],
        verified_on_hardware=content["verified_on_hardware"],
        recognised=Recognition(**_frozen(content["recognised"])),
        runtimes=tuple(RuntimeChoice(**entry) for entry in content["runtimes"]),
        sensors=tuple(Sensor(**_frozen(entry)) for entry in content["sensors"]),
        threads=ThreadAdvice(**content["threads"]),
        camera=None if camera is None else CameraDefault(**camera),
        traps=tuple(content.get("traps", ())),
        models=tuple(ModelFacts(**_frozen(entry)) for entry in content.get("models", ())),
        latency_bands=tuple(LatencyBand(**entry) for entry in content.get("latency_bands", ())),
    )


def _frozen(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with its arrays as tuples, those inside them included."""
    return {key: _tuples(value) for key, value in entry.items()}


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _validate(content: dict[str, Any], origin: str) -> None:
    import fastjsonschema

    try:
        _validator()(content)
    except fastjsonschema.JsonSchemaValueException as error:
        raise BadTarget(f"{origin}: {_complaint(error)}") from None


def _complaint(error: Any) -> str:
    """Return which key is wrong, what it says and what would be right."""
    # The path begins with "data", the library's word for the whole; keys stand between dots.
    key = _key(error.path[1:])
    rule, wanted = error.rule, error.rule_definition
    inside = f" in {key}" if key else ""
    if rule == "required":
        missing = next(name for name in wanted if name not in error.value)
        strange = "".join(f", has the unknown key {name!r}" for name in _unknown_keys(error)[:1])
        return f"lacks {missing!r}{inside}{strange}: it needs {', '.join(wanted)}"
    if rule == "additionalProperties":
        known = ", ".join(error.definition["properties"])
        return f"unknown key {_unknown_keys(error)[0]!r}{inside}: choose from {known}"
    return f"{key} is {json.dumps(error.value, default=str)}, expected {_right(rule, wanted)}"


def _unknown_keys(error: Any) -> list[str]:
    """Return the keys that a table has and may not have; one may be mistyped for one it lacks."""
    if error.definition.get("additionalProperties", True):
        return []
    return [name for name in error.value if name not in error.definition["properties"]]


def _right(rule: str, wanted: Any) -> str:
    """Return what a rule of the schema asks for, in words."""
    if rule == "enum":
        return "one of " + ", ".join(map(str, wanted))
    return {
        "type": EXPECTED.get(str(wanted), str(wanted)),
        "minimum": f"at least {wanted}",
        "exclusiveMinimum": f"more than {wanted}",
        "minItems": f"at least {wanted} entry",
        "minLength": "a text that is not empty",
        "format": "a regular expression",
    }[rule]


EXPECTED = {
    "string": "a text in quotes",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list in brackets",
    "object": "a table",
}
"""What a TOML file should hold, by the schema's word for its type."""


def _key(path: list[str]) -> str:
    """Return a path as TOML shows it: sensors[2].kind."""
    shown = "".join(f"[{part}]" if str(part).isdecimal() else f".{part}" for part in path)
    return shown.removeprefix(".")


@cache
def _validator() -> Any:
    import fastjsonschema

    schema = json.loads((files("edgenet.schemas") / "target.schema.json").read_bytes())
    return fastjsonschema.compile(schema)
