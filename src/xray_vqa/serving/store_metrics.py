"""What Prometheus can read of the audit store: how long a record takes, what waits, what is signed and where."""

import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from xray_vqa.serving.metrics import Metrics
from xray_vqa.serving.store.audit import AuditStore

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


def watch_store(metrics: Metrics, store: AuditStore) -> None:
    """Add a store's metrics to those of the app that writes it."""
    registry = metrics.registry
    seconds = Histogram(
        "xray_vqa_audit_write_duration_seconds", "From a record to its being on disk", buckets=_SECONDS,
        registry=registry,
    )  # fmt: skip
    transactions = Counter(
        "xray_vqa_audit_transactions_total", "Transactions that records were written in", registry=registry
    )

    def count(durations_s: Sequence[float]) -> None:
        transactions.inc()
        for duration_s in durations_s:
            seconds.observe(duration_s)

    store.on_written = count
    metrics.watch("xray_vqa_audit_pending_records", "Records that wait to be written", lambda: store.num_waiting)
    metrics.watch("xray_vqa_audit_lag_seconds", "Wait of the oldest record that is not on disk", lambda: store.lag_s)
    metrics.watch(
        "xray_vqa_audit_anchored", "1 when the newest checkpoint is kept elsewhere too", lambda: store.is_anchored
    )
    metrics.watch(
        "xray_vqa_audit_set_back", "1 when an anchor names a row that the store lacks", lambda: store.was_set_back
    )
    registry.register(_LastCheckpoint(store))
    if store.path:
        registry.register(_Disk(store.path))


class _LastCheckpoint(Collector):
    """Has no line before the first checkpoint: a 0 would be one of 1970."""

    def __init__(self, store: AuditStore) -> None:
        self._store = store

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        if self._store.signed_at is not None:
            name = "xray_vqa_audit_last_checkpoint_timestamp_seconds"
            yield GaugeMetricFamily(name, "When the whole chain was last known to be signed", self._store.signed_at)


class _Disk(Collector):
    """The disk that an SQLite store is on; no lines where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self._folder = path.parent

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        with suppress(OSError):
            usage = shutil.disk_usage(self._folder)
            yield GaugeMetricFamily("xray_vqa_audit_disk_free_bytes", "Room on the store's disk", usage.free)
            yield GaugeMetricFamily("xray_vqa_audit_disk_size_bytes", "Size of the store's disk", usage.total)
