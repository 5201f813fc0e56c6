"""Which transaction of the application this context sends in: ``with app.transaction(connection):``.

The sender and the result backend ask here before they write to a server. Knows no database; the outlets are made by
``app/transaction.py``. A block belongs to its thread, asyncio task or greenlet, and to those that copy its context.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from celeriac.model.chord import NewChord
from celeriac.model.message import Message

__all__ = ["Outlet", "outlet_of", "relayed", "sending_into"]


class Outlet(Protocol):
    """Takes what is sent inside a block. Nothing of it happens unless the application commits."""

    #: A relay publishes it later; else it is in the broker's tables already, uncommitted.
    relayed: bool

    def put(self, messages: Sequence[Message]) -> None:
        """Take messages, as they are to be published."""
        ...

    def open_chords(self, chords: Sequence[NewChord]) -> None:
        """Take chords, whose members follow."""
        ...


class _Block:
    """One ``with``, as those see it that have copied its context: they may outlive it."""

    __slots__ = ("conf", "open", "outlet")

    def __init__(self, conf: Any, outlet: Outlet) -> None:
        self.conf = conf
        self.outlet = outlet
        self.open = True


#: The innermost first: blocks of several apps may lie in each other.
_blocks: ContextVar[tuple[_Block, ...]] = ContextVar("celeriac.transaction", default=())


def outlet_of(conf: Any) -> Outlet | None:
    """Where the app with these settings sends to here; None: to its broker."""
    for block in _blocks.get():
        if block.conf is conf and block.open:
            return block.outlet
    return None


def relayed(conf: Any) -> bool:
    """What this app sends here waits for a relay."""
    outlet = outlet_of(conf)
    return outlet is not None and outlet.relayed


@contextmanager
def sending_into(conf: Any, outlet: Outlet) -> Iterator[None]:
    """Let the app with these settings send into ``outlet`` until the block ends."""
    block = _Block(conf, outlet)
    token = _blocks.set((block, *_blocks.get()))
    try:
        yield
    finally:
        # For asyncio tasks that were started inside: their transaction is not this one any more.
        block.open = False
        _blocks.reset(token)
