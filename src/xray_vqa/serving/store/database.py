"""Opens the store's database, SQLite or PostgreSQL: durable by proof, one writer at a time, its tables up to date.

The tables are Alembic's to make and to change (`migrations/`). A new database gets them when it is opened. An older
SQLite file is brought up to date too, in one transaction; an older PostgreSQL may have replicas of the old version at
work and is refused until somebody runs `xray-vqa audit upgrade`.
"""

import importlib.util
import logging
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from xray_vqa.errors import ConfigError
from xray_vqa.serving.store.keys import SigningKey

logger = logging.getLogger(__name__)

BUSY_TIMEOUT_MS = 3000
"""How long a writer waits for another one, and for a server that does not answer."""

_BEFORE_ALEMBIC = "0001"
"""What a database holds whose tables were made by a version of this package that had no migrations."""

_LOCK_KEY = 0x787261797671  # "xrayvq": any number that nothing else in the database locks


def store_url(text: str) -> URL:
    """Return the address of a store. Raises ConfigError where it names no durable database that we know."""
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise ConfigError(
            "the database URL cannot be read; write for instance sqlite:///audit.sqlite3 or "
            "postgresql://user@host/database"
        ) from error
    backend = url.get_backend_name()
    if backend == "postgresql":
        if importlib.util.find_spec("psycopg") is None:
            raise ConfigError("PostgreSQL needs the package 'psycopg'; install it with: pip install -e '.[postgres]'")
        return url.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise ConfigError(f"the audit store is SQLite or PostgreSQL, not {backend}")
    if not url.database or url.database == ":memory:":
        raise ConfigError("an audit store in memory is lost with the process; name a file: sqlite:///audit.sqlite3")
    return url


def sqlite_path(url: URL) -> Path | None:
    """Return the file of an SQLite store, None for a server's."""
    if url.get_backend_name() != "sqlite" or not url.database:
        return None
    return Path(url.database.removeprefix("file:").partition("?")[0])


def connect(url: URL) -> Engine:
    """Return an engine whose connections prove to be durable. Connects with its first use, and makes no tables."""
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000})
        event.listen(engine, "connect", _make_sqlite_durable)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    seconds = max(1, BUSY_TIMEOUT_MS // 1000)
    keep = {"keepalives_idle": seconds, "keepalives_interval": 1, "keepalives_count": 3}
    options = f"-c statement_timeout={BUSY_TIMEOUT_MS} -c lock_timeout={BUSY_TIMEOUT_MS} -c timezone=UTC"
    engine = create_engine(
        url,
        connect_args={"connect_timeout": seconds, "tcp_user_timeout": BUSY_TIMEOUT_MS, "options": options, **keep},
    )
    event.listen(engine, "connect", _make_postgres_durable)
    return engine


@contextmanager
def writing(engine: Engine) -> Generator[Connection]:
    """Open a transaction that no other writer's overlaps, in this process or another, and commit it at the end."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        yield connection


def beside(url: URL, ending: str) -> Path:
    """Return where a store's own file stands by default: beside its SQLite file, for a server's in `outputs/`."""
    path = sqlite_path(url) or Path("outputs/audit")
    return path.with_name(f"{path.name}{ending}")


def prepare(engine: Engine, key: SigningKey, *, upgrade: bool = False) -> None:
    """Bring the tables up to date: those of a new database or of an SQLite file, others where `upgrade` says so.

    The key seals the first rows of the chain.

    Raises:
        ConfigError: The database is of a newer version, or of an older one and has to be upgraded by hand.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    scripts = ScriptDirectory.from_config(config)
    head = scripts.get_current_head()
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with engine.connect() as connection:
        if _revision(connection) == head:
            return
    with writing(engine) as connection:
        revision = _revision(connection)  # another replica may have been first
        if revision == head:
            return
        if revision is not None and revision not in {script.revision for script in scripts.walk_revisions()}:
            raise ConfigError(
                f"the audit store is of revision {revision}, made by a newer xray-vqa; install that version or name "
                "another database"
            )
        if revision is not None and engine.dialect.name != "sqlite" and not upgrade:
            raise ConfigError(
                f"the audit store is of revision {revision} and this version needs {head}; stop the other servers, "
                "back it up and run: xray-vqa audit upgrade"
            )
        config.attributes["connection"], config.attributes["key"] = connection, key
        if revision == _BEFORE_ALEMBIC and not inspect(connection).has_table("alembic_version"):
            command.stamp(config, revision)
        command.upgrade(config, "head")
        logger.info("audit store: tables of revision %s", head)


def _revision(connection: Connection) -> str | None:
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is None and inspect(connection).has_table("inspections"):
        return _BEFORE_ALEMBIC
    return revision


def _make_sqlite_durable(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # _begin_sqlite begins, and not the driver, which leaves DDL outside
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    mode = cursor.execute("PRAGMA journal_mode").fetchone()[0]
    level = cursor.execute("PRAGMA synchronous").fetchone()[0]
    cursor.close()
    if (mode, level) != ("wal", 2):
        raise OSError(f"SQLite gives journal_mode {mode} and synchronous {level} instead of wal and 2 (FULL)")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _make_postgres_durable(connection: Any, _: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = on")
        cursor.execute("SELECT current_setting('fsync'), current_setting('full_page_writes')")
        fsync, full_pages = cursor.fetchone()
    connection.commit()
    if (fsync, full_pages) != ("on", "on"):
        raise OSError(f"PostgreSQL runs with fsync {fsync} and full_page_writes {full_pages} instead of on and on")
