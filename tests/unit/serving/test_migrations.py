"""A store's tables are made and brought up to date by themselves where that is safe."""

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from store_kit import OpenStore, give_to_a_person, records_in

from xray_vqa.errors import ConfigError
from xray_vqa.serving.store import database
from xray_vqa.serving.store.audit import AuditStore
from xray_vqa.serving.store.keys import SigningKey
from xray_vqa.serving.store.tables import metadata

OLD_TABLE = """
CREATE TABLE {name} (sequence INTEGER PRIMARY KEY AUTOINCREMENT, audit_id VARCHAR(32) NOT NULL UNIQUE,
scan_id VARCHAR(64) NOT NULL, request_id VARCHAR(64) NOT NULL, fingerprint VARCHAR(64) NOT NULL,
received_at DATETIME NOT NULL, recorded_at DATETIME NOT NULL, model_version VARCHAR(255) NOT NULL,
prompt_version VARCHAR(32) NOT NULL, software_version VARCHAR(64) NOT NULL, device VARCHAR(64) NOT NULL, {more},
answer JSON NOT NULL)
"""
INSPECTION = "policy_version VARCHAR, risk_level VARCHAR, action VARCHAR, degraded BOOLEAN, scores JSON"
ORIGIN = "'a1', 'S', 'r', 'f', '2026-11-24 06:30:00.000000', '2026-11-24 06:30:01.000000', 'm', '2', '0.1.0', 'cpu'"


def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    return ScriptDirectory.from_config(config)


def test_the_migrations_are_one_line_without_branches():
    heads = scripts().get_heads()
    assert len(heads) == 1, f"set down_revision so that these follow each other: {heads}"


def test_a_new_database_gets_exactly_the_tables_that_the_code_uses(store: OpenStore):
    engine = database.connect(database.store_url(store.url))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_a_file_of_a_version_without_migrations_is_brought_into_the_chain(open_store, tmp_path):
    connection = sqlite3.connect(tmp_path / "a.sqlite3")
    connection.execute(OLD_TABLE.format(name="inspections", more=INSPECTION))
    connection.execute(OLD_TABLE.format(name="questions", more="question TEXT"))
    answer = """'p@1', 'high', 'manual_inspection', 0, '{"Gun": {}}', '{"action": "manual_inspection"}'"""
    connection.execute(f"INSERT INTO inspections VALUES (1, {ORIGIN}, {answer})")
    connection.execute(f"""INSERT INTO questions VALUES (1, {ORIGIN}, 'What?', '{{"answer": "A bag."}}')""")
    connection.commit()
    connection.close()
    store = open_store(f"sqlite:///{tmp_path}/a.sqlite3")
    kept = store.newest("S")
    assert kept.record.answer == {"action": "manual_inspection"}
    assert kept.record.first_recorded_at.isoformat() == "2026-11-24T06:30:01+00:00"
    rows = records_in(f"sqlite:///{tmp_path}/a.sqlite3")
    assert [row.kind for row in rows] == ["key", "result", "question", "opened"]
    assert rows[2].record()["question"] == "What?"


def test_a_database_of_a_newer_version_is_refused_and_left_alone(open_store, tmp_path):
    path = tmp_path / "a.sqlite3"
    open_store(f"sqlite:///{path}").close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    with pytest.raises(ConfigError, match="revision 9999, made by a newer xray-vqa"):
        AuditStore(f"sqlite:///{path}", give_to_a_person).open()
    assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]
    connection.close()


def test_an_older_postgresql_is_refused_until_it_is_upgraded_by_hand(postgres, tmp_path):
    url = postgres.emptied()
    key = SigningKey.load_or_make(tmp_path / "k")
    engine = database.connect(database.store_url(url))
    with engine.begin() as connection:
        connection.exec_driver_sql(
            OLD_TABLE.format(name="inspections", more=INSPECTION)
            .replace("INTEGER PRIMARY KEY AUTOINCREMENT", "SERIAL PRIMARY KEY")
            .replace("DATETIME", "TIMESTAMPTZ")
        )
        connection.exec_driver_sql(
            OLD_TABLE.format(name="questions", more="question TEXT")
            .replace("INTEGER PRIMARY KEY AUTOINCREMENT", "SERIAL PRIMARY KEY")
            .replace("DATETIME", "TIMESTAMPTZ")
        )
    with pytest.raises(ConfigError, match="run: xray-vqa audit upgrade"):
        database.prepare(engine, key)
    database.prepare(engine, key, upgrade=True)
    database.prepare(engine, key)
    engine.dispose()


def test_a_store_that_was_begun_with_another_key_is_refused(open_store, store: OpenStore, tmp_path):
    with pytest.raises(ConfigError, match="XRAY_VQA_AUDIT_KEY"):
        AuditStore(store.url, give_to_a_person, key_path=tmp_path / "other.key").open()


def test_the_key_is_for_its_owners_eyes_and_its_public_half_stands_beside(open_store, tmp_path):
    open_store(f"sqlite:///{tmp_path}/a.sqlite3", key_path=tmp_path / "k" / "audit.key")
    assert (tmp_path / "k" / "audit.key").stat().st_mode & 0o777 == 0o600
    assert b"PUBLIC KEY" in (tmp_path / "k" / "audit.key.pub").read_bytes()
