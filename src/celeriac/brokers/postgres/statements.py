"""Reads the .sql files of this package and puts the name of the schema into them.

``calls.sql`` has named statements, each after a line ``-- :name  arguments``; the other files of ``sql/`` define what
they call. Knows nothing of connections.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from celeriac.brokers.postgres.wire import Statement, compiled
from celeriac.ports import CHORD_DONE, CHORD_LOOK

__all__ = ["VERSION", "calls", "functions", "migration", "quoted"]

#: The version of the schema that this code works with: the number of the last migration.
VERSION = 1
_HERE = Path(__file__).parent
_FILES = (
    "moment", "waking", "queues", "ledger", "results", "chords", "settling", "stages", "limits", "rules", "dead", "bus",
    "upkeep",
)  # fmt: skip


def quoted(name: str) -> str:
    """A name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def _filled(text: str, schema: str) -> str:
    literal = "'" + schema.replace("'", "''") + "'"
    text = text.replace("{schema_text}", literal).replace("{schema}", quoted(schema))
    return text.replace("{chord_done}", repr(CHORD_DONE)).replace("{chord_look}", repr(CHORD_LOOK))


@lru_cache(maxsize=64)
def calls(schema: str) -> dict[str, Statement]:
    """The statements of ``calls.sql`` by name."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in (_HERE / "sql" / "calls.sql").read_text(encoding="utf-8").splitlines():
        if line.startswith("-- :"):
            name = line[4:].split(None, 1)[0]
            lines = found.setdefault(name, [])
        elif not line.startswith("--"):
            lines.append(line)
    return {name: compiled(name, _filled("\n".join(body).strip(), schema)) for name, body in found.items()}


def functions(schema: str) -> bytes:
    """All definitions, to be run whenever the version changes."""
    texts = [(_HERE / "sql" / f"{name}.sql").read_text(encoding="utf-8") for name in _FILES]
    return _filled("\n".join(texts), schema).encode()


def migration(number: int, schema: str) -> bytes:
    """The step from the version before ``number``."""
    return _filled((_HERE / "migrations" / f"{number:04}.sql").read_text(encoding="utf-8"), schema).encode()
