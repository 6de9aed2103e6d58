"""How fast the audit store is: verifying a million rows, and what intent and result add to an inspection.

    python benchmarks/audit.py --rows 1000000 --output benchmarks/results/audit.json
    python benchmarks/audit.py --rows 0 --database-url postgresql://audit@127.0.0.1/audit

The rows are like those of an inspection: an intent and a result with 20 scores. They are made through the chain's own
code and put in as one load; the waits are those of one caller at a time and of 50 at once, through the store itself.
`fdatasync_ms` is what the disk alone takes for 4 KiB.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from measuring import calibration_loop_ms, conditions, publish
from sqlalchemy import insert

from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.serving.store.audit import AuditStore, read_head
from xray_vqa.serving.store.chain import FoundBy, Head, Row, head_of, next_row
from xray_vqa.serving.store.database import connect, prepare, store_url
from xray_vqa.serving.store.keys import SigningKey
from xray_vqa.serving.store.reading import erased_rows, reading, rows_of
from xray_vqa.serving.store.records import InspectionRecord, Intent, Origin
from xray_vqa.serving.store.tables import records
from xray_vqa.serving.store.verify import verify

PART = 5000
CALLS = 300
CALLERS = 50


def origin(scan_id: str) -> Origin:
    return Origin(
        audit_id=uuid.uuid4().hex, scan_id=scan_id, request_id=uuid.uuid4().hex, fingerprint="f" * 64,
        image_hash="a" * 64, received_at=datetime.now(UTC), model_version="nano@5f2c0a9d1b7e", prompt_version="2",
        software_version="0.1.0", device="cpu",
    )  # fmt: skip


def intent_of(scan_id: str, owner: str) -> Intent:
    return Intent(
        origin=origin(scan_id), policy_version="general@2026.11", declared_items=("clothing", "electronics"),
        deadline=datetime.now(UTC) + timedelta(minutes=1), owner=owner,
    )  # fmt: skip


def result_of(intent: Intent) -> InspectionRecord:
    answer = {
        "scan_id": intent.origin.scan_id, "detected_items": ["knife"], "risk_level": "high",
        "action": "manual_inspection", "reasoning": "One prohibited sharp item detected: knife (center-left). " * 3,
        "findings": [{"category": "Knife", "probability": 0.93, "region": "center-left", "box": [1.0, 2.0, 3.0, 4.0]}],
        "screened_for": list(CATEGORIES), "reasons": ["no_findings"], "degraded": False,
    }  # fmt: skip
    scores = {name: {"state": "value", "probability": 0.0123456789} for name in CATEGORIES}
    return InspectionRecord(
        origin=intent.origin, policy_version=intent.policy_version, risk_level="high", action="manual_inspection",
        degraded=False, answer=answer, scores=scores,
    )  # fmt: skip


def chain_of(head: Head, key: SigningKey, count: int) -> Iterator[Row]:
    """The next rows of a chain: intent, result, intent, result, and a checkpoint at every thousandth."""
    intent = intent_of("S", "benchmark")
    records_of = {"intent": intent.model_dump(mode="json"), "result": result_of(intent).model_dump(mode="json")}
    for number in range(count):
        if number % 1000 == 999:
            row = next_row(head, key.seal, "checkpoint", None, key.sign(head).model_dump(mode="json"))
        else:
            kind, audit_id, scan_id = ("intent", "result")[number % 2], f"{number // 2:032x}", f"S{number // 2}"
            record = records_of[kind]
            record = {**record, "origin": {**record["origin"], "audit_id": audit_id, "scan_id": scan_id}}
            found_by = FoundBy(scan_id, intent.origin.principal, intent.origin.lane, intent.origin.image_hash)
            row = next_row(head, key.seal, kind, audit_id, record, found_by)
        head = head_of(row)
        yield row


def measure_verify(url: str, key: SigningKey, count: int) -> dict[str, object]:
    engine = connect(store_url(url))
    prepare(engine, key)
    with engine.connect() as connection:
        rows = chain_of(read_head(connection), key, count)
    started = time.perf_counter()
    while part := [row._asdict() for _, row in zip(range(PART), rows, strict=False)]:
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            connection.execute(insert(records), part)
    made_s = time.perf_counter() - started
    engine.dispose()
    before_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started, cpu = time.perf_counter(), time.process_time()
    with reading(url) as connection:
        found = verify(rows_of(connection), key, erased=erased_rows(connection))
    return {
        "rows": found.rows, "faults": found.num_faults, "checkpoints": found.checkpoints,
        "verify_s": round(time.perf_counter() - started, 1), "verify_cpu_s": round(time.process_time() - cpu, 1),
        "memory_growth_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before_mib, 1),
        "made_s": round(made_s, 1),
    }  # fmt: skip


def measure_waits(url: str, folder: Path) -> dict[str, object]:
    """What intent and result add to an inspection."""
    store = AuditStore(url, result_of, key_path=folder / "key", anchors=str(folder / "anchors.jsonl"))
    store.check().result()

    def once(number: int) -> float:
        intent = intent_of(f"W{uuid.uuid4().hex[:12]}-{number}", store.owner)
        started = time.perf_counter()
        store.claim(intent).result()
        store.conclude(result_of(intent)).result()
        return (time.perf_counter() - started) * 1000

    alone = [once(number) for number in range(CALLS)]
    started = time.perf_counter()
    with ThreadPoolExecutor(CALLERS) as pool:
        together = list(pool.map(once, range(CALLS * 4)))
    rate = CALLS * 4 / (time.perf_counter() - started)
    store.close()
    return {
        "one_at_a_time_ms": quantiles(alone),
        f"{CALLERS}_at_once_ms": quantiles(together),
        f"inspections_per_s_at_{CALLERS}": round(rate, 1),
    }


def quantiles(values: list[float]) -> dict[str, float]:
    ranked = statistics.quantiles(values, n=100)
    return {"p50": round(ranked[49], 2), "p95": round(ranked[94], 2), "p99": round(ranked[98], 2)}


def fdatasync_ms(folder: Path) -> dict[str, float]:
    waits = []
    with (folder / "probe").open("wb", buffering=0) as stream:
        for _ in range(CALLS):
            started = time.perf_counter()
            stream.write(bytes(4096))
            os.fdatasync(stream.fileno())
            waits.append((time.perf_counter() - started) * 1000)
    return quantiles(waits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="to verify (default %(default)s); 0 leaves it out")
    parser.add_argument("--database-url", help="an empty store (default: SQLite in a temporary folder)")
    parser.add_argument("--output", type=Path, help="a JSON file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="audit-") as name:
        folder = Path(name)
        url = args.database_url or f"sqlite:///{folder}/audit.sqlite3"
        key = SigningKey.load_or_make(folder / "key")
        figures = {
            "conditions": conditions("sqlalchemy", database=store_url(url).get_backend_name()),
            "calibration_loop_ms": calibration_loop_ms(),
            "load_average": os.getloadavg()[0],
            "fdatasync_ms": fdatasync_ms(folder),
            "intent_and_result": measure_waits(url, folder),
        }
        if args.rows:
            figures["verification"] = measure_verify(url, key, args.rows)
    publish(figures, args.output)


if __name__ == "__main__":
    main()
