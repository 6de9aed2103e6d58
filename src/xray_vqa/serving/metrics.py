"""What Prometheus can read of this process. One registry for each app, so that two apps do not share counts."""

import sys
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from xray_vqa.core.inspection import Inspection
from xray_vqa.core.manifest import package_version
from xray_vqa.inference.engine import EngineInfo

_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0)
"""Of answers; 3.0 is the objective's limit (docs/SLO.md) and has to stay a border."""
_WAIT_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
_PROBABILITIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class Metrics:
    """The counters of one app. Labels are few and fixed: no scan, no address and no text of a caller."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        registry.register(_GpuMemory())
        route = ("method", "route", "status")
        self._requests = Counter("api_requests_total", "Requests by route template", route, registry=registry)
        self._request_seconds = Histogram(
            "api_request_duration_seconds", "Time to the end of the answer", route, buckets=_SECONDS, registry=registry
        )
        self.in_flight = Gauge("xray_vqa_requests_in_flight", "Requests being answered", registry=registry)
        self.inference_seconds = Histogram(
            "model_inference_duration_seconds", "One call of the engine", buckets=_SECONDS, registry=registry
        )
        self._queue_wait = Histogram(
            "xray_vqa_queue_wait_seconds", "From the line's end to the engine", buckets=_WAIT_SECONDS, registry=registry
        )
        self._batch_size = Histogram(
            "xray_vqa_batch_size", "Scans in one call of the engine", buckets=_BATCH_SIZES, registry=registry
        )
        self._inspection_seconds = Histogram(
            "xray_vqa_inspection_duration_seconds", "From a request's last byte to its answer on record",
            ("degraded",), buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        for degraded in ("true", "false"):  # both are there from the start, so that shares can be made of them
            self._inspection_seconds.labels(degraded)
        self._scores = Histogram(
            "xray_vqa_category_score", "Probabilities that the model gave", ("category",), buckets=_PROBABILITIES,
            registry=registry,
        )  # fmt: skip
        self._unscored = Counter(
            "xray_vqa_unscored_total", "Scores that are no number", ("category", "state"), registry=registry
        )
        self._inspections = Counter(
            "xray_vqa_inspections_total", "Inspections given", ("action", "risk_level"), registry=registry
        )
        self._degraded = Counter(
            "xray_vqa_degraded_total", "Inspections that were not fully assessed", ("reason",), registry=registry
        )
        self._findings = Counter("xray_vqa_findings_total", "Items found", ("category",), registry=registry)
        self.late_results = Counter(
            "xray_vqa_late_results_total", "Results that came after their scan was answered", registry=registry
        )
        self.expired = Counter(
            "xray_vqa_expired_total", "Scans that were answered before the engine came to them", registry=registry
        )
        self.audit_failures = Counter(
            "xray_vqa_audit_write_failures_total", "Answers withheld: they could not be recorded", registry=registry
        )
        self.refused = Counter(
            "xray_vqa_access_refused_total", "Requests that the gate let reach no handler", ("code",), registry=registry
        )
        self.replayed = Counter(
            "xray_vqa_replayed_total", "Answers given again to a scan that was sent before", registry=registry
        )
        self.images_lost = Counter("xray_vqa_images_lost_total", "Images that could not be kept", registry=registry)
        self._model = Gauge(
            "xray_vqa_model_info",
            "1 for the model that runs",
            ("model_version", "policy_version", "device", "calibrated"),
            registry=registry,
        )
        Gauge("xray_vqa_build_info", "1 for the version that runs", ("version",), registry=registry).labels(
            package_version()
        ).set(1)

    def watch(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Add a gauge that is read when Prometheus asks."""
        Gauge(name, documentation, registry=self.registry).set_function(read)

    def watch_state(self, name: str, documentation: str, states: Iterable[str], read: Callable[[], str]) -> None:
        """Add a gauge with a line for each state, 1 for the present one, read when Prometheus asks."""
        gauge = Gauge(name, documentation, ("state",), registry=self.registry)
        for state in states:
            gauge.labels(state).set_function(lambda state=state: read() == state)

    def count_batch(self, waits_s: Sequence[float]) -> None:
        """Count what the engine gets in one call: how long each scan of it has waited."""
        self._batch_size.observe(len(waits_s))
        for wait_s in waits_s:
            self._queue_wait.observe(wait_s)

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request under its route template, `unmatched` for addresses that we do not have."""
        labels = (method if method in _METHODS else "other", route, str(status))
        self._requests.labels(*labels).inc()
        self._request_seconds.labels(*labels).observe(seconds)

    def count_inspection(self, inspection: Inspection, seconds: float) -> None:
        """Count an inspection that was recorded and is given out, so long after its request was there."""
        decision = inspection.decision
        self._inspection_seconds.labels(str(decision.degraded).lower()).observe(seconds)
        if not inspection.engine_faults:
            self._count_scores(inspection)
        self._inspections.labels(decision.action.value, decision.risk_level.value).inc()
        for fault in inspection.engine_faults:
            self._degraded.labels(fault).inc()
        for finding in inspection.findings:
            self._findings.labels(finding.category).inc()

    def _count_scores(self, inspection: Inspection) -> None:
        for category, score in inspection.scores.items():
            if score.probability is not None:
                self._scores.labels(category).observe(score.probability)
            else:
                self._unscored.labels(category, score.state.value).inc()

    def show_model(self, info: EngineInfo, policy_version: str) -> None:
        """Name the model that runs."""
        labels = (info.model_version, policy_version, info.device, str(info.is_calibrated).lower())
        self._model.labels(*labels).set(1)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _GpuMemory(Collector):
    """`gpu_memory_usage_bytes` by device, where torch runs on CUDA in this process; torch is never loaded for it."""

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        torch = sys.modules.get("torch")
        if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
            return
        family = GaugeMetricFamily("gpu_memory_usage_bytes", "Memory in use on a device", labels=("device",))
        for device in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(device)
            family.add_metric((str(device),), total - free)
        yield family
