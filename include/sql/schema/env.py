"""Alembic environment: one connection, our own version table in our own schema, every migration in its own transaction."""

from pathlib import Path

from alembic import context
from sqlalchemy import create_engine, text

url = context.config.attributes["url"]
engine = create_engine(url)
with engine.connect() as connection:
    connection.execute(
        text("select pg_advisory_lock(72060001)")
    )  # two `init` at once: the second waits, then finds nothing to do
    connection.execute(text("create schema if not exists postlude"))
    connection.commit()
    context.configure(
        connection=connection,
        version_table="schema_version",
        version_table_schema="postlude",
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()
    # functions carry rules, not data: the code's version always replaces the database's
    here = Path(__file__).parent
    for script in (*sorted(here.glob("rules/*.sql")), here / "public_pages.sql"):
        connection.connection.driver_connection.execute(script.read_text(encoding="utf-8"))
        connection.commit()
    connection.execute(text("select pg_advisory_unlock_all()"))
    connection.commit()
engine.dispose()
