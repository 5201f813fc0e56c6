"""``Unified.finish`` inside the file: what a batch of completions writes. Plain functions of a connection in a
transaction.

Most completions settle, store and publish; those go as one batch through each table. As soon as one of a batch has to
do with chords, its fate may depend on those before it, so each is judged in turn. Called by broker_port.py.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from msgspec import Struct

from celeriac.brokers.sqlite import ledger_table, records
from celeriac.brokers.sqlite import queues as tables
from celeriac.brokers.sqlite.boot import Moment
from celeriac.brokers.sqlite.chords import Ledger
from celeriac.model.settle import Completion, Hold, Settlement, StoredResult, Verdict, last_to_join

__all__ = ["Rows", "Written", "are_plain", "finish", "finish_in_turn"]

#: The rows of a completion's follow-ups; None when one cannot be encoded, then it is written step by step.
Rows = Sequence[tables.Row] | None


class Written(Struct, frozen=True, kw_only=True):
    """What became of the completions, and what was written that others wait for."""

    verdicts: list[Verdict]
    rows: list[tables.Row]
    results: list[StoredResult]
    settlements: list[Settlement]


def are_plain(completions: Sequence[Completion]) -> bool:
    """Whether all settle their delivery and have to do with no other task."""
    for each in completions:  # as a loop, without a call for each: it is on the hot path
        if each.parts or each.others or each.opens or each.closes or type(each.settlement) is Hold:
            return False
    return True


def finish(sqlite: sqlite3.Connection, completions: Sequence[Completion], rows: Sequence[Rows], now: float) -> Written:
    """Write plain completions."""
    todo = [index for index, each in enumerate(rows) if each is not None]
    settlements: list[Settlement] = [completions[index].settlement for index in todo]  # type: ignore[misc]
    done = tables.settle(sqlite, settlements, now)
    kept = [index for index, held in zip(todo, done, strict=True) if held]
    added = [row for index in kept for row in rows[index] or ()]
    results = [result for index in kept if (result := completions[index].result) is not None]
    _store(sqlite, added, results, now)
    ledger_table.free(sqlite, [lock for index in kept for lock in completions[index].frees])
    verdicts = [Verdict.STEPWISE] * len(completions)
    for index, held in zip(todo, done, strict=True):
        verdicts[index] = Verdict.DONE if held else Verdict.FENCED
    return Written(verdicts=verdicts, rows=added, results=results, settlements=settlements)


def finish_in_turn(
    sqlite: sqlite3.Connection, completions: Sequence[Completion], rows: Sequence[Rows], moment: Moment
) -> Written:
    """Write completions of any kind."""
    ledger = Ledger(sqlite, moment)
    leases = _Leases(sqlite, completions)
    written = Written(verdicts=[Verdict.STEPWISE] * len(completions), rows=[], results=[], settlements=[])
    verdicts = written.verdicts
    joining: list[int] = []
    for index, (completion, added) in enumerate(zip(completions, rows, strict=True)):
        if added is None:
            continue
        if not leases.hold(completion) or (completion.closes is not None and not ledger.holds(completion.closes)):
            verdicts[index] = Verdict.FENCED
            continue
        verdicts[index] = Verdict.DONE
        written.rows.extend(added)
        if completion.result is not None:
            written.results.append(completion.result)
        written.results.extend(completion.others)
        _write_chords(ledger, completion)
        leases.end(completion)
        if completion.parts and completion.settlement.delivery is not None:
            joining.append(index)
        else:
            _note_end(ledger, completion)
    for index, chords in last_to_join(completions, joining).items():
        delivery = completions[index].settlement.delivery
        if delivery is not None and any([ledger.take(chord, delivery.token) for chord in chords]):
            verdicts[index] = Verdict.COMPLETES
        else:
            _note_end(ledger, completions[index])
    for completion, verdict in zip(completions, verdicts, strict=True):
        if verdict is Verdict.DONE and not isinstance(completion.settlement, Hold):
            written.settlements.append(completion.settlement)
    tables.settle(sqlite, written.settlements, moment.now)
    ledger.write()
    _store(sqlite, written.rows, written.results, moment.now)
    ended = [each for each, verdict in zip(completions, verdicts, strict=True) if verdict in _WRITTEN]
    ledger_table.free(sqlite, [lock for each in ended for lock in each.frees])
    return written


#: What of a completion is written, but perhaps for its end.
_WRITTEN = frozenset({Verdict.DONE, Verdict.COMPLETES})


class _Leases:
    """The leases that a call's completions name. One that ends is good for nothing behind it."""

    def __init__(self, sqlite: sqlite3.Connection, completions: Sequence[Completion]) -> None:
        deliveries = [each.settlement.delivery for each in completions]
        self._held = tables.held(sqlite, [tables.unpack(each.token) for each in deliveries if each is not None])

    def hold(self, completion: Completion) -> bool:
        delivery = completion.settlement.delivery
        if delivery is None:
            return True
        claim, key = tables.unpack(delivery.token)
        return key in self._held[claim]

    def end(self, completion: Completion) -> None:
        if not isinstance(completion.settlement, Hold):
            claim, key = tables.unpack(completion.settlement.delivery.token)
            self._held[claim].discard(key)


def _write_chords(ledger: Ledger, completion: Completion) -> None:
    for chord in completion.opens:
        ledger.open(chord)
    for part in completion.parts:
        ledger.join(part)
    if completion.closes is not None:
        ledger.close(completion.closes)


def _note_end(ledger: Ledger, completion: Completion) -> None:
    if not isinstance(completion.settlement, Hold):
        ledger.ending.add(tables.unpack(completion.settlement.delivery.token))


def _store(sqlite: sqlite3.Connection, rows: Sequence[tables.Row], results: Sequence[StoredResult], now: float) -> None:
    if rows:
        tables.add(sqlite, rows, now)
    if results:
        records.put(sqlite, results, now)
