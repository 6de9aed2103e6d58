"""A store's tables are made and brought up to date by themselves where that is safe."""

import sqlite3

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from xray_vqa.errors import ConfigError
from xray_vqa.serving.store import database
from xray_vqa.serving.store.tables import metadata


def open_store(url: str):
    engine = database.connect(database.store_url(url))
    database.prepare(engine)
    return engine


def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(database.Path(database.__file__).parent / "migrations"))
    return ScriptDirectory.from_config(config)


def test_the_migrations_are_one_line_without_branches():
    heads = scripts().get_heads()
    assert len(heads) == 1, f"set down_revision so that these follow each other: {heads}"


def test_a_new_database_gets_exactly_the_tables_that_the_code_uses(tmp_path):
    engine = open_store(f"sqlite:///{tmp_path}/a.sqlite3")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_database_of_a_newer_version_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "a.sqlite3"
    open_store(f"sqlite:///{path}").dispose()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    with pytest.raises(ConfigError, match="revision 9999, made by a newer xray-vqa"):
        open_store(f"sqlite:///{path}")
    assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]
    connection.close()
