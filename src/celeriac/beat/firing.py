"""Sends one slot of an entry, or finds that somebody else has: the message and the entry's state are one step.

Where messages and ledger are one server that is one call: the message is published if the state is still the one that
was seen. On two servers it is three: the state says who is sending, the message goes out, the state says that it is
sent. A scheduler that dies in between leaves a state that says so, and whoever finds it sends the slot again; the
message carries a lock of the slot, so that of two messages only the last one runs (``worker/locks.py``).

Called by ``scheduler.py``. Blocking.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from celeriac.beat import making
from celeriac.beat.entry import Entry
from celeriac.beat.lazy import evaluated
from celeriac.beat.state import LIFE, State, running_key, slot_key, state_key
from celeriac.codec.envelope import new_id
from celeriac.exceptions import OperationalError
from celeriac.model.ledger import LOCK, LOCK_LIFE, Change, Lock, waiting_id
from celeriac.model.message import Message
from celeriac.ports import BlockingLedger, Publisher, Stepwise

__all__ = ["PATIENCE", "Fired", "Firing", "Shot", "Write"]

#: Seconds after which a slot that somebody was about to send, on two servers, is sent by another.
PATIENCE: Final = 3.0
#: Seconds for a step on two servers: who lives has given up before another begins.
_STEP: Final = 2.0
#: Seconds for which a slot's lock is kept beyond the time at which its message expires, and for one that never does.
_MARGIN: Final = 3600.0
_FOREVER: Final = 30 * 86400.0


class Fired(Enum):
    """What became of a slot."""

    SENT = "sent"
    #: Left out: the run before it goes on.
    LEFT = "left"
    #: The state was another one: somebody else has sent it.
    TAKEN = "taken"


class Shot(Struct, frozen=True, kw_only=True):
    """A slot that is to be sent, and the state of its entry as it was seen."""

    entry: Entry
    fingerprint: str
    slot: datetime
    #: When the entry is due next, as far as anybody knows.
    next: datetime | None
    seen: bytes | None
    state: State | None


class Write(Struct, kw_only=True):
    """One try, kept until it is known what became of it: ``after`` is the state that says that it was sent."""

    shot: Shot
    id: str
    messages: list[Message]
    after: State
    lock: Lock | None
    #: Of a try in steps: 0, claimed, published.
    steps: int = 0
    #: What stands under the key of the state, as far as this one knows.
    raw: bytes | None = None
    #: On two servers: the state that says who is sending.
    claim: bytes = b""


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

    def fire(self, shot: Shot, now: float) -> tuple[Fired, bytes | None]:
        """Send a slot; returns what became of it, and what now stands under the state's key.

        Raises ``OperationalError`` when nobody knows: called again with the same shot it goes on with the same try.
        Raises what making a message raises.
        """
        name = shot.entry.name
        write = self._open.pop(name, None)
        if write is None or write.shot.slot != shot.slot or write.shot.seen != shot.seen:
            if self._app.conf.task_always_eager and self._app.tasks.get(shot.entry.task) is not None:
                return self._run_here(shot, now)
            write = self._made(shot, now)
        self._open[name] = write
        fired, there = self._steps(write, now) if self.stepwise else self._at_once(write, now)
        del self._open[name]
        if fired is Fired.SENT:
            self._app.sender.announce(write.messages)
        else:
            making.drop(self._app, write.messages)
        return fired, there

    def forget(self, name: str) -> None:
        """The entry is another one now, or is gone: a try whose end is not known is not gone on with."""
        self._open.pop(name, None)

    # -- a try ---------------------------------------------------------------------------------------------------

    def _made(self, shot: Shot, now: float) -> Write:
        lock = self._lock(shot, now)
        headers = {} if lock is None else {LOCK: lock.header()}
        moment = datetime.fromtimestamp(now, UTC)
        messages = making.messages_of(self._app, shot.entry, shot.slot, moment, headers)
        task_id = messages[0].id if messages else ""
        after = State(
            slot=shot.slot,
            fingerprint=shot.fingerprint,
            id=task_id,
            at=round(now, 6),
            count=_count(shot),
            next=shot.next,
        )
        held = None if lock is None or not messages else replace(lock, holder=task_id)
        return Write(shot=shot, id=task_id, messages=messages, after=after, lock=held, raw=shot.seen)

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

    def _run_here(self, shot: Shot, now: float) -> tuple[Fired, bytes | None]:
        """``task_always_eager``: the body runs here and now, behind the state."""
        at, count = round(now, 6), _count(shot)
        fingerprint, own = shot.fingerprint, new_id()
        state = State(slot=shot.slot, fingerprint=fingerprint, id=own, at=at, count=count, next=shot.next)
        fired, there = self._keep(shot, state, Fired.SENT)
        if fired is Fired.SENT:
            moment = datetime.fromtimestamp(now, UTC)
            making.messages_of(self._app, shot.entry, shot.slot, moment, {}, task_id=own)
        return fired, there

    def _keep(self, shot: Shot, state: State, as_: Fired) -> tuple[Fired, bytes | None]:
        """Write the state alone."""
        raw, key = state.encode(), state_key(shot.entry.name)
        (made,) = self._ledger.change([Change(key, raw, shot.seen, LIFE)], timeout=self._timeout)
        if made:
            return as_, raw
        (there,) = self._ledger.read([key], timeout=self._timeout)
        return (as_ if there == raw else Fired.TAKEN), there

    def _left(self, write: Write, seen: bytes | None) -> tuple[Fired, bytes | None]:
        """The run before goes on: the slot is behind us."""
        before = write.shot.state
        state = replace(
            write.after,
            id=before.id if before is not None else "",
            at=before.at if before is not None else 0.0,
            count=write.after.count - 1,
        )
        return self._keep(replace(write.shot, seen=seen), state, Fired.LEFT)

    # -- one server ----------------------------------------------------------------------------------------------

    def _at_once(self, write: Write, now: float) -> tuple[Fired, bytes | None]:
        shot = write.shot
        if not write.messages:
            return self._keep(shot, write.after, Fired.SENT)
        raw = write.after.encode()
        changes = [Change(state_key(shot.entry.name), raw, shot.seen, LIFE), *self._takes(write, now)]
        there = self._publisher.publish_if(write.messages[0], changes, timeout=self._timeout)
        if there is None or there[0] == raw:
            if len(write.messages) > 1:
                self._publisher.publish(write.messages[1:], timeout=self._timeout)
            return Fired.SENT, raw
        if there[0] != shot.seen:
            return Fired.TAKEN, there[0]
        return self._left(write, shot.seen)

    # -- two servers ---------------------------------------------------------------------------------------------

    def _steps(self, write: Write, now: float) -> tuple[Fired, bytes | None]:
        shot = write.shot
        key, raw = state_key(shot.entry.name), write.after.encode()
        if write.steps == 0:
            ended = self._claim(write, now)
            if ended is not None:
                return ended
            write.steps = 1
        if write.steps == 1:
            if write.messages:
                try:
                    self._publisher.publish(write.messages, timeout=_STEP)
                except OperationalError as error:
                    if not error.uncertain:
                        raise
                    # It may be there. The next try is another task, whose message takes this one's lock.
                    return Fired.TAKEN, write.claim
            write.steps = 2
        (made,) = self._ledger.change([Change(key, raw, write.claim, LIFE)], timeout=_STEP)
        if made:
            return Fired.SENT, raw
        (there,) = self._ledger.read([key], timeout=_STEP)
        return (Fired.SENT if there == raw else Fired.TAKEN), there

    def _claim(self, write: Write, now: float) -> tuple[Fired, bytes | None] | None:
        """Say that this slot is being sent; None: it may be, else what became of it."""
        shot, lock = write.shot, write.lock
        key = state_key(shot.entry.name)
        taken_over = _is_taken_over(shot)
        expected: bytes | None = None
        if taken_over and lock is not None:
            assert shot.state is not None
            (value,) = self._ledger.read([lock.key], timeout=_STEP)
            holder, waits = waiting_id(value) if value is not None else ("", True)
            if holder != write.id and self._was_sent(lock, shot.state.id, holder, waits):
                before = replace(shot.state, sending=False, next=shot.next)
                fired, there = self._keep(shot, before, Fired.SENT)
                return (Fired.TAKEN if fired is Fired.SENT else fired), there
            if value is not None and not lock.kept and holder not in (shot.state.id, write.id):
                return self._left(write, shot.seen)  # the run of another slot
            expected = value
        write.claim = replace(write.after, sending=True).encode()
        changes = [Change(key, write.claim, shot.seen, LIFE), *self._takes(write, now, expected)]
        made = self._ledger.change(changes, timeout=_STEP)
        if all(made):
            return None
        there, *locks = self._ledger.read([each.key for each in changes], timeout=_STEP)
        if there != write.claim:
            if lock is not None and locks[0] == lock.waiting:
                # Taken in the moment in which the run of whoever was faster had freed it.
                self._ledger.change([Change(lock.key, None, lock.waiting)], timeout=_STEP)
            return Fired.TAKEN, there
        if lock is not None and locks[0] not in (lock.waiting, lock.started):
            return self._left(write, write.claim) if not lock.kept else (Fired.TAKEN, there)
        return None  # the answer of an earlier try was lost

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


def _count(shot: Shot) -> int:
    """Tasks sent when this one is."""
    before = shot.state.count if shot.state is not None else 0
    return before if _is_taken_over(shot) else before + 1
