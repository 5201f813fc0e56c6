"""The Lua scripts, read once from ``lua/*.lua``; what each does stands on top of its file."""

from __future__ import annotations

import hashlib
from functools import cached_property
from importlib.resources import files

__all__ = [
    "CLAIM", "DEPTH", "DUE", "EXPIRED", "EXTEND", "FINISH", "LEASED", "PUBLISH", "PURGE", "RECLAIM", "RESTORE", "STORE",
    "TRIM", "UNLOCK", "Script",
]  # fmt: skip


class Script:
    """One script in two spellings: servers from 7.0 on are told that it may run when memory is full."""

    def __init__(self, name: str, *, drains: bool = False) -> None:
        self.name = name
        self._drains = drains

    @cached_property
    def _plain(self) -> tuple[str, bytes]:
        text = (files(__package__) / "lua" / f"{self.name}.lua").read_bytes()
        return hashlib.sha1(text, usedforsecurity=False).hexdigest(), text

    @cached_property
    def _flagged(self) -> tuple[str, bytes]:
        text = b"#!lua flags=allow-oom\n" + self._plain[1]
        return hashlib.sha1(text, usedforsecurity=False).hexdigest(), text

    def source(self, version: tuple[int, int]) -> tuple[str, bytes]:
        """``(sha1, text)`` for a server of this version."""
        return self._flagged if self._drains and version >= (7, 0) else self._plain


CLAIM = Script("claim", drains=True)
RECLAIM = Script("reclaim", drains=True)
FINISH = Script("finish", drains=True)
EXTEND = Script("extend", drains=True)
DUE = Script("due", drains=True)
EXPIRED = Script("expired")
RESTORE = Script("restore", drains=True)
TRIM = Script("trim", drains=True)
PURGE = Script("purge", drains=True)
UNLOCK = Script("unlock", drains=True)
PUBLISH = Script("publish")
STORE = Script("store", drains=True)
DEPTH = Script("depth")
LEASED = Script("leased")
