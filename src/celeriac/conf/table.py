"""The settings table: every setting by name, and every name that stands for one.

Data only; where values come from is ``settings.py``'s business. Read by it, by the command line and by the docs.
"""

from __future__ import annotations

from typing import NamedTuple

from celeriac.conf.rows import broker, cloud, general, result, task, worker
from celeriac.conf.setting import Setting

__all__ = ["FOLLOWERS", "NEW_NAMES", "OLD_NAMES", "SETTINGS", "FoundSetting", "find"]

#: Every setting, by its name.
SETTINGS: dict[str, Setting] = {
    row.name: row for rows in (general, broker, result, cloud, task, worker) for row in rows.ROWS
}

#: Old upper-case name -> name.
NEW_NAMES: dict[str, str] = {row.old_name: row.name for row in SETTINGS.values() if row.old_name}

#: Name -> old upper-case name.
OLD_NAMES: dict[str, str] = {row.name: row.old_name for row in SETTINGS.values() if row.old_name}

#: Name -> settings that take its value while they have none.
FOLLOWERS: dict[str, tuple[str, ...]] = {
    name: tuple(row.name for row in SETTINGS.values() if row.follows == name)
    for name in {row.follows for row in SETTINGS.values() if row.follows}
}


class FoundSetting(NamedTuple):
    """Where ``find`` found a setting: ``namespace_key``; the namespace of a setting without a family is None."""

    namespace: str | None
    key: str
    type: Setting


def find(name: str, namespace: str = "celery") -> FoundSetting:
    """The setting ``namespace_name``, else the one called ``name``, else the first of any family that ends so.

    Mirrors ``celery.app.defaults.find``, which add-ons use: ``find("extended", "result")`` is ``result_extended``.

    Raises:
        KeyError: there is none.
    """
    name, namespace = name.lower(), namespace.lower()
    row = SETTINGS.get(f"{namespace}_{name}")
    if row is not None:
        return FoundSetting(namespace, name, row)
    row = SETTINGS.get(name)
    if row is not None:
        return FoundSetting(None, name, row)
    for row in SETTINGS.values():
        family, _, rest = row.name.partition("_")
        if rest == name:
            return FoundSetting(family, name, row)
    raise KeyError(name)
