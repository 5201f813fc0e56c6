"""Reads the .sql files of this package: named statements, each after a line ``-- :name  notes``.

Knows nothing of SQLite. Called once per file when the modules of this package are imported.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["statements"]


def statements(file: str) -> dict[str, str]:
    """The statements of ``file`` (a name beside this module) by name, in order."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in Path(__file__).with_name(file).read_text(encoding="utf-8").splitlines():
        if line.startswith("-- :"):
            name = line[4:].split(None, 1)[0]
            lines = found.setdefault(name, [])
        else:
            lines.append(line)
    return {name: "\n".join(body).strip() for name, body in found.items()}
