"""Asks as columns of parameters, and permits from the answer. Pure; what is decided is in ``sql/limits.sql``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celeriac.brokers.postgres.rows import clean, unpack
from celeriac.model.limits import GO, LOST, PARKED, SLACK, Ask, Permission, Permit, Seats
from celeriac.model.rules import PAUSE

__all__ = ["ask_columns", "freed_columns", "permits"]

_PERMITS = {"go": GO, "lost": LOST, "parked": PARKED}


def ask_columns(asks: Sequence[Ask], promise: float) -> tuple[Any, ...]:
    """The arguments of ``permit``."""
    tokens = [unpack(ask.delivery.token) for ask in asks]
    return (
        [claim for claim, _ in tokens],
        [key for _, key in tokens],
        [None if ask.rate is None else clean(ask.rate.bucket) for ask in asks],
        [None if ask.rate is None else ask.rate.interval for ask in asks],
        [ask.delivery.marks.reserved for ask in asks],
        [None if ask.seats is None else clean(ask.seats.key) for ask in asks],
        [None if ask.seats is None else ask.seats.most for ask in asks],
        [ask.delivery.marks.suspect for ask in asks],
        promise,
        SLACK,
        PAUSE,
    )


def permits(kinds: Sequence[str], dues: Sequence[float | None]) -> list[Permit]:
    """The answer of ``permit``."""
    return [
        _PERMITS[kind] if due is None else Permit(Permission.LATER, due) for kind, due in zip(kinds, dues, strict=True)
    ]


def freed_columns(seats: Sequence[Seats], forgone: Sequence[Ask], promise: float) -> tuple[Any, ...]:
    """The arguments of ``freed``; the first is empty when there is nothing to do."""
    gone = [ask for ask in forgone if ask.seats is not None]
    known = dict.fromkeys([*seats, *(ask.seats for ask in gone if ask.seats is not None)])
    return (
        [clean(each.key) for each in known],
        [each.most for each in known],
        [clean(ask.seats.key) for ask in gone if ask.seats is not None],
        [unpack(ask.delivery.token)[1] for ask in gone],
        promise,
        PAUSE,
    )
