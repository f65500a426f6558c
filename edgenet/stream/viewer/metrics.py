"""The run's status as Prometheus reads it. What is not known has no sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

QUANTILES = {"0.5": "p50_ms", "0.95": "p95_ms", "0.99": "p99_ms"}
OUTCOMES = ("delivered", "classified", "dropped", "repeated", "stale")


def render_metrics(
    status: Mapping[str, Any] | None, *, status_age_s: float, clients: int, accept: str
) -> tuple[bytes, str]:
    """Return the text and its content type, in the format that the `Accept` header asks for."""
    registry = CollectorRegistry()
    registry.register(_Once([*_of_viewer(status, status_age_s, clients), *_of_status(status)]))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Once(Collector):
    """Metrics of one scrape."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Sequence[Metric]:
        """Return them."""
        return self._metrics


def _of_viewer(
    status: Mapping[str, Any] | None, status_age_s: float, clients: int
) -> Iterator[Metric]:
    yield _gauge("edgenet_viewer_clients", "Browsers and others that look on.", clients)
    if status is not None:
        yield _gauge(
            "edgenet_status_age_seconds", "Since the run last said how it is doing.", status_age_s
        )


def _of_status(status: Mapping[str, Any] | None) -> Iterator[Metric]:
    if status is None:
        return
    names = ("artifact", "device", "source")
    yield InfoMetricFamily(
        "edgenet_run", "What answers, where, about what.", {name: status[name] for name in names}
    )
    tally = status["tally"]
    if tally is not None:
        frames = CounterMetricFamily(
            "edgenet_frames", "Frames since the run began.", labels=["outcome"]
        )
        for outcome in OUTCOMES:
            frames.add_metric([outcome], tally[outcome])
        yield frames
    yield from _latencies(status)
    yield _gauge(
        "edgenet_source_fault",
        "1 while the source stalls, is frozen or is away.",
        int(status["fault"] is not None),
    )
    for name, text, value in (
        ("edgenet_labels_per_second", "Over the sliding window.", status["labels_per_second"]),
        ("edgenet_temperature_celsius", "Of the processor.", status["temperature_c"]),
        ("edgenet_cpu_clock_hertz", "Of the fastest core.", _times(status["clock_mhz"], 1e6)),
        ("edgenet_throttled", "1 while the board is slowed down.", status["throttled"]),
    ):
        if value is not None:
            yield _gauge(name, text, value)
    if status["accuracy"] is not None:
        yield from _accuracy(status["accuracy"])
    if status["agreement"] is not None:
        yield from _agreement(status["agreement"])


def _latencies(status: Mapping[str, Any]) -> Iterator[Metric]:
    age = GaugeMetricFamily(
        "edgenet_frame_to_label_seconds",
        "Age of frames when their labels were known, over the sliding window.",
        labels=["quantile"],
    )
    _add_quantiles(age, [], status["frame_to_label"])
    stages = GaugeMetricFamily(
        "edgenet_stage_seconds",
        "What each stage takes, over the sliding window.",
        labels=["stage", "quantile"],
    )
    for stage in status["stages"]:
        _add_quantiles(stages, [stage["name"]], stage["latency"])
    yield from (metric for metric in (age, stages) if metric.samples)


def _add_quantiles(
    metric: GaugeMetricFamily, labels: list[str], latency: Mapping[str, Any] | None
) -> None:
    for quantile, name in QUANTILES.items():
        if latency is not None and latency[name] is not None:
            metric.add_metric([*labels, quantile], latency[name] / 1e3)


def _accuracy(accuracy: Mapping[str, Any]) -> Iterator[Metric]:
    shares = GaugeMetricFamily(
        "edgenet_live_accuracy_ratio",
        "Right answers on the labelled playlist; bounds are of the 95 % interval of top 1.",
        labels=["of"],
    )
    for label, name in (("top1", "top1"), ("top5", "top5"), ("low", "low"), ("high", "high")):
        if accuracy[name] is not None:
            shares.add_metric([label], accuracy[name])
    yield shares
    yield _gauge(
        "edgenet_live_accuracy_pictures", "Pictures of the playlist so far.", accuracy["pictures"]
    )


def _agreement(agreement: Mapping[str, Any]) -> Iterator[Metric]:
    shares = GaugeMetricFamily(
        "edgenet_agreement_ratio",
        "Frames with the label of the float reference, no accuracy; bounds are of 95 %.",
        labels=["of"],
    )
    for name in ("top1", "low", "high"):
        shares.add_metric([name], agreement[name])
    yield shares
    yield _gauge("edgenet_agreement_frames", "Frames that both have answered.", agreement["frames"])
    yield _gauge(
        "edgenet_drift_alarms",
        "In how many ways the stream is unlike the calibration set.",
        len(agreement["alarms"]),
    )


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=float(value))


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
