"""The statements that make the outbox's table: ``ddl("postgresql")``, for migrations of whatever kind."""

from __future__ import annotations

from pathlib import Path

from celeriac.exceptions import ImproperlyConfigured

__all__ = ["DIALECTS", "ddl", "statements"]

#: Names as Django and SQLAlchemy have them.
DIALECTS = ("postgresql", "sqlite")


def ddl(dialect: str) -> list[str]:
    """The statements that make the table and what belongs to it, to be executed in order, and again without harm.

    ``dialect`` is ``"postgresql"`` or ``"sqlite"``. Raises ``ImproperlyConfigured`` for other databases.
    """
    if dialect not in DIALECTS:
        raise ImproperlyConfigured(f"there is no outbox for {dialect}: it is for {' and '.join(DIALECTS)}")
    return list(statements(f"{dialect}_schema.sql").values())


def statements(file: str) -> dict[str, str]:
    """The statements of a file beside this module by name, each after a line ``-- :name  notes``."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in Path(__file__).with_name(file).read_text(encoding="utf-8").splitlines():
        if line.startswith("-- :"):
            lines = found.setdefault(line[4:].split(None, 1)[0], [])
        else:
            lines.append(line)
    return {name: "\n".join(body).strip().removesuffix(";") for name, body in found.items()}
