"""Whether two stored measurements were taken alike, condition by condition.

A condition that both sides state and that is not the same makes them unlike; one that only a single
side states is named, because nobody can say. A throttled or unfinished run is like no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from edgenet.measure.stored import Camera, Document, Record

Condition = Callable[[Record], str | None]
"""A condition of one record in words; None where it is not known."""


def _one_of(yes: str, no: str, value: bool | None) -> str | None:
    return None if value is None else yes if value else no


def _numbers(values: Iterable[int] | None) -> str | None:
    return None if values is None else " ".join(map(str, values))


OF_ANSWERS: dict[str, Condition] = {
    "runtime version": lambda record: record.runtime_version,
    "device": lambda record: record.device,
}


def _load(record: Record) -> str | None:
    """Return what decides when an inference begins."""
    if record.camera is None:
        return "back to back" if record.latency else None
    return "frames of a camera" if record.camera.live else "frames as fast as they are taken"


def _of_camera(words: Callable[[Camera], str | None]) -> Condition:
    return lambda record: None if record.camera is None else words(record.camera)


def _rate(camera: Camera) -> str | None:
    rate = camera.frames_per_second
    return None if rate is None else f"{rate:g} fps"


OF_LATENCY: dict[str, Condition] = {
    "threads": lambda record: str(record.threads),
    "length of the run": lambda record: _one_of("quick", "published", record.quick),
    "CPU affinity": lambda record: _numbers(record.affinity),
    "governor": lambda record: record.governor,
    "power mode": lambda record: record.power_mode,
}
"""These change a latency and leave the answers alone."""
OF_LOAD: dict[str, Condition] = {
    "load": _load,
    "source rate": _of_camera(_rate),
    "source size": _of_camera(lambda camera: "{} x {}".format(*camera.size)),
    "source format": _of_camera(lambda camera: camera.format),
    "recorded meanwhile": _of_camera(lambda camera: _one_of("yes", "no", camera.recorded)),
    "float reference on the side": _of_camera(lambda camera: _one_of("yes", "no", camera.shadowed)),
}
"""Of whatever was timed while frames came, or in place of it."""
OF_FRAME_TO_LABEL: dict[str, Condition] = {
    "clock of the frames": _of_camera(lambda camera: camera.clock),
}
OF_PACED_LATENCY: dict[str, Condition] = {
    "paced rate": lambda record: None if record.paced_fps is None else f"{record.paced_fps:g} fps",
}
FLAWS: dict[str, tuple[Condition, str]] = {
    "throttled": (lambda record: _one_of("yes", "no", record.throttled), "yes"),
    "measured whole": (lambda record: _one_of("yes", "no", record.complete), "no"),
}
"""What spoils a latency even where both sides have it, and the word for it."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A condition that BASE and NEW do not share, or a flaw that one of them has."""

    condition: str
    base: str
    new: str
    artifact: str | None
    """None for what concerns the whole document."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """How two measurements stand to each other."""

    differences: tuple[Difference, ...]
    unknown: tuple[str, ...]
    """Conditions that one side does not state."""


def of_documents(base: Document, new: Document) -> Conditions:
    """Return the conditions of all that is in two documents."""
    return _compared(
        {
            "machine": (base.machine, new.machine),
            "board": (base.board, new.board),
            "preprocessing": (_short(base.preprocessing_sha256), _short(new.preprocessing_sha256)),
        },
        None,
    )


def of_records(base: Record, new: Record, latencies: Iterable[str]) -> Conditions:
    """Return the conditions of one artefact of which `latencies`, by name, are compared."""
    timed = set(latencies)
    checked = {
        **OF_ANSWERS,
        **(OF_LATENCY if timed else {}),
        **(OF_LOAD if timed - {"paced_inference_ms"} else {}),
        **(OF_FRAME_TO_LABEL if "frame_to_label_ms" in timed else {}),
        **(OF_PACED_LATENCY if "paced_inference_ms" in timed else {}),
    }
    values = {name: (words(base), words(new)) for name, words in checked.items()}
    found = _compared(values, new.artifact_label)
    flaws = _flaws(base, new) if timed else ()
    return Conditions(
        differences=(*found.differences, *flaws, *_other_images(base, new)), unknown=found.unknown
    )


def joined(parts: Iterable[Conditions]) -> Conditions:
    """Return the conditions of several parts as one."""
    found = list(parts)
    return Conditions(
        differences=tuple(difference for part in found for difference in part.differences),
        unknown=tuple(dict.fromkeys(name for part in found for name in part.unknown)),
    )


def in_words(differences: Iterable[Difference]) -> Iterator[str]:
    """Yield each difference, once for all artefacts that share it."""
    shared: dict[tuple[str, str, str], list[str]] = {}
    for found in differences:
        artifacts = shared.setdefault((found.condition, found.base, found.new), [])
        artifacts += [found.artifact] if found.artifact else []
    for (condition, base, new), artifacts in shared.items():
        whose = f" ({', '.join(dict.fromkeys(artifacts))})" if artifacts else ""
        yield f"{condition} {base} against {new}{whose}"


def _compared(
    values: Mapping[str, tuple[str | None, str | None]], artifact: str | None
) -> Conditions:
    differences = tuple(
        Difference(condition=condition, base=base, new=new, artifact=artifact)
        for condition, (base, new) in values.items()
        if base is not None and new is not None and base != new
    )
    unknown = tuple(
        condition for condition, (base, new) in values.items() if (base is None) != (new is None)
    )
    return Conditions(differences=differences, unknown=unknown)


def _flaws(base: Record, new: Record) -> Iterator[Difference]:
    for condition, (words, flaw) in FLAWS.items():
        before, after = words(base), words(new)
        if flaw in (before, after):
            yield Difference(
                condition=condition,
                base=before or "unknown",
                new=after or "unknown",
                artifact=new.artifact_label,
            )


def _other_images(base: Record, new: Record) -> Iterator[Difference]:
    before, after = ({p.image for p in record.predictions} for record in (base, new))
    if before and after and before != after:
        yield Difference(
            condition="images",
            base=str(len(before)),
            new=f"{len(after)}, {len(before & after)} of them the same",
            artifact=new.artifact_label,
        )


def _short(sha256: str | None) -> str | None:
    return sha256 and sha256[:12]
