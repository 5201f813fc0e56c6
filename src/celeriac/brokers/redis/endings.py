"""What the finish and publish scripts are told: completions and messages as keys and arguments. Pure."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from celeriac.brokers.redis.layout import Layout
from celeriac.codec import envelope
from celeriac.codec.json import encode_hook
from celeriac.exceptions import EncodeError
from celeriac.model.message import Malformed, Message
from celeriac.model.settle import Completion, DeadLetter, Release, StoredResult
from celeriac.ports import DeadRecord

__all__ = ["dead_record", "encoded", "endings", "postings", "result_args"]

Word = str | bytes | int | float


class _Keys:
    """Gives each key a number in KEYS; lists first, then schedules, then results."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.lists: dict[str, int] = {}
        self.schedules: dict[str, int] = {}
        self.results: list[str] = []


# In the arguments a key is first a (kind, position) pair: its number is known when all keys are.
_LIST, _SCHEDULE, _RESULT = 0, 1, 2


def endings(layout: Layout, completions: Sequence[Completion], *, strict: bool) -> tuple[list[str], list[Word]]:
    """Keys and arguments of the finish script."""
    keys = _Keys(layout)
    args: list[Any] = []
    places: list[tuple[int, int]] = []  # where in args a key number belongs, and of which kind it is
    now = time.time()
    for completion in completions:
        settlement = completion.settlement
        args.append(settlement.delivery.token)
        count_at = len(args)
        args.append(0)
        actions = 0
        for message in completion.publish:
            _post(keys, args, places, message, now)
            actions += 1
        result = completion.result
        if result is not None:
            places.append((len(args) + 1, _RESULT))
            args += ("S" if result.terminal else "s", len(keys.results), result.body, seconds(result.expires))
            keys.results.append(layout.result(result.id))
            actions += 1
        if isinstance(settlement, Release):
            _release(keys, args, places, settlement, now)
            actions += 1
        elif isinstance(settlement, DeadLetter):
            args += ("D", 0, f"{envelope.new_id()}:{settlement.delivery.queue}", _record(settlement))
            actions += 1
        args[count_at] = actions
    lists, schedules = len(keys.lists), len(keys.schedules)
    start = (len(layout.fixed) + 1, len(layout.fixed) + 1 + lists, len(layout.fixed) + 1 + lists + schedules)
    for at, kind in places:
        args[at] += start[kind]
    head = [lists, schedules, *keys.schedules, "strict" if strict else "each"]
    all_keys = [*layout.fixed, *keys.lists, *map(layout.schedule, keys.schedules), *keys.results]
    return all_keys, head + args


def postings(layout: Layout, messages: Sequence[Message], *, schedule: bool) -> tuple[list[str], list[Word]]:
    """Keys and arguments of the publish script."""
    now = time.time()
    ready: dict[str, list[Word]] = {}
    later: dict[str, list[Word]] = {}
    for message in messages:
        text = encoded(message)
        if schedule and message.due is not None and message.due > now:
            later.setdefault(message.queue, []).extend((_score(message.due), layout.scheduled(message, text)))
        else:
            ready.setdefault(layout.ready(message.queue, message), []).append(text)
    args: list[Word] = [len(ready), len(later), *later]
    for texts in ready.values():
        args.append(len(texts))
        args += texts
    for members in later.values():
        args.append(len(members) // 2)
        args += members
    return [layout.schedules, *ready, *map(layout.schedule, later)], args


def result_args(layout: Layout, results: Iterable[StoredResult]) -> tuple[list[str], list[Word]]:
    """Keys and arguments of the store script."""
    keys: list[str] = []
    args: list[Word] = []
    for result in results:
        keys.append(layout.result(result.id))
        args += (result.body, seconds(result.expires), "1" if result.terminal else "0")
    return keys, args


def encoded(message: Message) -> bytes:
    """The envelope of a message. Raises ``EncodeError`` naming the task."""
    try:
        return envelope.encode(message)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EncodeError(f"the headers of task {message.task!r} cannot be written as JSON: {error}") from error


def dead_record(key: str, text: bytes) -> DeadRecord:
    """A dead letter as it is read back; a record that somebody damaged shows what it is."""
    try:
        fields = msgspec.json.decode(text, type=dict[str, Any])
        fields["raw"] = base64.b64decode(fields.get("raw") or "")
        return msgspec.convert({**_BLANK, **fields, "key": key}, DeadRecord, builtin_types=(bytes,))
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        return DeadRecord(**{**_BLANK, "key": key, "detail": f"unreadable record: {error}", "raw": text})


def seconds(life: float | None) -> Word:
    """A life time for SET EX: whole seconds, at least one; "" for ever."""
    return "" if life is None else max(1, round(life))


_BLANK: dict[str, Any] = {
    "key": "", "id": "", "task": "", "queue": "", "reason": "", "detail": "", "exception": "", "traceback": "",
    "worker": "", "at": 0.0, "crashes": 0, "raw": b"",
}  # fmt: skip
_json_record = msgspec.json.Encoder(enc_hook=encode_hook).encode


def _score(due: float) -> str:
    return f"{due:.6f}"


def _post(keys: _Keys, args: list[Any], places: list[tuple[int, int]], message: Message, now: float) -> None:
    text = encoded(message)
    if message.due is not None and message.due > now:
        places.append((len(args) + 1, _SCHEDULE))
        number = keys.schedules.setdefault(message.queue, len(keys.schedules))
        args += ("Z", number, _score(message.due), keys.layout.scheduled(message, text))
    else:
        places.append((len(args) + 1, _LIST))
        number = keys.lists.setdefault(keys.layout.ready(message.queue, message), len(keys.lists))
        args += ("L", number, text, "")


def _release(keys: _Keys, args: list[Any], places: list[tuple[int, int]], release: Release, now: float) -> None:
    delivery = release.delivery
    message = delivery.message
    if release.marks is not None:
        text = envelope.remark(delivery, release.marks)
    else:
        text = delivery.raw or (message.raw if isinstance(message, Malformed) else encoded(message))
    if release.due is not None and release.due > now:
        places.append((len(args) + 1, _SCHEDULE))
        number = keys.schedules.setdefault(delivery.queue, len(keys.schedules))
        args += ("Z", number, _score(release.due), keys.layout.scheduled(message, text))
    else:
        places.append((len(args) + 1, _LIST))
        number = keys.lists.setdefault(keys.layout.ready(delivery.queue, message), len(keys.lists))
        args += ("L" if release.back else "R", number, text, "")


def _record(letter: DeadLetter) -> bytes:
    delivery = letter.delivery
    message = delivery.message
    raw = delivery.raw or (message.raw if isinstance(message, Malformed) else encoded(message))
    fields = {
        "id": message.id,
        "task": message.task,
        "queue": delivery.queue,
        "reason": str(letter.reason),
        "detail": letter.detail,
        "exception": letter.exception,
        "traceback": letter.traceback,
        "worker": letter.worker,
        "at": letter.at,
        "crashes": delivery.marks.crashes,
        "raw": base64.b64encode(raw).decode(),
    }
    try:
        return _json_record(fields)
    except (TypeError, ValueError):  # lone surrogates in a text
        return _json_record({k: _clean(v) if isinstance(v, str) else v for k, v in fields.items()})


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
