"""The statement that writes rows, for any driver: ``INSERT`` with as many rows as there are, and its parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from celeriac.model.outbox import OUTBOX_TABLE, Parcel

__all__ = ["COLUMNS", "inserts", "values"]

COLUMNS = ("id", "kind", "task", "task_id", "queue", "body")
#: Rows of one statement: old builds of SQLite take 999 parameters.
_ROWS = 100


@lru_cache(maxsize=2 * _ROWS)
def _statement(mark: str, rows: int) -> str:
    row = f"({', '.join([mark] * len(COLUMNS))})"
    return f"INSERT INTO {OUTBOX_TABLE} ({', '.join(COLUMNS)}) VALUES {', '.join([row] * rows)}"


def values(parcel: Parcel) -> tuple[Any, ...]:
    """A parcel's columns, in the order of ``COLUMNS``."""
    return (parcel.id, parcel.kind.value, parcel.task, parcel.task_id, parcel.queue, parcel.body)


def inserts(mark: str, parcels: Sequence[Parcel]) -> Iterator[tuple[str, list[Any]]]:
    """Statements and their parameters; ``mark`` stands for a parameter, ``?`` or ``%s``."""
    for start in range(0, len(parcels), _ROWS):
        part = parcels[start : start + _ROWS]
        yield _statement(mark, len(part)), [value for parcel in part for value in values(parcel)]
