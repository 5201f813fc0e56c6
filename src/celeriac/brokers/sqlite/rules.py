"""Rules in the file, and the messages that one of them takes out of the midst of their queues.

Plain functions of a connection in a transaction, as queues.py has; their statements are in rules.sql.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence

from celeriac.brokers.sqlite.queues import Claim, lend, numbers
from celeriac.brokers.sqlite.statements import statements
from celeriac.model.rules import REVOKE, RULES_LIMIT, TOMBSTONE, Rule, RuleChange, RulesRead

__all__ = ["epoch", "page", "read", "withdraw", "write"]

SQL = statements("rules.sql")
#: All keys of revoked ids lie between these two.
_REVOKES = (REVOKE, f"{REVOKE[:-1]};")


def epoch(sqlite: sqlite3.Connection) -> int:
    """The epoch now; 0 while no rule was ever written."""
    return _epochs(sqlite)[0]


def _epochs(sqlite: sqlite3.Connection) -> tuple[int, int]:
    return sqlite.execute(SQL["epoch"]).fetchone() or (0, 0)


def write(sqlite: sqlite3.Connection, changes: Sequence[RuleChange], now: float) -> int:
    """See ``Rules.set_rules``."""
    last = epoch(sqlite)
    rows = []
    for change in changes:
        last = max(last + 1, int(now * 1000))
        life = TOMBSTONE if change.value is None else change.expires
        rows.append((change.key, change.value, None if life is None else now + life, last))
    if not rows:
        return last
    sqlite.execute(SQL["set_epoch"], (last,))
    sqlite.executemany(SQL["put"], rows)
    forgotten = sqlite.execute(SQL["forgotten"], (now,)).fetchone()[0]
    if forgotten is not None:
        sqlite.execute(SQL["set_floor"], (forgotten,))
    sqlite.execute(SQL["drop_expired"], (now,))
    surplus = sqlite.execute(SQL["surplus"], (*_REVOKES, RULES_LIMIT)).fetchone()
    if surplus is not None:
        sqlite.execute(SQL["drop_surplus"], (*_REVOKES, *surplus))
    return last


def read(sqlite: sqlite3.Connection, after: int, prefix: str = "") -> RulesRead:
    """See ``Rules.rules``; those whose keys begin with ``prefix``."""
    last, floor = _epochs(sqlite)
    complete = after < max(floor, 1) or after > last
    rows = sqlite.execute(SQL["in_force"]) if complete else sqlite.execute(SQL["changed"], (after,))
    return RulesRead(last, [Rule(*row) for row in rows if row[0].startswith(prefix)], complete)


def page(sqlite: sqlite3.Connection, queues: Sequence[str], after: int, limit: int) -> list[tuple[int, bytes]]:
    """Ids and texts of the next ``limit`` messages of these queues behind one."""
    return sqlite.execute(SQL["page"], (json.dumps(list(queues)), after, limit)).fetchall()


def withdraw(
    sqlite: sqlite3.Connection, ids: Sequence[int], claim: Callable[[], Claim]
) -> list[tuple[int, str, bytes]]:
    """Lend those of these messages that nobody holds: id, queue and envelope of each."""
    lanes: dict[tuple[str, int], list[int]] = {}
    for key, queue, level in sqlite.execute(SQL["lanes"], (numbers(ids),)):
        lanes.setdefault((queue, level), []).append(key)
    taken: list[int] = []
    for (queue, level), keys in lanes.items():
        left = set(keys)
        # The schedule is read through for each look: last, and only for those that are nowhere else.
        places = ("ready", (queue, level)), ("front", (queue, level)), ("parks", (queue,)), ("schedule", (queue,))
        for where, lane in places:
            if left:
                found = [row[0] for row in sqlite.execute(SQL[f"in_{where}"], (*lane, numbers(left)))]
                if found:
                    sqlite.execute(SQL[f"drop_from_{where}"], (*lane, numbers(found)))
                    left.difference_update(found)
                    taken += found
    return lend(sqlite, sorted(taken), claim())
