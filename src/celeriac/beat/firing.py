"""Sends slots of entries, or finds that somebody else has: a message and its entry's state are one step.

Where messages and ledger are one server that is one call: a message is published if the state is still the one that
was seen. On two servers it is three: the state says who is sending, the message goes out, the state says that it is
sent. A scheduler that dies in between leaves a state that says so, and whoever finds it sends the slot again; the
message carries a lock of the slot, so that of two messages only the last one runs (``worker/locks.py``).

Many slots share the calls, and nothing else: each is sent, or not, for itself.

Called by ``scheduler.py``. Blocking.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from celeriac.beat import making
from celeriac.beat.entry import Entry
from celeriac.beat.lazy import evaluated
from celeriac.beat.state import LIFE, State, newer, running_key, slot_key, state_key, taking_key
from celeriac.codec.envelope import new_id
from celeriac.exceptions import CeleryError, OperationalError
from celeriac.model.ledger import LOCK, LOCK_LIFE, Change, Lock, waiting_id
from celeriac.model.message import Message
from celeriac.ports import BlockingLedger, EachPublisher, Publisher, Stepwise

__all__ = ["PATIENCE", "UNFIT", "Fired", "Firing", "Outcome", "Shot"]

#: Seconds after which a slot that somebody was about to send, on two servers, is sent by another.
PATIENCE: Final = 3.0
#: Seconds for a step on two servers: who lives has given up before another begins.
_STEP: Final = 2.0
#: Seconds for which a slot's lock is kept beyond the time at which its message expires, and for one that never does.
_MARGIN: Final = 3600.0
_FOREVER: Final = 30 * 86400.0
#: Seconds after which no further queue is tried when one has failed.
_PATIENT: Final = 2 * _STEP
#: By which the making of one message fails.
UNFIT: Final = (CeleryError, TypeError, ValueError, LookupError, AttributeError)


class Fired(Enum):
    """What became of a slot."""

    SENT = "sent"
    #: Left out: the run before it goes on.
    LEFT = "left"
    #: The state was another one: somebody else has sent it.
    TAKEN = "taken"


#: What became of a slot, and what now stands under the key of its entry's state.
Outcome: TypeAlias = tuple[Fired, bytes | None]


class Shot(Struct, frozen=True, kw_only=True):
    """A slot that is to be sent, and the state of its entry as it was seen."""

    entry: Entry
    fingerprint: str
    slot: datetime
    #: When the entry is due next, as far as anybody knows.
    next: datetime | None
    seen: bytes | None
    state: State | None


class Write(Struct, kw_only=True, eq=False):
    """One try, kept until it is known what became of it: ``after`` is the state that says that it was sent."""

    shot: Shot
    id: str
    messages: list[Message]
    after: State
    lock: Lock | None
    #: Of a try in steps: 0, claimed, published.
    steps: int = 0
    #: On two servers: the state that says who is sending.
    claim: bytes = b""
    #: Its message may be there, though another try is to follow.
    doubtful: bool = False
    #: What became of it.
    ended: Outcome | Exception | None = None

    @property
    def key(self) -> str:
        """Where its entry's state stands."""
        return state_key(self.shot.entry.name)


class Firing:
    """Sends slots through ``publisher``, with ``ledger`` on the server of the keys."""

    def __init__(self, app: Any, publisher: Publisher, ledger: BlockingLedger) -> None:
        self._app = app
        self._publisher = publisher
        self._ledger = ledger
        #: Several steps are needed: messages and keys are on two servers.
        self.stepwise = isinstance(publisher, Stepwise) and publisher.stepwise
        self._timeout: float = app.conf.seconds("broker_publish_timeout")
        #: Entry's name → a try whose end is not known.
        self._open: dict[str, Write] = {}

    def fire(self, shots: Sequence[Shot], now: float) -> list[Outcome | Exception]:
        """Send slots of different entries; for each what became of it, and what now stands under its state's key; or
        what its message failed by, while others did not.

        Raises ``OperationalError`` when nobody knows: called again with the same shots it goes on with the same tries.
        """
        made = [self._begun(shot, now) for shot in shots]
        writes = [each for each in made if isinstance(each, Write)]
        for write in writes:
            self._open[write.shot.entry.name] = write
        going = [write for write in writes if write.ended is None]
        if self.stepwise:
            self._steps(going, now)
        else:
            self._at_once(going, now)
        for write in writes:
            if isinstance(write.ended, tuple):
                del self._open[write.shot.entry.name]
                if write.ended[0] is Fired.SENT:
                    self._app.sender.announce(write.messages)
                elif not write.doubtful:
                    making.drop(self._app, write.messages)
        ended: list[Any] = [each.ended if isinstance(each, Write) else each for each in made]
        return ended

    def forget(self, name: str) -> None:
        """The entry is another one now, or is gone: a try whose end is not known is not gone on with."""
        self._open.pop(name, None)

    # -- a try ---------------------------------------------------------------------------------------------------

    def _begun(self, shot: Shot, now: float) -> Write | Outcome | Exception:
        """A new try, or one whose end is not known; what became of it where nothing has to be sent."""
        write = self._open.pop(shot.entry.name, None)
        try:
            if write is not None and write.shot.slot == shot.slot and write.shot.seen == shot.seen:
                return self._resumed(write, now)
            if self._app.conf.task_always_eager and self._app.tasks.get(shot.entry.task) is not None:
                return self._run_here(shot, now)
            return self._made(shot, now)
        except Exception as error:  # noqa: BLE001 - the user's functions, routers and receivers: others must not wait
            return error

    def _resumed(self, write: Write, now: float) -> Write:
        """The same try, under the same id. What is not known to be sent is made anew: it expires from now on, not since
        a server is away."""
        write.ended = None
        if write.steps < 2 and any(message.expires is not None for message in write.messages):
            shot, headers = write.shot, {} if write.lock is None else {LOCK: write.lock.header()}
            moment = datetime.fromtimestamp(now, UTC)
            write.messages = making.messages_of(self._app, shot.entry, shot.slot, moment, headers, task_id=write.id)
            write.steps = 0  # its lock lasts as long
        return write

    def _made(self, shot: Shot, now: float) -> Write:
        lock = self._lock(shot, now)
        headers = {} if lock is None else {LOCK: lock.header()}
        moment = datetime.fromtimestamp(now, UTC)
        messages = making.messages_of(self._app, shot.entry, shot.slot, moment, headers)
        task_id = messages[0].id if messages else ""
        after = _state(shot, task_id, now)
        held = None if lock is None or not messages else replace(lock, holder=task_id)
        return Write(shot=shot, id=task_id, messages=messages, after=after, lock=held)

    def _lock(self, shot: Shot, now: float) -> Lock | None:
        """The lock of a run: that of its unique task, that of its entry, or on two servers that of its slot."""
        entry = shot.entry
        task = self._app.tasks.get(entry.task)
        rule = getattr(task, "unique_rule", None)
        if rule is not None:
            args, kwargs = evaluated(entry.args, entry.kwargs)
            return Lock(rule.key(args, kwargs), "", rule.life, rule.until_start, sole=self.stepwise)
        if entry.overlap == "skip":
            return Lock(running_key(entry.name), "", LOCK_LIFE, sole=self.stepwise)
        if self.stepwise:
            life = making.lasts(self._app, entry, shot.slot, now)
            life = _FOREVER if life is None else life + _MARGIN
            return Lock(slot_key(entry.name, shot.slot), "", life, kept=True, sole=True)
        return None

    def _takes(self, write: Write, now: float, expected: bytes | None = None) -> list[Change]:
        """The change that takes the lock of a try."""
        lock = write.lock
        if lock is None:
            return []
        message = write.messages[0]
        if message.expires is None or lock.kept:
            life = lock.life + max(0.0, (message.due or 0.0) - now)
        else:
            life = max(1.0, message.expires - now)  # nobody takes it afterwards
        return [Change(lock.key, lock.waiting, expected, life)]

    def _run_here(self, shot: Shot, now: float) -> Outcome:
        """``task_always_eager``: the body runs here and now, behind the state."""
        own = new_id()
        state = _state(shot, own, now)
        write = Write(shot=shot, id=own, messages=[], after=state, lock=None)
        self._keep([(write, shot.seen, state, Fired.SENT)])
        assert isinstance(write.ended, tuple)
        if write.ended[0] is Fired.SENT:
            moment = datetime.fromtimestamp(now, UTC)
            making.messages_of(self._app, shot.entry, shot.slot, moment, {}, task_id=own)
        return write.ended

    def _keep(
        self,
        states: Sequence[tuple[Write, bytes | None, State, Fired]],
        further: Sequence[Change] = (),
        timeout: float | None = None,
    ) -> None:
        """End tries by writing a state, where another is expected: ``TAKEN`` where it was not. And ``further``."""
        if not states and not further:
            return
        limit = timeout or self._timeout
        changes = [Change(write.key, state.encode(), seen, LIFE) for write, seen, state, _ in states]
        made = self._ledger.change([*changes, *further], timeout=limit)[: len(changes)]
        missed = [change.key for change, done in zip(changes, made, strict=True) if not done]
        there = iter(self._ledger.read(missed, timeout=limit) if missed else ())
        for (write, _, _, as_), change, done in zip(states, changes, made, strict=True):
            found = change.value if done else next(there)
            write.ended = (as_ if found == change.value else Fired.TAKEN), found

    @staticmethod
    def _left(write: Write, seen: bytes | None) -> tuple[Write, bytes | None, State, Fired]:
        """The run before goes on: the slot is behind us."""
        before = write.shot.state
        state = replace(
            write.after,
            id=before.id if before is not None else "",
            at=before.at if before is not None else 0.0,
            count=write.after.count - 1,
        )
        return write, seen, state, Fired.LEFT

    # -- one server ----------------------------------------------------------------------------------------------

    def _at_once(self, writes: Sequence[Write], now: float) -> None:
        self._keep([(write, write.shot.seen, write.after, Fired.SENT) for write in writes if not write.messages])
        going = [write for write in writes if write.messages]
        sendings: list[tuple[Message, Sequence[Change]]] = [
            (
                write.messages[0],
                [Change(write.key, write.after.encode(), write.shot.seen, LIFE), *self._takes(write, now)],
            )
            for write in going
        ]
        left = []
        for write, (_, changes), there in zip(going, sendings, self._published(sendings), strict=True):
            raw = changes[0].value
            if isinstance(there, Exception):
                write.ended = there
            elif there is None or there[0] == raw:
                if len(write.messages) > 1:
                    self._publisher.publish(write.messages[1:], timeout=self._timeout)
                write.ended = Fired.SENT, raw
            elif there[0] != write.shot.seen:
                write.ended = Fired.TAKEN, there[0]
            else:
                left.append(self._left(write, write.shot.seen))
        self._keep(left)

    def _published(self, sendings: Sequence[tuple[Message, Sequence[Change]]]) -> Sequence[Any]:
        """The answers of ``publish_if`` to each, or by what it failed while others did not."""
        publisher = self._publisher
        if len(sendings) > 1 and isinstance(publisher, EachPublisher):
            try:
                return _unless_all(publisher.publish_each_if(sendings, timeout=self._timeout))
            except (TypeError, ValueError):  # one cannot be encoded, and nothing was done
                pass
            except OperationalError as error:
                if error.uncertain:
                    raise
        answers: list[Any] = []
        failure: OperationalError | None = None
        until = time.monotonic() + _PATIENT
        for message, changes in sendings:
            if failure is not None and (failure.uncertain or time.monotonic() >= until):
                answers.append(failure)
                continue
            try:
                answers.append(publisher.publish_if(message, changes, timeout=self._timeout))
            except OperationalError as error:
                failure = error
                answers.append(error)
            except (TypeError, ValueError) as error:
                answers.append(error)
        return _unless_all(answers)

    # -- two servers ---------------------------------------------------------------------------------------------

    def _steps(self, writes: Sequence[Write], now: float) -> None:
        self._claim([write for write in writes if write.steps == 0], now)
        self._send([write for write in writes if write.steps == 1 and write.ended is None])
        sent = [write for write in writes if write.steps == 2 and write.ended is None]
        known = [Change(taking_key(write.id), None) for write in sent if _is_noted(write)]
        self._keep([(write, write.claim, write.after, Fired.SENT) for write in sent], known, _STEP)

    def _send(self, writes: Sequence[Write]) -> None:
        """The second step, a call for each queue: what one of them refuses is nothing to the others."""
        groups: dict[tuple[str, ...], list[Write]] = {}
        for write in writes:
            groups.setdefault(tuple(message.queue for message in write.messages), []).append(write)
        failure: OperationalError | None = None
        until = time.monotonic() + _PATIENT
        for group in groups.values():
            if failure is None or time.monotonic() < until:
                failure = self._sent(group) or failure
        unsent = [write for write in writes if write.steps == 1 and write.ended is None]
        if failure is not None and len(unsent) == len(writes):
            raise failure
        for write in unsent:
            write.ended = failure

    def _sent(self, writes: Sequence[Write]) -> OperationalError | None:
        """Publish messages of one queue; returns why none of them is sent."""
        messages = [message for write in writes for message in write.messages]
        try:
            if messages:
                self._publisher.publish(messages, timeout=_STEP)
        except OperationalError as error:
            if error.uncertain:
                # They may be there. The next try is another task, whose message takes this one's lock.
                for write in writes:
                    write.ended, write.doubtful = (Fired.TAKEN, write.claim), True
            return error
        except (TypeError, ValueError) as error:  # one cannot be encoded, and nothing was sent
            if len(writes) == 1:
                writes[0].ended = error
                return None
            failures = [self._sent([write]) for write in writes]
            return next((each for each in failures if each is not None), None)
        for write in writes:
            write.steps = 2
        return None

    def _claim(self, writes: Sequence[Write], now: float) -> None:
        """The first step: say that these slots are being sent."""
        left: list[tuple[Write, bytes | None, State, Fired]] = []
        asked: list[tuple[Write, list[Change]]] = []
        for write in writes:
            expected: bytes | None = None
            if _is_taken_over(write.shot) and write.lock is not None:
                (expected,) = self._ledger.read([write.lock.key], timeout=_STEP)
                end = self._settled(write, expected)
                if end is not None:
                    left.append(end)
                    continue
            write.claim = replace(write.after, sending=True).encode()
            claim = Change(write.key, write.claim, write.shot.seen, LIFE)
            own = [claim, *self._takes(write, now, expected)]
            if _is_noted(write):
                own.append(Change(taking_key(write.id), b"1", expires=own[1].expires))
            asked.append((write, own))
        made = iter(self._ledger.change([each for _, own in asked for each in own], timeout=_STEP) if asked else ())
        unsure = [(write, own) for write, own in asked if not all([next(made) for _ in own])]
        keys = [each.key for _, own in unsure for each in own]
        found = iter(self._ledger.read(keys, timeout=_STEP) if keys else ())
        undone: list[Change] = []  # and what was noted of it
        for write, own in unsure:
            there, *locks = [next(found) for _ in own]
            lock = write.lock
            if there != write.claim:
                if lock is not None and locks[0] == lock.waiting:
                    # Taken in the moment in which the run of whoever was faster had freed it.
                    undone.append(Change(lock.key, None, lock.waiting))
                undone += [Change(each.key, None) for each in own[2:]]
                write.ended = Fired.TAKEN, there
            elif lock is not None and locks[0] not in (lock.waiting, lock.started):
                if lock.kept:
                    write.ended = Fired.TAKEN, there
                elif not self._takes_over(write, locks[0], own[1]):
                    left.append(self._left(write, write.claim))
                    undone += [Change(each.key, None) for each in own[2:]]
            elif lock is not None:  # the answer of an earlier try was lost, or its message expires later now
                undone.append(replace(own[1], expected=lock.waiting))
        self._keep(left, undone, _STEP)
        for write, _ in asked:
            if write.ended is None:
                write.steps = 1

    def _takes_over(self, write: Write, there: bytes | None, taking: Change) -> bool:
        """Take a lock of ``overlap="skip"`` from a scheduler that was killed after it took it and found that another
        had sent the slot. Its task was never sent: it is noted so, and the state names another as the last one. Who
        still lives there sends nothing either, and gives back only what is its own."""
        state = write.shot.state
        if there is None or state is None or state.sending or not _is_noted(write):
            return False
        holder, waits = waiting_id(there)
        if not waits or holder == state.id:
            return False
        (noted,) = self._ledger.read([taking_key(holder)], timeout=_STEP)
        if noted is None:
            return False
        (made, _) = self._ledger.change(
            [replace(taking, expected=there), Change(taking_key(holder), None)], timeout=_STEP
        )
        return made

    def _settled(self, write: Write, value: bytes | None) -> tuple[Write, bytes | None, State, Fired] | None:
        """The state by which a slot is ended that somebody else was about to send, and need not be sent."""
        shot, lock = write.shot, write.lock
        assert shot.state is not None
        assert lock is not None
        holder, waits = waiting_id(value) if value is not None else ("", True)
        if holder != write.id and self._was_sent(lock, shot.state.id, holder, waits):
            # Nothing is sent by this try: what is due behind it is worked out anew.
            return write, shot.seen, replace(shot.state, sending=False, next=shot.next), Fired.TAKEN
        if value is not None and not lock.kept and holder not in (shot.state.id, write.id):
            # The run of another slot, which the state that is taken over does not name.
            write.shot = replace(shot, state=replace(shot.state, id=holder))
            return self._left(write, shot.seen)
        return None

    @staticmethod
    def _was_sent(lock: Lock, before: str, holder: str, waits: bool) -> bool:
        """Whether the message of a scheduler that died was there: its task has begun, or has ended and freed the
        lock."""
        if lock.kept:
            return bool(holder) and not waits
        return not holder or (holder == before and not waits)


def _is_taken_over(shot: Shot) -> bool:
    """Somebody else was about to send this slot."""
    return shot.state is not None and shot.state.sending and shot.state.slot == shot.slot


def _is_noted(write: Write) -> bool:
    """It is noted that this try takes a lock, until its message is known to be sent."""
    return write.shot.entry.overlap == "skip" and write.lock is not None


def _unless_all(answers: Sequence[Any]) -> Sequence[Any]:
    """Raise the error by which all have failed: that is the server's."""
    if answers and all(isinstance(each, OperationalError) for each in answers):
        raise answers[0]
    return answers


def _state(shot: Shot, task_id: str, now: float) -> State:
    """Behind the sending of this one."""
    return State(
        slot=shot.slot,
        fingerprint=shot.fingerprint,
        id=task_id,
        at=round(now, 6),
        count=_count(shot),
        next=shot.next,
        since=_since(shot),
    )


def _since(shot: Shot) -> datetime | None:
    return newer(shot.entry.since, shot.state.since if shot.state is not None else None)


def _count(shot: Shot) -> int:
    """Tasks sent when this one is."""
    before = shot.state.count if shot.state is not None else 0
    return before if _is_taken_over(shot) else before + 1
