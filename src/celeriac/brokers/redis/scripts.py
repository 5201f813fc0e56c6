"""The Lua scripts, read from ``lua/*.lua``; what each does stands on top of its file.

All are read when this module is imported: later there may be no file descriptor left, or the files of another version.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files

__all__ = [
    "CHORD_CLOSE", "CHORD_GATHER", "CHORD_GROW", "CHORD_JOIN", "CHORD_LOOK", "CHORD_OPEN", "CHORD_SWEEP", "CLAIM",
    "DEAD_DROP", "DEAD_PAGE", "DEAD_REPLAY", "DEPTH", "DUE", "EXPIRED", "EXTEND", "FINISH", "LAUNCH", "LEASED",
    "LEDGER_ALL", "LEDGER_CHANGE", "LIMITS", "PUBLISH", "PUBLISH_IF", "PUBLISH_ONCE", "PURGE", "PURGED", "PURGE_PARK",
    "RECLAIM",
    "RESTORE", "RULES_READ", "RULES_SET", "STORE", "TRIM", "UNLOCK", "WITHDRAW", "Script", "read_all",
]  # fmt: skip

_FOLDER = files(__package__) / "lua"


_all: list[Script] = []


def read_all() -> None:
    """Read what is not read yet. A worker does so before it forks: a task may leave no descriptor to read them by, and
    a deployment other files."""
    for script in _all:
        script.source((0, 0))
        script.source((7, 0))


class Script:
    """One script in two spellings: servers from 7.0 on are told that it may run when memory is full.

    ``after`` names the files of functions that stand in front of it.
    """

    def __init__(self, name: str, *, after: str = "", drains: bool = False) -> None:
        self.name = name
        text = b"".join((_FOLDER / f"{part}.lua").read_bytes() for part in (*after.split(), name))
        self._plain = _digest(text), text
        flagged = b"#!lua flags=allow-oom\n" + text if drains else text
        self._flagged = _digest(flagged), flagged

    def source(self, version: tuple[int, int]) -> tuple[str, bytes]:
        """``(sha1, text)`` for a server of this version."""
        return self._flagged if version >= (7, 0) else self._plain


def _digest(text: bytes) -> str:
    return hashlib.sha1(text, usedforsecurity=False).hexdigest()


CLAIM = Script("claim", drains=True)
RECLAIM = Script("reclaim", drains=True)
FINISH = Script("finish", after="chord", drains=True)
EXTEND = Script("extend", drains=True)
DUE = Script("due", drains=True)
EXPIRED = Script("expired")
RESTORE = Script("restore", drains=True)
TRIM = Script("trim", after="dead", drains=True)
DEAD_PAGE = Script("dead_page")
DEAD_REPLAY = Script("dead_replay", after="dead ledger", drains=True)
DEAD_DROP = Script("dead_drop", after="dead", drains=True)
PURGE = Script("purge", drains=True)
LIMITS = Script("limits", drains=True)
PURGE_PARK = Script("purge_park", drains=True)
UNLOCK = Script("unlock", drains=True)
PUBLISH = Script("publish")
LAUNCH = Script("launch")
PURGED = Script("purged", drains=True)
PUBLISH_IF = Script("publish_if", after="ledger")
PUBLISH_ONCE = Script("publish_once")
STORE = Script("store", drains=True)
DEPTH = Script("depth")
LEASED = Script("leased")
LEDGER_ALL = Script("ledger_all", after="ledger", drains=True)
LEDGER_CHANGE = Script("ledger_change", after="ledger", drains=True)
CHORD_OPEN = Script("chord_open", after="chord")
CHORD_JOIN = Script("chord_join", after="chord", drains=True)
CHORD_GATHER = Script("chord_gather", after="chord", drains=True)
CHORD_CLOSE = Script("chord_close", after="chord", drains=True)
CHORD_GROW = Script("chord_grow")
CHORD_LOOK = Script("chord_look", drains=True)
CHORD_SWEEP = Script("chord_sweep", after="chord", drains=True)
RULES_SET = Script("rules_set", drains=True)
RULES_READ = Script("rules_read", drains=True)
WITHDRAW = Script("withdraw", drains=True)
