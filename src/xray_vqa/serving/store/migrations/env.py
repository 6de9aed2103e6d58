"""What Alembic runs: the migrations, in the transaction that `database.prepare` has opened."""

from alembic import context

from xray_vqa.serving.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
