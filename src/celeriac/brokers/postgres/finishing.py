"""``Unified.finish`` and ``Broker.settle``: a batch of completions as one call of the database.

Most completions accept their delivery, store and publish; those go through each table at once. As soon as one of a
batch has to do with chords, holds, releases or buries, its fate may depend on those before it, so each is judged in
turn. A batch that the database refuses is written one by one: one that cannot be written disturbs no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from celeriac.brokers.postgres.errors import Refused
from celeriac.brokers.postgres.rows import clean, completion, json_text, message_columns, result_columns, unpack
from celeriac.brokers.postgres.session import LONG, Session
from celeriac.model.settle import Accept, Completion, Release, Verdict

__all__ = ["Finisher"]

_VERDICTS = {"done": Verdict.DONE, "completes": Verdict.COMPLETES, "fenced": Verdict.FENCED}
_UNWRITABLE = (TypeError, ValueError, msgspec.MsgspecError)


class Finisher:
    """Writes completions over one session."""

    def __init__(self, session: Session, chord_token: float) -> None:
        self._session = session
        self._chord_token = chord_token

    async def write(self, completions: Sequence[Completion], *, whole: bool = False) -> list[Verdict]:
        """See ``Unified.finish``. ``whole``: raise when it cannot be written, all of it is tried again then."""
        try:
            if _are_plain(completions):
                return await self._accept(completions)
            return await self._each(completions)
        except (*_UNWRITABLE, Refused) as error:
            if whole:
                raise
            if len(completions) == 1:
                return [self._unwritten(error)]
        verdicts: list[Verdict] = []
        for each in completions:
            verdicts += await self.write([each])
        return verdicts

    @staticmethod
    def _unwritten(error: Exception) -> Verdict:
        return Verdict.STEPWISE

    async def _accept(self, completions: Sequence[Completion]) -> list[Verdict]:
        tokens = [unpack(each.settlement.delivery.token) for each in completions]  # type: ignore[union-attr]
        first: dict[tuple[int, int], int] = {}
        for index, token in enumerate(tokens):
            first.setdefault(token, index)
        chosen = list(first.values())  # one that ends a second time is fenced
        todo = [completions[index] for index in chosen]
        results = result_columns([each.result for each in todo])
        of, columns = _follow_ups(todo)
        locks = [(number, lock) for number, each in enumerate(todo, 1) for lock in each.frees]
        queues = set(columns[0])
        args: tuple[Any, ...] = (
            [claim for claim, _ in first],
            [key for _, key in first],
            *(results if any(each.result is not None for each in todo) else ([], [], [], [], [])),
            of,
            *columns,
            [number for number, _ in locks],
            [clean(lock.key) for _, lock in locks],
            [lock.waiting for _, lock in locks],
            [lock.started for _, lock in locks],
            list(queues),
        )
        ((done,),) = await self._session.call("finish", args, LONG)
        self._session.knock(queues)
        verdicts = [Verdict.FENCED] * len(completions)
        for index, is_done in zip(chosen, done, strict=True):
            if is_done:
                verdicts[index] = Verdict.DONE
        return verdicts

    async def _each(self, completions: Sequence[Completion]) -> list[Verdict]:
        batch = [completion(each) for each in completions]
        queues = {row["queue"] for each in batch for row in each.get("rows", ())}
        queues.update(
            clean(each.settlement.delivery.queue) for each in completions if isinstance(each.settlement, Release)
        )
        results = [row["id"] for each in batch for row in each.get("results", ())]
        args = (json_text(batch), self._chord_token, list(queues), results)
        ((verdicts,),) = await self._session.call("finish_each", args, LONG)
        self._session.knock(queues)
        return [_VERDICTS[verdict] for verdict in verdicts]


def _are_plain(completions: Sequence[Completion]) -> bool:
    """Whether all accept their delivery and have to do with no other task."""
    for each in completions:  # as a loop, without a call for each: it is on the hot path
        if type(each.settlement) is not Accept or each.parts or each.others or each.opens or each.closes:
            return False
    return True


def _follow_ups(todo: Sequence[Completion]) -> tuple[list[int], tuple[list[Any], ...]]:
    """The columns of what is published, and by which completion, counted from 1."""
    of = [number for number, each in enumerate(todo, 1) for _ in each.publish]
    if not of:
        return [], ([], [], [], [])
    return of, message_columns([message for each in todo for message in each.publish])
