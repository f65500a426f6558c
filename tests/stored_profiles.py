"""Profile documents as `edgenet profile` writes them, made by hand: no clock is in them."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.measure.accuracy import Proportion
from edgenet.measure.statistics import summarise
from edgenet.report.fields import summary_fields

IMAGES = 57
CLASSES = 10


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def samples_ns(center_ms: float, *, n: int = 1200, seed: int = 0) -> np.ndarray:
    """Latencies with a long tail and neighbours that resemble each other."""
    rng = np.random.default_rng(seed)
    drift = np.repeat(rng.normal(0, 0.01, size=n // 40 + 1), 40)[:n]
    tail = rng.exponential(0.02, size=n)
    return (center_ms * 1e6 * np.exp(drift + tail)).astype(np.int64)


def proportion(right: int, n: int) -> dict[str, Any]:
    found = Proportion(right=right, n=n)
    return {"percent": found.percent, "right": right, "interval": list(found.interval)}


def predictions(wrong: Sequence[int] = (), n: int = IMAGES) -> list[dict[str, Any]]:
    """One prediction an image; that of each image in `wrong` is a class beside the right one."""
    return [
        {
            "image_sha256": sha256(f"image {index}"),
            "label": [index % CLASSES],
            "top5": [(index + step + (index in wrong)) % CLASSES for step in range(5)],
        }
        for index in range(n)
    ]


def profile_record(
    *,
    runtime: str = "onnxruntime",
    precision: str = "int8",
    threads: int = 1,
    launches_ms: Sequence[float] = (5.0,),
    wrong: Sequence[int] = (),
    **changes: Any,
) -> dict[str, Any]:
    """One record; `launches_ms` is about the median of each launch."""
    taken = [
        {
            "inference": samples_ns(ms, seed=index),
            "paced_inference": samples_ns(1.2 * ms, n=300, seed=100 + index),
        }
        for index, ms in enumerate(launches_ms)
    ]
    pooled = {name: np.concatenate([launch[name] for launch in taken]) for name in taken[0]}
    answers = predictions(wrong)
    record = {
        "schema_version": "1.1",
        "command": ["edgenet", "profile", "bundle"],
        "created": "2026-01-02T03:04:05+00:00",
        "bundle_sha256": sha256("bundle"),
        "artifact": {
            "runtime": runtime,
            "precision": precision,
            "variant": None,
            "sha256": sha256(f"{runtime} {precision}"),
        },
        "size_bytes": 4_300_000,
        "device": "CPU",
        "runtime_version": "1.20.1",
        "threads": threads,
        "quick": False,
        "complete": True,
        "affinity": [0, 1, 2, 3],
        "warmup": {"runs": 230, "seconds": 1.2, "stable": True},
        "latency": {
            "load_ms": summary_fields(summarise([41_000_000])),
            "first_inference_ms": summary_fields(summarise([9_000_000])),
            **latency_fields(pooled),
        },
        "samples_ns": {
            "load": [41_000_000],
            "first_inference": [9_000_000],
            **{name: samples.tolist() for name, samples in pooled.items()},
        },
        "launches": [{"latency": latency_fields(launch)} for launch in taken],
        "memory": {"peak_rss_bytes": 91_000_000, "before_load_bytes": 34_000_000},
        "accuracy": {
            "top1": proportion(IMAGES - len(wrong), IMAGES),
            "top5": proportion(IMAGES, IMAGES),
            "n": IMAGES,
        },
        "agreement": {
            "with": {"runtime": "onnxruntime", "precision": "float32", "sha256": sha256("float")},
            "top1": proportion(IMAGES - 1, IMAGES),
            "n": IMAGES,
            "sqnr_db": 27.5,
            "max_difference": 0.9,
            "rms_difference": 0.1,
        },
        "predictions": answers,
        "state": {
            "before": {"governor": "performance", "power_mode": None},
            "during": [],
            "after": {"governor": "performance", "power_mode": None},
        },
        "throttled": False,
        "energy_mj": None,
        "energy_mj_reason": "the board does not tell its power",
        "paced": {"fps": 30.0, "missed": 0, "saturated": False, "reachable_fps": 160.0},
        "soak": None,
        "layers": None,
        "layers_reason": "not asked for",
    }
    return {**record, **changes}


def latency_fields(samples: dict[str, np.ndarray]) -> dict[str, Any]:
    return {f"{name}_ms": summary_fields(summarise(taken)) for name, taken in samples.items()}


def profile_document(*records: dict[str, Any], **changes: Any) -> dict[str, Any]:
    document = {
        "schema_version": "1.1",
        "kind": "profile",
        "command": ["edgenet", "profile", "bundle"],
        "created": "2026-01-02T03:04:05+00:00",
        "bundle_sha256": sha256("bundle"),
        "preprocessing_sha256": sha256("preprocessing"),
        "machine": "aarch64",
        "board": {"target": "raspberry_pi", "model": "Raspberry Pi 5 Model B Rev 1.0"},
        "records": list(records) or [profile_record()],
    }
    return {**document, **changes}


def write_document(path: Path, document: dict[str, Any]) -> Path:
    path.write_text(json.dumps(document))
    return path
