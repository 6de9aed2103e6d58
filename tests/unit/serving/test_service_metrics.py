"""What /metrics says after known requests."""

import threading

from service_kit import CLEAN, KNIFE_AND_SCISSORS, GatedEngine, make_request, metric, service_of, wait_until

from xray_vqa.inference.engines.scripted import ScriptedEngine, ScriptedReading


def post(client, scan_id: str) -> dict:
    response = client.post("/api/v1/inspect", json=make_request(scan_id=scan_id))
    assert response.status_code == 200
    return response.json()


def test_scores_are_counted_by_category_and_those_that_are_none_apart(open_client):
    client = open_client(ScriptedEngine([CLEAN, KNIFE_AND_SCISSORS, ScriptedReading(missing=("Gun",))]))
    for scan_id in "abc":
        post(client, scan_id)
    assert metric(client, 'xray_vqa_category_score_count{category="Knife"}') == 3
    assert metric(client, 'xray_vqa_category_score_bucket{category="Knife",le="0.02"}') == 2
    assert metric(client, 'xray_vqa_category_score_bucket{category="Knife",le="0.9"}') == 2
    assert metric(client, 'xray_vqa_category_score_bucket{category="Knife",le="0.95"}') == 3
    assert metric(client, 'xray_vqa_category_score_count{category="Gun"}') == 2
    assert metric(client, 'xray_vqa_unscored_total{category="Gun",state="missing"}') == 1


def test_a_degraded_answer_is_timed_apart_and_its_scores_are_no_drift(open_client):
    client = open_client(ScriptedEngine([ScriptedReading(error=RuntimeError("broken")), CLEAN]))
    post(client, "a")
    assert metric(client, 'xray_vqa_inspection_duration_seconds_count{degraded="true"}') == 1
    assert metric(client, 'xray_vqa_unscored_total{category="Gun",state="missing"}') == 0
    post(client, "b")
    assert metric(client, 'xray_vqa_inspection_duration_seconds_count{degraded="false"}') == 1


def test_the_line_says_how_long_scans_waited_and_how_many_went_together(open_client):
    engine = GatedEngine([CLEAN])
    client = open_client(engine, max_batch=4)
    threads = [threading.Thread(target=post, args=(client, f"S{number}")) for number in range(4)]
    threads[0].start()
    assert engine.entered.wait(10)
    for thread in threads[1:]:
        thread.start()
    wait_until(lambda: metric(client, "xray_vqa_queue_depth") == 3)
    engine.gate.set()
    for thread in threads:
        thread.join()
    assert metric(client, "xray_vqa_batch_size_count") == 2
    assert metric(client, "xray_vqa_batch_size_sum") == 4
    assert metric(client, "xray_vqa_queue_wait_seconds_count") == 4
    assert metric(client, "xray_vqa_queue_size") == 32


def test_exactly_one_state_of_the_engine_holds(open_client):
    client = open_client(ScriptedEngine([CLEAN], start_error=RuntimeError("no weights")), wait=False)
    wait_until(lambda: metric(client, 'xray_vqa_engine_state{state="failed"}') == 1)
    assert sum(metric(client, f'xray_vqa_engine_state{{state="{state}"}}')
               for state in ("loading", "ready", "failed", "stalled", "stopped")) == 1  # fmt: skip
    assert metric(client, "xray_vqa_ready") == 0


def test_the_store_says_how_long_records_take_what_waits_and_when_it_was_signed(open_client):
    client = open_client()
    text = client.get("/metrics").text
    assert "xray_vqa_audit_last_checkpoint_timestamp_seconds" not in text  # nothing is known yet
    before = metric(client, "xray_vqa_audit_write_duration_seconds_count")
    post(client, "a")
    assert metric(client, "xray_vqa_audit_write_duration_seconds_count") == before + 2  # the intent and the result
    assert metric(client, "xray_vqa_audit_transactions_total") >= 3
    service_of(client).store.housekeep(sign=True)
    assert metric(client, "xray_vqa_audit_last_checkpoint_timestamp_seconds") > 1.7e9
    assert metric(client, "xray_vqa_audit_anchored") == 1
    assert metric(client, "xray_vqa_audit_pending_records") == 0
    assert metric(client, "xray_vqa_audit_lag_seconds") == 0
    assert metric(client, "xray_vqa_audit_set_back") == 0
    assert 0 < metric(client, "xray_vqa_audit_disk_free_bytes") <= metric(client, "xray_vqa_audit_disk_size_bytes")


def test_a_record_that_the_store_cannot_take_makes_the_lag_grow(open_client):
    client = open_client()
    store = service_of(client).store
    held, let_go = threading.Event(), threading.Event()

    def hold(_):
        held.set()
        assert let_go.wait(10)

    store._submit(hold)
    assert held.wait(10)
    store._submit(lambda _: None)
    assert metric(client, "xray_vqa_audit_pending_records") == 1
    assert metric(client, "xray_vqa_audit_lag_seconds") > 0
    let_go.set()
    wait_until(lambda: metric(client, "xray_vqa_audit_lag_seconds") == 0)
