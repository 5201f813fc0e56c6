"""Writes docs/reference/settings.md from the settings table: `python -m tools.settings_reference`. A test compares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from celeriac.conf.setting import Kind, Level, Setting
from celeriac.conf.table import SETTINGS

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "settings.md"

_HEAD = """\
# Settings

Written by `tools/settings_reference.py` from the settings table in `src/celeriac/conf/rows/`; do not edit.

Names are Celery's, where Celery has the setting. The old upper-case names of Celery 3 are understood too, and so are
prefixed names with `config_from_object(..., namespace="CELERY")`. A setting is looked for in this order: the
environment (`CELERY_BROKER_URL`, `CELERY_BROKER_READ_URL`, `CELERY_BROKER_WRITE_URL`, `CELERY_RESULT_BACKEND`), changes
made on `app.conf` or given to `Celery(...)`, the configuration object, the default below. Times are seconds or a
`timedelta`.
"""
_FAMILIES = {"broker": "Broker", "redis": "Redis", "result": "Results", "task": "Tasks", "worker": "Workers"}
_GENERAL = "General"
_KINDS = {Kind.ANY: "", Kind.SECONDS: "seconds", Kind.LIST: "list", Kind.DICT: "dict"}


def page() -> str:
    """The text of the whole page."""
    rows = list(SETTINGS.values())
    honoured = [row for row in rows if row.status.level is Level.HONOURED]
    parts = [_HEAD]
    families: dict[str, list[Setting]] = {}
    for row in honoured:
        families.setdefault(_FAMILIES.get(row.name.partition("_")[0], _GENERAL), []).append(row)
    head = ("setting", "kind", "default", "meaning")
    titles = [title for title in (_GENERAL, *_FAMILIES.values()) if title in families]
    parts += [f"## {title}\n\n" + _table(head, map(_row, families[title])) for title in titles]
    refused = [row for row in rows if row.status.level is Level.REFUSED]
    if refused:
        intro = "## Refused\n\nOnly the default is accepted; anything else raises `ImproperlyConfigured`.\n\n"
        named = ((_name(row), _value(row), row.status.reason) for row in refused)
        parts.append(intro + _table(("setting", "default", "why"), named))
    without = sorted((r for r in rows if r.status.level is Level.NO_EFFECT), key=lambda r: r.name)
    intro = "## Accepted without effect\n\nA value other than the default gives a `CeleryWarning` with the reason.\n\n"
    parts.append(intro + _table(("setting", "why"), ((_name(row), row.status.reason) for row in without)))
    silent = sorted(row.name for row in rows if row.status.level is Level.SILENT)
    families_of_silent = ", ".join(f"`{name}_*`" for name in dict.fromkeys(n.partition("_")[0] for n in silent))
    parts.append(
        f"## Accepted silently\n\n{len(silent)} settings of result backends that Celery has and we do not: "
        f"{families_of_silent}. Their URLs are refused.\n"
    )
    return "\n".join(parts)


def _row(row: Setting) -> tuple[str, str, str, str]:
    doc = row.doc
    if row.choices:
        doc += " One of " + ", ".join(f"`{choice}`" for choice in row.choices) + "."
    if row.follows:
        doc += f" Not set: as `{row.follows}`."
    return _name(row) + ("" if not row.own else " ¹"), _KINDS.get(row.kind, row.kind.value), _value(row), doc


def _name(row: Setting) -> str:
    return f"`{row.name}`"


def _value(row: Setting) -> str:
    value: Any = row.default
    if row.follows and value is None:
        return ""
    if isinstance(value, timedelta):
        value = int(value.total_seconds())
    if isinstance(value, (tuple, frozenset, set)):
        value = sorted(value)
    return f"`{value!r}`"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    body = list(rows)
    note = "\n¹ Celeriac's own: Celery does not know it.\n" if any("¹" in row[0] for row in body) else ""
    return "\n".join(_lines(head, body)) + "\n" + note


def _lines(head: tuple[str, ...], body: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in body:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
