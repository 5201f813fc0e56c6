"""Sending dead letters again: their messages made anew, their results opened again, then one step in the broker.

Called by ``dead.py``; what a message becomes is ``codec/letters.py``'s.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from msgspec import Struct, structs

from celeriac import states
from celeriac.app.keyed import is_over
from celeriac.client.payloads import payloads_of
from celeriac.codec import letters
from celeriac.codec.letters import Edit, Letter
from celeriac.codec.redaction import hides
from celeriac.codec.reference import CONTENT_TYPE as REFERENCE
from celeriac.codec.results import decode_result, encode_result
from celeriac.codec.signing import seal, signer_of, unseal
from celeriac.exceptions import CeleryError, DecodeError, OperationalError, SecurityError
from celeriac.model.dead import Replay
from celeriac.model.ledger import LOCK, Change, lock_of, waiting_id
from celeriac.model.message import Malformed, Message
from celeriac.model.outcome import Embed
from celeriac.model.settle import StoredResult
from celeriac.ports import DeadLetters

__all__ = ["DeadLetterRefused", "Replays", "Skipped"]

#: Seconds that one step may take.
_TIMEOUT = 10.0
#: Between two looks somebody else may have taken a lock.
_TRIES = 10


class DeadLetterRefused(CeleryError, ValueError):
    """A dead letter that cannot be sent again like this."""


class Skipped(Struct, frozen=True):
    """A letter that was not sent again, and why."""

    letter: Letter
    why: str


class Replays:
    """Sends letters of one app again; ``skipped`` are those that could not be."""

    def __init__(self, app: Any, port: DeadLetters) -> None:
        self._app = app
        self._port = port
        self._accept = frozenset(app.conf.accept_content)
        self._max_bytes: int = app.conf.max_message_bytes
        self._signer = signer_of(app.conf)
        self._payloads = payloads_of(app.conf)
        self.skipped: list[Skipped] = []

    def send(self, batch: Sequence[Letter], edit: Edit, *, refuse: bool = False) -> list[str]:
        """Send letters again; returns the task ids of those that were. ``refuse``: raise ``DeadLetterRefused`` for one
        that cannot be, and send none. Raises ``QueueNotFound`` and ``TypeError`` for what ``edit`` asks."""
        if edit.queue is not None:
            self._app.sender.router.queues[edit.queue]  # raises where queues must be declared
        now = time.time()
        replays: dict[str, tuple[Letter, Replay]] = {}
        opened: dict[str, str] = {}
        #: Key of a letter → the ids of the results that it opens.
        ids: dict[str, list[str]] = {}
        for dead in batch:
            try:
                message = self._replayed(dead, edit, now)
            except DeadLetterRefused as error:
                if refuse:
                    raise
                self.skipped.append(Skipped(dead, str(error)))
                continue
            replays[dead.key] = dead, Replay(key=dead.key, message=message, change=_takes_lock(message, now))
            behind = letters.unborn(self._embed(message))
            ids[dead.key] = [dead.id, *behind]
            opened[dead.id] = states.RETRY
            for task_id in behind:
                opened.setdefault(task_id, states.PENDING)
        if not replays:
            return []
        before = self._open_results(opened)
        try:
            stayed = self._replay([replay for _, replay in replays.values()])
        except OperationalError as error:
            if not error.uncertain:
                self._close_results(before, ids, ids)
            raise
        sent = [dead.id for key, (dead, _) in replays.items() if key not in stayed]
        self._close_results(before, ids, stayed)
        for key, holder in stayed.items():
            dead = replays[key][0]
            why = "it is gone" if holder is None else f"an equal one, {holder}, waits or runs"
            if refuse and holder is not None:
                raise DeadLetterRefused(f"dead letter {key} is not sent again: {why}")
            self.skipped.append(Skipped(dead, why))
        return sent

    def _replay(self, replays: Sequence[Replay]) -> dict[str, str | None]:
        """Those that were not sent, by key, and who holds their locks; None: they are gone. A lock whose task is over
        is taken over."""
        stayed: dict[str, str | None] = {}
        left = {each.key: each for each in replays}
        for number in range(_TRIES):
            again: dict[str, Replay] = {}
            try:
                answers = self._port.replay([*left.values()], timeout=_TIMEOUT)
            except OperationalError as error:
                if number > 0 and not error.uncertain:
                    break  # others went before; these stay
                raise
            for each in answers:
                replay, holder = left.pop(each.key), None if each.gone else waiting_id(each.there or b"")[0]
                stayed[each.key] = holder
                mine = holder in ("", replay.message.id)
                if replay.change is not None and holder is not None and (mine or is_over(self._app, holder)):
                    change = structs.replace(replay.change, expected=each.there)
                    again[each.key] = structs.replace(replay, change=change)
            for key in left:
                stayed.pop(key, None)
            if not again:
                break
            left = again
        return stayed

    def body(self, dead: Letter) -> tuple[list[Any], dict[str, Any], Embed] | None:
        """Arguments and what follows; None when they cannot be decoded here."""
        message = letters.message_of(dead, max_bytes=self._max_bytes)
        return None if isinstance(message, Malformed) else self._arguments(message)

    def _arguments(self, message: Message) -> tuple[list[Any], dict[str, Any], Embed] | None:
        try:
            whole = self._whole(message)
        except CeleryError:
            return None  # its payload is lost or away
        return letters.arguments(whole, accept=self._accept, max_bytes=self._max_bytes)

    def _whole(self, message: Message) -> Message:
        """With its own body, where that lies in the payload store. Raises as ``Payloads.fetch``."""
        if message.content_type != REFERENCE or self._payloads is None:
            return message
        return self._payloads.fetch(message)

    def _embed(self, message: Message) -> Embed | None:
        found = self._arguments(message)
        return None if found is None else found[2]

    def _replayed(self, dead: Letter, edit: Edit, now: float) -> Message:
        message = letters.message_of(dead, max_bytes=self._max_bytes)
        if isinstance(message, Malformed):
            raise DeadLetterRefused(
                f"dead letter {dead.key} is no task message ({message.reason}): drop it, or send the task anew"
            )
        # Signing what came without a signature would make it trusted.
        if self._signer is not None and (why := self._signer.refusal(message)) is not None:
            raise DeadLetterRefused(
                f"dead letter {dead.key} is not to be trusted ({why}): drop it, or send the task anew"
            )
        if edit.changes_arguments:
            self._check(message, edit)
        try:
            if edit.changes_arguments:
                message = self._whole(message)
            hidden = hides(tuple(self._app.conf.redact_names))
            accept, max_bytes = self._accept, self._max_bytes
            message = letters.replayed(dead, message, edit, now=now, accept=accept, max_bytes=max_bytes, hidden=hidden)
        except CeleryError as error:
            raise DeadLetterRefused(f"dead letter {dead.key} cannot get other arguments: {error}") from error
        if edit.changes_arguments:
            message = self._locked_anew(message)
        return message if self._signer is None else self._signer.sign(message)

    def _check(self, message: Message, edit: Edit) -> None:
        """The new arguments against the signature, when the task is known here. Raises ``TypeError``."""
        check = getattr(self._app.tasks.get(message.task), "argument_check", None)
        old = self._arguments(message)
        if check is not None and old is not None:
            args, kwargs, _ = old
            check(*(args if edit.args is None else edit.args), **(kwargs if edit.kwargs is None else edit.kwargs))

    def _locked_anew(self, message: Message) -> Message:
        """Other arguments are equal to others: under the lock that is theirs, when the task is known here."""
        rule = getattr(self._app.tasks.get(message.task), "unique_rule", None)
        lock, made = lock_of(message), self._arguments(message)
        if rule is None or lock is None or made is None:
            return message
        header = structs.replace(lock, key=rule.key(made[0], made[1])).header()
        return structs.replace(message, headers={**message.headers, LOCK: header})

    def _open_results(self, opened: Mapping[str, str]) -> dict[str, StoredResult]:
        """Say of tasks that had failed that they go on, before their messages are there.

        Who asks now waits; and a worker that meets such a message twice does not take it for done. A stored success is
        not touched. If we die behind this step, the letters are still there. Returns what was stored before.
        """
        backend = self._app.backend
        if not backend.enabled or not backend.shared:
            return {}
        ids = list(opened)
        found = dict(zip(ids, backend.reader.get(ids, timeout=_TIMEOUT), strict=True))
        records = [self._open_again(task_id, opened[task_id], data) for task_id, data in found.items() if data]
        again = [record for record in records if record is not None]
        if again:
            backend.reader.put(again, timeout=_TIMEOUT)
        return {each.id: structs.replace(each, body=found[each.id] or b"") for each in again}

    def _close_results(
        self, before: Mapping[str, StoredResult], ids: Mapping[str, Sequence[str]], stayed: Collection[str]
    ) -> None:
        """Where a letter was not sent, results say again what they said: what had failed has failed."""
        going = {task_id for key in ids if key not in stayed for task_id in ids[key]}
        records = [record for task_id, record in before.items() if task_id not in going]
        if records:
            try:
                # Not as the end of a task: of one that somebody else has sent again, and that has succeeded, nothing
                # is lost.
                self._app.backend.reader.put(records, timeout=_TIMEOUT)
            except OperationalError:
                pass  # the letters are still there, and tell what has failed

    def _open_again(self, task_id: str, state: str, data: bytes) -> StoredResult | None:
        conf = self._app.conf
        accept, serializer = frozenset(conf.result_accept_content), conf.result_serializer
        try:
            data = unseal(self._signer, "result", task_id, data)
            old = decode_result(data, accept=accept, serializer=serializer)
        except (DecodeError, SecurityError):
            old = {"status": states.FAILURE, "result": None, "traceback": None}
        if old["status"] not in states.PROPAGATE_STATES:
            return None
        failed = state == states.RETRY
        body = encode_result(
            task_id=task_id,
            state=state,
            result=old["result"] if failed else None,
            traceback=old["traceback"] if failed else None,
            group_id=old.get("group_id"),
            parent_id=old.get("parent_id"),
            serializer=serializer,
        )
        body = seal(self._signer, "result", task_id, body)
        return StoredResult(task_id, body, False, conf.seconds("result_expires") or None)


def _takes_lock(message: Message, now: float) -> Change | None:
    """A unique task needs its lock again: it was freed when the task died."""
    lock = lock_of(message)
    if lock is None:
        return None
    wait = 0.0 if message.due is None else max(0.0, message.due - now)
    return Change(lock.key, lock.waiting, None, lock.life + wait)
