"""Values as columns of parameters: messages, results, changes, completions. Pure but for encoding messages.

Texts that UTF-8 or PostgreSQL cannot hold (lone surrogates, NUL) are escaped: one must not spoil a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from celeriac.codec import envelope
from celeriac.model.chord import NewChord, Part
from celeriac.model.ledger import ANY, Change
from celeriac.model.message import Delivery, Message
from celeriac.model.settle import Accept, Completion, DeadLetter, Hold, Release, StoredResult

__all__ = [
    "Columns",
    "as_new",
    "as_part",
    "change_columns",
    "clean",
    "completion",
    "json_text",
    "message_columns",
    "result_columns",
    "unpack",
]

Columns = tuple[list[Any], ...]
_encode = msgspec.json.Encoder().encode
_SUCCESS = (b'{"status":"SUCCESS"', b'{"status": "SUCCESS"')
#: The place of members without an index, and the farthest one of the others.
_NOWHERE = 2**63 - 1
_FARTHEST = 2**62
#: A longer number is none of ours.
_DIGITS = 18


def clean(text: str) -> str:
    """A text that PostgreSQL can hold."""
    if "\0" in text:
        text = text.replace("\0", "\\x00")
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def step(priority: int) -> int:
    """kombu's step of a priority: rounded down, within 0-9."""
    return min(9, max(0, priority)) // 3 * 3


def message_columns(messages: Iterable[Message]) -> Columns:
    """Queues, steps, dues, envelopes. Raises ``TypeError`` or ``ValueError`` for what cannot be encoded."""
    queues: list[str] = []
    steps: list[int] = []
    dues: list[float | None] = []
    envelopes: list[bytes] = []
    for each in messages:
        envelopes.append(envelope.encode(each))
        queues.append(clean(each.queue))
        steps.append(step(each.priority))
        dues.append(each.due)
    return queues, steps, dues, envelopes


def result_columns(results: Iterable[StoredResult | None]) -> Columns:
    """Ids, bodies, whether terminal, whether a success, lives; NULL for None."""
    columns: Columns = ([], [], [], [], [])
    ids, bodies, terminal, success, lives = columns
    for each in results:
        if each is None:
            for column in columns:
                column.append(None)
            continue
        ids.append(clean(each.id))
        bodies.append(each.body)
        terminal.append(each.terminal)
        success.append(each.body.startswith(_SUCCESS))
        lives.append(each.expires)
    return columns


def change_columns(changes: Sequence[Change]) -> Columns:
    """Keys, values, whether any value is allowed, values expected, lives."""
    return (
        [clean(each.key) for each in changes],
        [each.value for each in changes],
        [each.expected is ANY for each in changes],
        [None if each.expected is ANY else each.expected for each in changes],
        [each.expires for each in changes],
    )


def unpack(token: str) -> tuple[int, int]:
    """Claim and message id of a token; of a foreign token a pair that nobody holds."""
    found = token.rsplit(":", 2)
    if len(found) == 3 and all(part.isascii() and part.isdigit() and len(part) <= _DIGITS for part in found[1:]):
        return int(found[1]), int(found[2])
    return -1, -1


# ---------------------------------------------------------------- as JSON, for what is not on the hot path


def json_text(value: Any) -> str:
    """For a jsonb parameter; bytes become base64."""
    return _encode(value).decode()


def as_new(chord: NewChord) -> dict[str, Any]:
    """A chord that begins, as chords.sql wants it."""
    return {
        "id": clean(chord.id),
        "size": chord.size,
        "body": chord.body,
        "shape": chord.shape,
        "life": chord.expires,
    }


def as_part(part: Part) -> dict[str, Any]:
    """A member that has ended, as chords.sql wants it."""
    place = _NOWHERE if part.index is None else max(-_FARTHEST, min(part.index, _FARTHEST))
    return {
        "chord": clean(part.chord),
        "id": clean(part.id),
        "place": place,
        "value": part.value,
        "grows": part.grows,
        "body": part.body,
        "life": part.expires,
    }


def completion(each: Completion) -> dict[str, Any]:
    """One completion, as settling.sql wants it. Raises ``TypeError`` or ``ValueError`` for what cannot be encoded."""
    found: dict[str, Any] = {}
    settlement = each.settlement
    if settlement.delivery is not None:
        claim, key = unpack(settlement.delivery.token)
        found |= {"claim": claim, "id": key, "token": clean(settlement.delivery.token)}
    if not isinstance(settlement, Hold):
        found["end"] = _end(settlement)
    if each.publish:
        names = ("queue", "step", "due", "envelope")
        found["rows"] = [dict(zip(names, row, strict=True)) for row in zip(*message_columns(each.publish), strict=True)]
    results = [result for result in (each.result, *each.others) if result is not None]
    if results:
        names5 = ("id", "body", "terminal", "success", "life")
        found["results"] = [dict(zip(names5, row, strict=True)) for row in zip(*result_columns(results), strict=True)]
    if each.frees:
        found["frees"] = [
            {"key": clean(lock.key), "waiting": lock.waiting, "started": lock.started} for lock in each.frees
        ]
    if each.opens:
        found["opens"] = [as_new(chord) for chord in each.opens]
    if each.parts:
        found["parts"] = [as_part(part) for part in each.parts]
    if each.closes is not None:
        found["closes"] = {"chord": clean(each.closes.chord), "token": clean(each.closes.token)}
    return found


def _end(settlement: Accept | Release | DeadLetter) -> dict[str, Any]:
    if isinstance(settlement, Accept):
        return {"kind": "accept"}
    if isinstance(settlement, DeadLetter):
        return {"kind": "dead", **_letter(settlement, settlement.delivery)}
    marks = settlement.marks
    return {
        "kind": "release",
        "due": settlement.due,
        "back": settlement.back,
        "alone": (marks or settlement.delivery.marks).suspect,
        "envelope": None if marks is None else envelope.remark(settlement.delivery, marks),
    }


def _letter(letter: DeadLetter, delivery: Delivery) -> dict[str, Any]:
    return {
        "id": clean(delivery.message.id),
        "task": clean(delivery.message.task),
        "queue": clean(delivery.queue),
        "reason": letter.reason.value,
        "detail": clean(letter.detail),
        "exception": clean(letter.exception),
        "traceback": clean(letter.traceback),
        "worker": clean(letter.worker),
        "at": letter.at,
        "crashes": delivery.marks.crashes,
    }
