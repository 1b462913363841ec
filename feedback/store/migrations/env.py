"""Run by Alembic: it is handed a connection whose transaction is the caller's (`feedback.store.engine.migrate`)."""

from alembic import context

from feedback.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
