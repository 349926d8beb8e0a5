"""Run by `service_kit.database.migrate`, which has already configured the context."""

from alembic import context

context.run_migrations()
