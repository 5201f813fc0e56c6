"""What the finish and publish scripts are told: completions and messages as keys and arguments. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from celeriac.brokers.redis.chords import Concerned, life, member, settings
from celeriac.brokers.redis.layout import Layout
from celeriac.brokers.redis.sockets import Word
from celeriac.codec import envelope
from celeriac.codec.json import encode_hook
from celeriac.model.ledger import Lock
from celeriac.model.message import Delivery, Malformed, Message
from celeriac.model.settle import Accept, Completion, DeadLetter, Hold, Release, Settlement, StoredResult
from celeriac.ports import DeadRecord

__all__ = ["Endings", "dead_record", "postings", "result_args"]


class Endings:
    """Collects completions for one run of the finish script.

    ``settle`` refuses as a whole (``strict``); ``finish`` leaves out what cannot be done.
    """

    def __init__(self, layout: Layout, *, strict: bool, now: float, chord_token: float = 0.0) -> None:
        self._layout = layout
        self._strict = strict
        self._chord_token = chord_token
        self._now = now
        #: Keys of results and of locks.
        self._results: list[str] = []
        self._lists: dict[str, int] = {}
        self._schedules: dict[str, int] = {}
        self._deaths = False
        self._args: list[Any] = []
        #: Where a number of a list or schedule stands, counted within its kind: keys are numbered when all are known.
        self._list_places: list[int] = []
        self._schedule_places: list[int] = []
        #: None as long as every delivery ends and no chord hears of it.
        self._concerned: Concerned | None = None

    def add(self, completion: Completion) -> None:
        """Add one. Raises ``TypeError`` or ``ValueError``, adding nothing, when it cannot be encoded."""
        settlement = completion.settlement
        kind = type(settlement)
        texts = [envelope.encode(message) for message in completion.publish] if completion.publish else ()
        back = b"" if kind is Accept else _text_back(settlement)
        args, result, others, frees = self._args, completion.result, completion.others, completion.frees
        actions = len(texts) + (result is not None) + len(others) + len(frees)
        actions += kind is not Accept and kind is not Hold
        if completion.parts or completion.opens or completion.closes is not None or kind is Hold:
            before, parts = self._chord_actions(completion)
            delivery = settlement.delivery
            args += ("" if delivery is None else delivery.token, actions + (len(before) + len(parts)) // 4)
            args += before
        else:
            parts = None
            args += (settlement.delivery.token, actions)  # type: ignore[union-attr]  # no Hold
        for message, text in zip(completion.publish, texts, strict=True):
            self._put(message.queue, message, text, "L", message.due)
        if result is not None:
            self._store(result)
        if others:
            for record in others:
                self._store(record)
        if frees:
            for lock in frees:
                self._free(lock)
        if parts is not None:
            args += parts
        if isinstance(settlement, Release):
            way = "L" if settlement.back else "R"
            self._put(settlement.delivery.queue, settlement.delivery.message, back, way, settlement.due)
        elif isinstance(settlement, DeadLetter):
            letter = f"{envelope.new_id()}:{settlement.delivery.queue}"
            self._deaths = True
            args += ("D", _score(settlement.at or self._now), letter, back)

    def _chord_actions(self, completion: Completion) -> tuple[list[Any], list[Any]]:
        """What a completion has to do with chords: what stands in front of its other actions, and its parts."""
        if self._concerned is None:
            self._concerned = Concerned(self._layout)
        number = self._concerned.number
        stays = type(completion.settlement) is Hold
        before: list[Any] = ["H", "stay" if stays else "end", "1" if completion.parts else "", ""]
        if completion.closes is not None:
            before += ("C", number(completion.closes.chord), completion.closes.token, "")
        for chord in completion.opens:
            before += ("O", number(chord.id), chord.size, life(chord.expires))
            before += ("o", number(chord.id), chord.body, chord.shape)
        parts: list[Any] = []
        for part in completion.parts:
            chord_number = self._concerned.part(part)
            parts += ("J" if part.body else "j", chord_number, member(part), part.value)
            if part.grows:
                parts += ("G", chord_number, part.grows, "")
        return before, parts

    def _store(self, result: StoredResult) -> None:
        self._results.append(self._layout.result(result.id))
        number = len(self._layout.fixed) + len(self._results)
        self._args += ("S" if result.terminal else "s", number, result.body, life(result.expires))

    def _free(self, lock: Lock) -> None:
        self._results.append(self._layout.ledger(lock.key))
        self._args += ("U", len(self._layout.fixed) + len(self._results), lock.waiting, lock.started)

    def _put(self, queue: str, message: Message | Malformed, text: bytes, way: str, due: float | None) -> None:
        args, layout = self._args, self._layout
        if due is not None and due > self._now:
            self._schedule_places.append(len(args) + 1)
            number = self._schedules.setdefault(queue, len(self._schedules))
            args += ("Z", number, _score(due), layout.scheduled(message, text))
        else:
            self._list_places.append(len(args) + 1)
            number = self._lists.setdefault(layout.ready(queue, message), len(self._lists))
            args += (way, number, text, "")

    def keys_and_args(self) -> tuple[list[str], list[Word]]:
        """What the script is called with."""
        layout, args = self._layout, self._args
        keys = [*layout.fixed, *self._results]
        first = len(keys) + 1
        for at in self._list_places:
            args[at] += first
        keys += self._lists
        first = len(keys) + 1
        for at in self._schedule_places:
            args[at] += first
        keys += map(layout.schedule, self._schedules)
        mode = "strict" if self._strict else "each"
        head: list[Word] = [len(self._lists), len(self._schedules), *self._schedules, mode, int(self._deaths)]
        concerned = self._concerned
        if concerned is None:
            return keys, [*head, "", *args]
        keys += (layout.chords, *concerned.keys())
        head += (len(concerned), *settings(layout, self._chord_token), *concerned.heads())
        return keys, [*head, *args]


def postings(
    layout: Layout, messages: Sequence[Message], *, schedule: bool, now: float = 0.0
) -> tuple[list[str], list[Word]]:
    """Keys and arguments of the publish script; with ``schedule`` what is due later than ``now`` waits there.

    Raises ``TypeError`` or ``ValueError`` when one cannot be encoded.
    """
    ready: dict[str, list[Word]] = {}
    later: dict[str, list[Word]] = {}
    for message in messages:
        text = envelope.encode(message)
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
        args += (result.body, life(result.expires), "1" if result.terminal else "0")
    return keys, args


def dead_record(key: str, text: bytes) -> DeadRecord:
    """A dead letter as it is read back; a record that somebody damaged shows what it is."""
    try:
        fields = msgspec.json.decode(text, type=dict[str, Any])
        fields["raw"] = base64.b64decode(fields.get("raw") or "")
        return msgspec.convert({**_BLANK, **fields, "key": key}, DeadRecord, builtin_types=(bytes,))
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        return DeadRecord(**{**_BLANK, "key": key, "detail": f"unreadable record: {error}", "raw": text})


_BLANK: dict[str, Any] = {
    "key": "", "id": "", "task": "", "queue": "", "reason": "", "detail": "", "exception": "", "traceback": "",
    "worker": "", "at": 0.0, "crashes": 0, "raw": b"",
}  # fmt: skip
_json_record = msgspec.json.Encoder(enc_hook=encode_hook).encode


def _score(due: float) -> str:
    return f"{due:.6f}"


def _text_back(settlement: Settlement | Hold) -> bytes:
    """What a settlement writes: the message again, or the record of its death."""
    if isinstance(settlement, Hold):
        return b""
    if isinstance(settlement, DeadLetter):
        return _record(settlement)
    if isinstance(settlement, Release) and settlement.marks is not None:
        return envelope.remark(settlement.delivery, settlement.marks)
    return _stored(settlement.delivery)


def _stored(delivery: Delivery) -> bytes:
    message = delivery.message
    return delivery.raw or (message.raw if isinstance(message, Malformed) else envelope.encode(message))


def _record(letter: DeadLetter) -> bytes:
    delivery = letter.delivery
    message = delivery.message
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
        "raw": base64.b64encode(_stored(delivery)).decode(),
    }
    try:
        return _json_record(fields)
    except (TypeError, ValueError):  # lone surrogates in a text
        return _json_record({k: _clean(v) if isinstance(v, str) else v for k, v in fields.items()})


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
