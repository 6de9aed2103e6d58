"""Whoever tampers with the audit store is found out, and the first bad row is named."""

import json
import shutil
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, insert, update
from store_kit import OpenStore, records_in

from xray_vqa.cli.main import main
from xray_vqa.serving.store import chain
from xray_vqa.serving.store.chain import EMPTY, Row, canonical, hash_of_header, head_of, next_row, sha256_text
from xray_vqa.serving.store.database import connect, store_url
from xray_vqa.serving.store.keys import SigningKey
from xray_vqa.serving.store.tables import records
from xray_vqa.serving.store.verify import Erased, verify

C = records.c


@pytest.fixture
def filled(store: OpenStore) -> OpenStore:
    """Rows 1 and 2 begin it, 3 to 8 are three inspections, 9 is a checkpoint; 10 to 16 the same again; then closed."""
    for part in (0, 1):
        for number in range(3):
            store.answer(f"S{part}{number}")
        store.audit.housekeep(sign=True)
    store.audit.close()
    return store


def audit(store: OpenStore, tmp_path, command: str, *words: str) -> int:
    places = ["--database-url", store.url, "--audit-key", f"{tmp_path}/audit.key"]
    if command == "verify":
        places += ["--audit-anchors", f"{tmp_path}/anchors.jsonl"]
    return main(["audit", command, *places, *words])


def tamper(url: str, *statements) -> None:
    engine = connect(store_url(url))
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(statement)
    engine.dispose()


def rewritten(rows: list[Row], changed: int) -> list[Row]:
    """Rows from one on with hashes made anew, as somebody would who knows the code and not the key."""
    head, made = head_of(rows[changed - 2]), rows[: changed - 1]
    for row in rows[changed - 1 :]:
        body = row.body.replace("manual_inspection", "clear") if row.sequence == changed else row.body
        body_hash = sha256_text(body)
        row_hash = hash_of_header(head.sequence + 1, row.kind, row.audit_id, row.recorded_at, body_hash, head.row_hash)
        made.append(row._replace(sequence=head.sequence + 1, body=body, body_hash=body_hash,
                                 previous_hash=head.row_hash, row_hash=row_hash))  # fmt: skip
        head = head_of(made[-1])
    return made


def put_in(url: str, rows: list[Row]) -> None:
    tamper(url, delete(records), *(insert(records).values(row._asdict()) for row in rows))


def edit(url: str) -> None:
    row = records_in(url)[3]
    tamper(url, update(records).where(C.sequence == 4).values(body=row.body.replace("manual_inspection", "clear")))


def edit_what_it_is_found_by(url: str) -> None:
    tamper(url, update(records).where(C.sequence == 4).values(scan_id="OTHER"))


def edit_the_time(url: str) -> None:
    tamper(url, update(records).where(C.sequence == 4).values(recorded_at="2020-01-01T00:00:00.000000+00:00"))


def take_out(url: str) -> None:
    tamper(url, delete(records).where(C.sequence == 4))


def take_out_and_close_the_gap(url: str) -> None:
    rows = records_in(url)
    put_in(url, rewritten(rows[:3] + rows[4:], 4))


def put_one_in(url: str) -> None:
    rows = records_in(url)
    put_in(url, rewritten([*rows[:3], rows[5]._replace(audit_id="forged"), *rows[3:]], 4))


def swap(url: str) -> None:
    rows = records_in(url)
    rows[3], rows[4] = rows[4]._replace(sequence=4), rows[3]._replace(sequence=5)
    put_in(url, rows)


def rewrite_with_new_hashes(url: str) -> None:
    put_in(url, rewritten(records_in(url), 4))


def erase_in_silence(url: str) -> None:
    gone = dict.fromkeys(("body", "scan_id", "principal", "lane", "image_hash"))
    tamper(url, update(records).where(C.sequence == 4).values(**gone))


@pytest.mark.parametrize(
    ("change", "first"),
    [
        (edit, 4),
        (edit_what_it_is_found_by, 4),
        (edit_the_time, 4),
        (take_out, 4),
        (take_out_and_close_the_gap, 4),
        (put_one_in, 4),
        (swap, 4),
        (rewrite_with_new_hashes, 4),
        (erase_in_silence, 4),
        (lambda url: tamper(url, delete(records).where(C.sequence == 9)), 9),
        (lambda url: tamper(url, delete(records).where(C.sequence >= 12)), 12),
        (lambda url: tamper(url, delete(records).where(C.sequence == 16)), 16),
    ],
    ids=["edit", "file elsewhere", "time", "delete", "delete and close the gap", "insert", "reorder", "rewrite",
         "erase without a tombstone", "checkpoint removed", "truncate", "last checkpoint removed"],
)  # fmt: skip
def test_tampering_is_found_and_the_first_bad_row_named(filled: OpenStore, tmp_path, capsys, change, first):
    assert audit(filled, tmp_path, "verify") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 16
    change(filled.url)
    assert audit(filled, tmp_path, "verify") == 5
    told = capsys.readouterr()
    assert json.loads(told.out)["first_faults"][0]["row"] == first
    assert f"row {first} " in told.err


def test_a_stale_backup_is_found_also_when_the_service_went_on_with_it(open_store, tmp_path, capsys):
    path = tmp_path / "audit.sqlite3"
    store = OpenStore(f"sqlite:///{path}", open_store(f"sqlite:///{path}"))
    store.answer("S0")
    store.audit.close()
    shutil.copy(path, tmp_path / "backup")
    later = OpenStore(store.url, open_store(store.url))
    later.answer("S1")
    later.audit.close()
    for leftover in tmp_path.glob("audit.sqlite3-*"):
        leftover.unlink()
    shutil.copy(tmp_path / "backup", path)
    assert audit(store, tmp_path, "verify") == 5
    assert json.loads(capsys.readouterr().out)["first_faults"][0]["row"] == 6
    again = OpenStore(store.url, open_store(store.url))
    opened = records_in(store.url)[5]
    assert (opened.kind, opened.record()["set_back"]) == ("opened", True)
    again.answer("S2")
    again.audit.close()
    assert audit(store, tmp_path, "verify") == 5
    assert json.loads(capsys.readouterr().out)["first_faults"][0]["row"] == 5


def test_with_the_public_key_alone_a_rewritten_chain_is_found_between_two_checkpoints(filled, tmp_path, capsys):
    rewrite_with_new_hashes(filled.url)
    assert audit(filled, tmp_path, "verify", "--public-key", f"{tmp_path}/audit.key.pub") == 5
    assert json.loads(capsys.readouterr().out)["first_faults"][0] == {
        "row": 1, "fault": "or one behind it, up to 8, is not as it was when a checkpoint was kept elsewhere",
    }  # fmt: skip


def test_another_key_verifies_nothing(filled: OpenStore, tmp_path):
    SigningKey.load_or_make(tmp_path / "other.key")
    assert audit(filled, tmp_path, "verify", "--public-key", f"{tmp_path}/other.key.pub") == 5


def test_records_past_their_time_are_erased_and_the_chain_still_verifies(filled, tmp_path, capsys, monkeypatch):
    old = (datetime.now(UTC) - timedelta(days=400)).isoformat(timespec="microseconds")
    key = SigningKey.load(tmp_path / "audit.key")
    with monkeypatch.context() as patch:  # a chain whose first inspections are old
        patch.setattr(chain, "now", lambda: old)
        rows, head = [], EMPTY
        for row in records_in(filled.url)[:6]:
            found_by = chain.FoundBy(row.scan_id, row.principal, row.lane, row.image_hash)
            rows.append(next_row(head, key.seal, row.kind, row.audit_id, row.record(), found_by))
            head = head_of(rows[-1])
    put_in(filled.url, rows)
    (tmp_path / "anchors.jsonl").unlink()
    assert audit(filled, tmp_path, "retain") == 0
    assert json.loads(capsys.readouterr().out) == {"records": 5, "images": 0}
    after = records_in(filled.url)
    assert [row.body is None for row in after] == [False, *[True] * 5, False]
    assert {(row.scan_id, row.principal) for row in after[1:6]} == {(None, None)}
    assert after[6].record()["rows"] == [[2, 6]]
    assert audit(filled, tmp_path, "verify") == 0
    assert json.loads(capsys.readouterr().out)["erased"] == 5
    assert audit(filled, tmp_path, "retain") == 0
    if filled.url.startswith("sqlite"):
        assert b'"S00"' not in (tmp_path / "audit.sqlite3").read_bytes()


def test_records_are_kept_for_183_days_at_least(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XRAY_VQA_RETENTION_DAYS", "90")
    assert main(["audit", "retain", "--database-url", f"sqlite:///{tmp_path}/a.sqlite3"]) == 2
    assert "XRAY_VQA_RETENTION_DAYS" in capsys.readouterr().err


def test_an_export_is_verified_without_the_database(filled: OpenStore, tmp_path, capsys):
    output = tmp_path / "export.jsonl"
    assert audit(filled, tmp_path, "export", "--output", str(output)) == 0
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert (len(lines), lines[3]["body"]["record"]["action"]) == (16, "manual_inspection")
    words = ["audit", "verify", "--file", str(output), "--public-key", f"{tmp_path}/audit.key.pub"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["signed_up_to"] == 15
    output.write_text(output.read_text().replace("manual_inspection", "clear", 1))
    assert main(words) == 5
    assert "not the file that its manifest was written for" in capsys.readouterr().err


def test_a_part_of_the_chain_is_exported_by_time_and_verified_from_there(filled: OpenStore, tmp_path, capsys):
    output = tmp_path / "export.jsonl"
    since = records_in(filled.url)[9].recorded_at
    assert audit(filled, tmp_path, "export", "--output", str(output), "--since", since) == 0
    assert json.loads(output.read_text().splitlines()[0])["sequence"] == 10
    assert main(["audit", "verify", "--file", str(output), "--public-key", f"{tmp_path}/audit.key.pub"]) == 0


def test_a_line_of_the_anchors_that_was_cut_off_is_passed_over_and_a_changed_one_is_not(filled, tmp_path, capsys):
    anchors = tmp_path / "anchors.jsonl"
    whole = anchors.read_bytes()
    anchors.write_bytes(whole + whole[:40])
    assert audit(filled, tmp_path, "verify") == 0
    anchors.write_bytes(whole.replace(b'"sequence":8', b'"sequence":7'))
    assert audit(filled, tmp_path, "verify") == 5
    assert "row 7 has a checkpoint elsewhere that is not signed" in capsys.readouterr().err


def test_checkpoints_can_be_kept_in_an_object_store(open_store, tmp_path):
    import fsspec

    url = f"sqlite:///{tmp_path}/a.sqlite3"
    store = OpenStore(url, open_store(url, anchors="memory://anchors"))
    store.answer("S")
    store.audit.close()
    assert [anchor.sequence for anchor in store.audit.anchors.read()] == [4]
    fsspec.filesystem("memory").rm("anchors", recursive=True)


def test_a_missing_store_or_key_is_named(tmp_path, capsys):
    url = f"sqlite:///{tmp_path}/none.sqlite3"
    assert main(["audit", "verify", "--database-url", url]) == 2
    SigningKey.load_or_make(tmp_path / "none.sqlite3.key")
    assert main(["audit", "verify", "--database-url", url]) == 1
    assert "no such audit store" in capsys.readouterr().err


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(value=JSON)
def test_canonical_json_has_one_form_however_often_it_is_read(value):
    text = canonical(value)
    assert canonical(json.loads(text)) == text


@given(bodies=st.lists(st.dictionaries(st.text(), JSON, max_size=3), min_size=1, max_size=6), data=st.data())
def test_any_change_of_any_field_of_any_row_is_found(bodies, data):
    key = KEY
    rows, head = [], EMPTY
    for body in bodies:
        rows.append(next_row(head, key.seal, "question", None, body, chain.FoundBy("S", "open", "default")))
        head = head_of(rows[-1])
    assert verify(rows, key).num_faults == 0
    index = data.draw(st.integers(0, len(rows) - 1))
    field = data.draw(st.sampled_from([name for name in Row._fields if name != "image_hash"]))
    old = getattr(rows[index], field)
    rows[index] = rows[index]._replace(**{field: old + 1 if isinstance(old, int) else old + " "})
    found = verify(rows, key)
    assert found.faults
    assert found.faults[0].sequence >= index + 1


def test_ranges_of_erased_rows_are_found_by_number():
    erased = Erased([(5, 9), (2, 2)])
    assert [number for number in range(12) if number in erased] == [2, 5, 6, 7, 8, 9]


@pytest.fixture(scope="module", autouse=True)
def _key(tmp_path_factory):
    global KEY
    KEY = SigningKey.load_or_make(tmp_path_factory.mktemp("keys") / "key")
