"""One setting: its name, kind, default, old name, meaning and how far it is honoured.

Knows no values: those are in ``settings.py``. Rows are made in ``rows/`` and gathered by ``table.py``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

__all__ = [
    "ANY",
    "BOOL",
    "DICT",
    "FLOAT",
    "HONOURED",
    "INT",
    "LIST",
    "SECONDS",
    "SILENT",
    "STR",
    "Kind",
    "Level",
    "Setting",
    "Status",
    "no_effect",
    "refused",
]


class Kind(StrEnum):
    """What a value may be; ``check.py`` says what is accepted for each."""

    ANY = "any"
    BOOL = "bool"
    DICT = "dict"
    FLOAT = "float"
    INT = "int"
    LIST = "list"
    SECONDS = "seconds"
    STR = "str"


ANY, BOOL, DICT, FLOAT = Kind.ANY, Kind.BOOL, Kind.DICT, Kind.FLOAT
INT, LIST, SECONDS, STR = Kind.INT, Kind.LIST, Kind.SECONDS, Kind.STR


class Level(StrEnum):
    """How far a setting is honoured."""

    HONOURED = "honoured"
    #: Accepted; a value other than the default warns once, with the reason.
    NO_EFFECT = "accepted without effect"
    #: Accepted, neither checked nor mentioned: settings of backends that we do not build. Their URLs are refused.
    SILENT = "accepted silently"
    #: A value other than the default raises ImproperlyConfigured, with the reason.
    REFUSED = "refused"


class Status(NamedTuple):
    """A level, and why it is not HONOURED."""

    level: Level
    reason: str = ""


HONOURED = Status(Level.HONOURED)
SILENT = Status(Level.SILENT, "there is no such backend")


def no_effect(reason: str) -> Status:
    """Accepted, has no effect, and says so."""
    return Status(Level.NO_EFFECT, reason)


def refused(reason: str) -> Status:
    """Only the default is accepted."""
    return Status(Level.REFUSED, reason)


class Setting(NamedTuple):
    """A row of the table. Not a dataclass: importing dataclasses costs 11 of the 60 ms that importing us may take."""

    name: str
    kind: Kind
    default: Any
    #: One line for the reference.
    doc: str
    #: Upper-case name of Celery 3; empty: the name in upper case. Our own settings have none.
    old: str = ""
    status: Status = HONOURED
    #: None is a value of its own; else None means "not set". Always a value where the default is None.
    optional: bool = False
    #: The only values accepted, when there are any.
    choices: tuple[Any, ...] = ()
    #: The setting whose value is taken while this one is None.
    follows: str = ""
    #: Celeriac's own: Celery does not know it.
    own: bool = False

    @property
    def takes_none(self) -> bool:
        """None is a value, not the lack of one."""
        return self.optional or self.default is None

    @property
    def old_name(self) -> str:
        """The upper-case name of Celery 3; empty for settings that Celery does not have."""
        return "" if self.own else self.old or self.name.upper()
