"""What the scripts of the ledger are told: changes as keys and arguments. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from celeriac.brokers.redis.chords import life
from celeriac.brokers.redis.layout import Layout
from celeriac.brokers.redis.sockets import Word
from celeriac.model.ledger import ANY, Change

__all__ = ["change_args"]


def change_args(layout: Layout, changes: Iterable[Change]) -> tuple[list[str], list[Word]]:
    """Keys, and five arguments for each (``lua/ledger.lua``)."""
    keys: list[str] = []
    args: list[Word] = []
    for change in changes:
        keys.append(layout.ledger(change.key))
        expected = change.expected
        if expected is ANY:
            args += ("any", "")
        elif expected is None:
            args += ("none", "")
        else:
            args += ("is", expected)
        if change.value is None:
            args += ("drop", "", "")
        else:
            args += ("set", change.value, life(change.expires))
    return keys, args
