"""What happens to messages in the file: add, take, settle, extend. Plain functions of a connection in a transaction.

They do not wait, ring or read clocks. Broker and publisher call them; their statements are in messages.sql.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from celeriac.brokers.sqlite.statements import statements
from celeriac.codec import envelope
from celeriac.model.message import Delivery, Message
from celeriac.model.settle import DeadLetter, Release, Settlement

__all__ = [
    "Claim",
    "Row",
    "add",
    "drop",
    "extend",
    "glance",
    "lend",
    "move_due",
    "numbers",
    "owned",
    "prepare",
    "settle",
    "take",
    "token",
    "unpack",
]

SQL = statements("messages.sql")
#: Most due messages that one claim moves to ready.
_DUE_LIMIT = 1000
#: Positions of due messages are microseconds of their time less this: below 0 until the year 4253, so before arrivals.
_DUE_FIRST = 2**56
#: kombu's priority steps.
STEPS = (0, 3, 6, 9)
#: A fencing token as the file knows it: claim and message id.
Held = tuple[int, int]
#: A message about to be stored: queue, step, due, envelope.
Row = tuple[str, int, float | None, bytes]


class Claim(Struct, frozen=True, kw_only=True):
    """Under what messages are lent: ``number`` is random, ``until`` a time of ``boot.uptime``."""

    number: int
    owner: str
    until: float
    boot: int


def step(priority: int) -> int:
    """kombu's step of a priority: rounded down, within 0-9."""
    return min(9, max(0, priority)) // 3 * 3


def prepare(messages: Iterable[Message]) -> list[Row]:
    """The rows of messages; outside of the transaction, for encoding takes longer than storing."""
    return [(m.queue, step(m.priority), m.due, envelope.encode(m)) for m in messages]


def add(sqlite: sqlite3.Connection, rows: Sequence[Row], now: float) -> None:
    """Store messages, ready or scheduled."""
    last: int = sqlite.execute(SQL["last_id"]).fetchone()[0] or 0
    numbered = list(enumerate(rows, last + 1))
    sqlite.executemany(SQL["add_message"], [(key, row[0], row[1], now, row[3]) for key, row in numbered])
    later = [(row, key) for key, row in numbered if row[2] is not None and row[2] > now]
    if not later:
        sqlite.execute(SQL["add_ready_since"], (last,))
        return
    sqlite.executemany(SQL["add_schedule"], [(row[0], row[2], key, row[1], 0) for row, key in later])
    scheduled = {key for _, key in later}
    sqlite.executemany(
        SQL["add_ready"], [(row[0], row[1], key, key, 0) for key, row in numbered if key not in scheduled]
    )


def glance(sqlite: sqlite3.Connection, queues: Sequence[str]) -> tuple[bool, float | None, int]:
    """Whether anything is ready in the queues, when the next scheduled message is due, and the epoch of the rules."""
    ready, due, epoch = False, None, 0
    for queue in queues:
        some, next_due, epoch = sqlite.execute(SQL["glance"], (queue,)).fetchone()
        ready = ready or bool(some)
        if next_due is not None and (due is None or next_due < due):
            due = next_due
    return ready, due, epoch or 0


def move_due(sqlite: sqlite3.Connection, queue: str, now: float, limit: int = _DUE_LIMIT) -> int:
    """Make due messages ready, before those that were never scheduled, the earliest first; returns how many."""
    rows = sqlite.execute(SQL["due"], (queue, now, limit)).fetchall()
    if rows:
        sqlite.execute(SQL["drop_due"], (queue, rows[-1][0], rows[-1][1]))
        sqlite.executemany(
            SQL["add_ready"],
            [(queue, level, int(due * 1e6) - _DUE_FIRST, key, alone) for due, key, level, alone in rows],
        )
    return len(rows)


def push_front(sqlite: sqlite3.Connection, queue: str, level: int, entries: Sequence[tuple[int, int]]) -> None:
    """Make messages ready before all others of their lane, in the given order; entries: id, alone."""
    first = sqlite.execute(SQL["front"], (queue, level)).fetchone()[0]
    start = min(first or 0, 0) - len(entries)
    sqlite.executemany(
        SQL["add_ready"], [(queue, level, start + index, key, alone) for index, (key, alone) in enumerate(entries)]
    )


def take(
    sqlite: sqlite3.Connection, queues: Sequence[str], limit: int, claim: Claim, now: float
) -> tuple[list[tuple[int, str, bytes]], bool]:
    """Lend up to ``limit`` messages: id, queue and envelope of each, in order; and whether there may be more. A suspect
    is lent alone."""
    for queue in queues:
        move_due(sqlite, queue, now)
    if len(queues) == 1:
        ids, more, _ = _take(sqlite, "", (queues[0],), limit, alone=True)
        return lend(sqlite, ids, claim), more
    ids = []
    for level in STEPS:
        for queue in queues:
            some, more, suspect = _take(sqlite, "_step", (queue, level), limit - len(ids), alone=not ids)
            ids += some
            if suspect or len(ids) == limit:
                return lend(sqlite, ids, claim), True
    return lend(sqlite, ids, claim), False


def _take(
    sqlite: sqlite3.Connection, which: str, lane: tuple[str] | tuple[str, int], limit: int, *, alone: bool
) -> tuple[list[int], bool, bool]:
    """Take the ids before the first suspect out of a queue or of one step of it, or a suspect that is first when
    ``alone`` allows; whether more are left there; whether there was a suspect."""
    rows: list[tuple[int, int, int, int]] = sqlite.execute(SQL[f"ready{which}"], (*lane, limit + 1)).fetchall()
    suspect = next((index for index, row in enumerate(rows) if row[3]), None)
    taken = rows[:limit] if suspect is None else rows[: min(suspect or alone, limit)]
    if taken:
        sqlite.execute(SQL[f"drop_ready{which}"], (*lane, *taken[-1][len(lane) - 1 : 3]))
    return [row[2] for row in taken], len(taken) < len(rows), suspect is not None


def lend(sqlite: sqlite3.Connection, ids: list[int], claim: Claim) -> list[tuple[int, str, bytes]]:
    """Lend messages that are in no other table any more: id, queue and envelope of each, in order."""
    if not ids:
        return []
    text = numbers(ids)
    sqlite.execute(SQL["add_leases"], (claim.number, claim.owner, claim.until, claim.boot, text))
    if ids[-1] - ids[0] == len(ids) - 1 and ids == sorted(ids):
        return sqlite.execute(SQL["envelopes_between"], (ids[0], ids[-1])).fetchall()
    found = {row[0]: row for row in sqlite.execute(SQL["envelopes"], (text,))}
    return [found[key] for key in ids if key in found]


def token(owner: str, claim: int, key: int) -> str:
    """The fencing token of one delivery."""
    return f"{owner}:{claim}:{key}"


def unpack(text: str) -> Held:
    """Claim and message id of a token; of a foreign token a pair that nobody holds."""
    try:
        _, claim, key = text.rsplit(":", 2)
        return int(claim), int(key)
    except ValueError:
        return (-1, -1)


def numbers(values: Iterable[int]) -> str:
    """Whole numbers as a JSON list, for json_each."""
    return f"[{','.join(map(str, values))}]"


def held(sqlite: sqlite3.Connection, wanted: Iterable[Held]) -> dict[int, set[int]]:
    """The leases that exist, of all claims in ``wanted``."""
    return {
        claim: {row[0] for row in sqlite.execute(SQL["held"], (claim,))} for claim in {claim for claim, _ in wanted}
    }


def settle(sqlite: sqlite3.Connection, settlements: Sequence[Settlement], now: float) -> list[bool]:
    """End deliveries; for each whether its token was still held. One that was not changes nothing."""
    keys = [unpack(s.delivery.token) for s in settlements]
    leases = held(sqlite, keys)
    ended: dict[int, list[int]] = defaultdict(list)
    gone: list[int] = []
    front: dict[tuple[str, int], list[tuple[int, int]]] = {}
    verdicts: list[bool] = []
    for (claim, key), settlement in zip(keys, settlements, strict=True):
        open_ids = leases[claim]
        if key not in open_ids:
            verdicts.append(False)
            continue
        verdicts.append(True)
        open_ids.discard(key)
        ended[claim].append(key)
        if isinstance(settlement, Release):
            _release(sqlite, key, settlement, now, front)
            continue
        if isinstance(settlement, DeadLetter):
            _bury(sqlite, settlement)
        gone.append(key)
    for (queue, level), entries in front.items():
        push_front(sqlite, queue, level, entries)
    for claim, ids in ended.items():
        if leases[claim]:
            sqlite.execute(SQL["end_leases"], (claim, numbers(ids)))
        else:
            sqlite.execute(SQL["end_claim"], (claim,))
    drop(sqlite, gone)
    return verdicts


def drop(sqlite: sqlite3.Connection, ids: list[int]) -> None:
    """Forget messages that are in no other table."""
    if not ids:
        return
    if max(ids) - min(ids) == len(ids) - 1:
        sqlite.execute(SQL["drop_messages_between"], (min(ids), max(ids)))
    else:
        sqlite.execute(SQL["drop_messages"], (numbers(ids),))


def _release(
    sqlite: sqlite3.Connection,
    key: int,
    release: Release,
    now: float,
    front: dict[tuple[str, int], list[tuple[int, int]]],
) -> None:
    """To the schedule, behind all, or into ``front``, by lane."""
    marks = release.marks
    if marks is not None:
        sqlite.execute(SQL["rewrite"], (envelope.remark(release.delivery, marks), key))
    alone = int((marks or release.delivery.marks).suspect)
    queue, level = sqlite.execute(SQL["place"], (key,)).fetchone()
    if release.due is not None and release.due > now:
        sqlite.execute(SQL["add_schedule"], (queue, release.due, key, level, alone))
    elif release.back:
        behind = sqlite.execute(SQL["last_id"]).fetchone()[0] + 1
        sqlite.execute(SQL["move_back"], (behind, key))
        sqlite.execute(SQL["add_ready"], (queue, level, behind, behind, alone))
    else:
        front.setdefault((queue, level), []).append((key, alone))


def _bury(sqlite: sqlite3.Connection, letter: DeadLetter) -> None:
    delivery = letter.delivery
    texts = (
        delivery.message.id,
        delivery.message.task,
        delivery.queue,
        letter.reason.value,
        letter.detail,
        letter.exception,
        letter.worker,
    )
    # Messages of exceptions may hold anything, lone surrogates as well, which SQLite's UTF-8 cannot.
    clean = [text.encode("utf-8", "backslashreplace").decode() for text in (*texts, letter.traceback)]
    sqlite.execute(SQL["add_dead"], (*clean[:-1], letter.at, delivery.marks.crashes, clean[-1], delivery.raw))


def extend(sqlite: sqlite3.Connection, deliveries: Sequence[Delivery], until: float, boot: int) -> list[Delivery]:
    """Renew leases; returns the deliveries whose lease is gone."""
    keys = [unpack(delivery.token) for delivery in deliveries]
    leases = held(sqlite, keys)
    renewed: Mapping[int, list[int]] = defaultdict(list)
    lost = []
    for (claim, key), delivery in zip(keys, deliveries, strict=True):
        if key in leases[claim]:
            renewed[claim].append(key)
        else:
            lost.append(delivery)
    for claim, ids in renewed.items():
        if len(set(ids)) == len(leases[claim]):
            sqlite.execute(SQL["extend_claim"], (until, boot, claim))
        else:
            sqlite.execute(SQL["extend_leases"], (until, boot, claim, numbers(ids)))
    return lost


def owned(sqlite: sqlite3.Connection, owner: str) -> list[tuple[int, int, str, bytes]]:
    """What an owner holds: claim, id, queue and envelope of each."""
    return sqlite.execute(SQL["owned"], (owner,)).fetchall()
