"""Reads many records of an audit store at once, and changes nothing in it."""

from collections.abc import Generator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import create_engine, select
from sqlalchemy.exc import SQLAlchemyError

from xray_vqa.core.policy.replay import Recorded
from xray_vqa.errors import ConfigError
from xray_vqa.serving.store.chain import Row
from xray_vqa.serving.store.database import store_url
from xray_vqa.serving.store.tables import records


def inspections_since(url: str, since: datetime) -> Generator[Recorded]:
    """Yield what was inspected from a moment on, in the order of the record.

    Raises:
        ConfigError: There is no such store, or it cannot be read.
    """
    try:
        address = store_url(url)
        if address.get_backend_name() == "sqlite" and not Path(str(address.database)).is_file():
            raise ConfigError(f"{address.database}: no such audit store; --database-url names it")
        moment = since.astimezone(UTC).isoformat(timespec="microseconds")
        query = (
            select(records)
            .where(records.c.kind == "result", records.c.recorded_at >= moment, records.c.body.is_not(None))
            .order_by(records.c.sequence)
        )
        engine = create_engine(address)
        with closing(engine.connect()) as connection:
            for row in connection.execution_options(stream_results=True).execute(query):
                record = Row(*row).record()
                yield Recorded(record["answer"], record["scores"])
        engine.dispose()
    except SQLAlchemyError as error:
        raise ConfigError(f"the audit store cannot be read: {getattr(error, 'orig', None) or error}") from error
