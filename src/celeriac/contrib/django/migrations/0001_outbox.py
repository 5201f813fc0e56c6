"""The outbox's table, on SQLite and PostgreSQL; nothing on other databases, where ``app.transaction()`` refuses."""

from __future__ import annotations

from typing import Any

from django.db import migrations  # type: ignore[import-untyped]

from celeriac.model.outbox import OUTBOX_TABLE
from celeriac.outbox.schema import DIALECTS, ddl


def create(apps: Any, editor: Any) -> None:
    """Make the table."""
    if editor.connection.vendor in DIALECTS:
        for statement in ddl(editor.connection.vendor):
            editor.execute(statement)


def drop(apps: Any, editor: Any) -> None:
    """Drop it, with what waits in it."""
    if editor.connection.vendor in DIALECTS:
        editor.execute(f"DROP TABLE IF EXISTS {OUTBOX_TABLE}")
        if editor.connection.vendor == "postgresql":
            editor.execute("DROP FUNCTION IF EXISTS celeriac_outbox_notify()")


class Migration(migrations.Migration):  # type: ignore[misc]  # Django is not typed
    """The first."""

    initial = True
    operations = (migrations.RunPython(create, drop),)
