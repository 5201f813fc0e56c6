"""What follows from an attempt: the one place that decides.

``plan`` is pure: time and randomness come in, nothing is read or written. The runner calls it on the task's thread,
the fetcher for deliveries that are not run, the agent for those of a dead child; the runner turns the plan into bytes
and the completer writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, structs
from msgspec.structs import replace

from celeriac import states
from celeriac.exceptions import (
    NotRegistered,
    Reject,
    SecurityError,
    TaskRevokedError,
    TimeLimitExceeded,
    WorkerLostError,
)
from celeriac.model import outcome as o
from celeriac.model.ledger import LOCK, Lock, lock_of
from celeriac.model.message import Delivery, Malformed, Marks
from celeriac.model.options import TaskOptions
from celeriac.model.outcome import Embed
from celeriac.model.settle import Accept, DeadLetter, DeadReason, Release, Settlement
from celeriac.model.workflow import Abandoned, Join, abandoned, joins_of

__all__ = ["UNKNOWN_TASK_RETRY", "Plan", "Send", "exhausted", "plan"]

#: Seconds between two offers of a message whose task no worker knew.
UNKNOWN_TASK_RETRY = 5.0

_NO_OPTIONS: Mapping[str, Any] = {}


class Send(Struct, frozen=True):
    """A signature to be sent: ``signature.apply_async(args, **options)``."""

    signature: Any
    args: tuple[Any, ...] = ()
    options: Mapping[str, Any] = _NO_OPTIONS


class Plan(Struct, frozen=True, kw_only=True, gc=False):
    """Everything that follows from one attempt.

    ``state`` is what to store, with ``value`` (a result, or the exception); None: nothing is stored. ``event`` is the
    type of the event to emit, without the ``task-`` in front.
    """

    settlement: Settlement
    state: str | None = None
    value: Any = None
    traceback: str | None = None
    sends: tuple[Send, ...] = ()
    event: str | None = None
    #: What chords are told.
    joins: tuple[Join, ...] = ()
    #: Tasks that will never run because of this end. They are stored with ``value`` in the state ``ends``, whether or
    #: not this one stores its own.
    abandoned: tuple[Abandoned, ...] = ()
    ends: str = ""
    #: Locks of the task, when this is its end.
    frees: tuple[Lock, ...] = ()


def plan(
    delivery: Delivery,
    outcome: o.Outcome,
    options: TaskOptions,
    now: float,
    rand: float,
    embed: Embed | None = None,
    worker: str = "",
    park: float = 60.0,
) -> Plan:
    """Decide what follows from ``outcome``.

    ``now`` in seconds since the epoch, ``rand`` in [0, 1), ``embed`` the follow-ups that the message carries (None: the
    body was not decoded), ``worker`` the node's name for dead letters, ``park`` how long an unknown task waits for a
    worker that knows it, in seconds. Raises nothing.
    """
    if type(outcome) is o.Success:
        return _succeeded(delivery, outcome, options, embed)
    context = _Context(delivery=delivery, options=options, now=now, embed=embed, worker=worker, park=park)
    decided: Plan = _DECIDE[type(outcome)](context, outcome)
    lock = lock_of(delivery.message)
    if lock is None or lock.kept or not _is_over(outcome, decided):
        return decided
    return replace(decided, frees=(lock,))


def _is_over(outcome: o.Outcome, decided: Plan) -> bool:
    """No attempt and no other task goes on under this id."""
    match outcome:
        case o.RetryAsked() | o.Ignored(replaced=True) | o.Unsigned():  # a stranger names somebody else's lock
            return False
        case o.Repeated(state=state):
            return state in states.READY_STATES
        case _:
            return not isinstance(decided.settlement, Release)


class _Context(Struct, frozen=True, kw_only=True):
    delivery: Delivery
    options: TaskOptions
    now: float
    embed: Embed | None
    worker: str
    park: float

    def ends_workflow(self, state: str, exc: BaseException) -> tuple[tuple[Abandoned, ...], tuple[Join, ...]]:
        """The steps behind this one, which will never run, and what chords are told."""
        message, embed = self.delivery.message, self.embed
        if embed is None and isinstance(message, Malformed):
            return (), ()
        behind = abandoned(embed.chain) if embed is not None and embed.chain else ()
        return behind, joins_of(message, embed, state, exc, behind)

    def dead(self, reason: DeadReason, detail: str, exc: BaseException | None = None, tb: str = "") -> DeadLetter:
        return DeadLetter(
            delivery=self.delivery,
            reason=reason,
            detail=" ".join(detail.splitlines()),
            exception="" if exc is None else _describe(exc),
            traceback=tb,
            worker=self.worker,
            at=self.now,
        )


def _succeeded(delivery: Delivery, outcome: o.Success, options: TaskOptions, embed: Embed | None) -> Plan:
    message = delivery.message
    stored = not (options.ignore_result or _ignores(message))
    locked = not isinstance(message, Malformed) and LOCK in message.headers and lock_of(message)
    return Plan(
        settlement=Accept(delivery),
        state=states.SUCCESS if stored else None,
        value=outcome.value,
        sends=_follow_ups(delivery, outcome.value, embed) if embed is not None else (),
        event="succeeded",
        joins=joins_of(message, embed, states.SUCCESS, outcome.value) if embed is not None and embed.chord else (),
        frees=(locked,) if locked and not locked.kept else (),
    )


def _follow_ups(delivery: Delivery, value: Any, embed: Embed) -> tuple[Send, ...]:
    """Callbacks first, then the next step of the chain, each called with the result (celery-wire §3.1)."""
    message = delivery.message
    if isinstance(message, Malformed) or not (embed.callbacks or embed.chain):
        return ()
    lineage = {"parent_id": message.id, "root_id": message.headers.get("root_id") or message.id}
    if message.headers.get("priority") is not None or message.priority:
        lineage = {**lineage, "priority": message.priority}
    sends = [Send(callback, (value,), lineage) for callback in embed.callbacks or ()]
    if embed.chain:
        *rest, following = embed.chain
        sends.append(Send(following, (value,), {**lineage, "chain": rest} if rest else lineage))
    return tuple(sends)


def _failed(context: _Context, outcome: o.Failure) -> Plan:
    return _failure(context, outcome.exc, outcome.traceback, DeadReason.FAILED, _describe(outcome.exc))


def _failure(context: _Context, exc: BaseException, traceback: str, reason: DeadReason, detail: str) -> Plan:
    """A final failure: stored, told to the errbacks, kept in the dead letters unless it was expected (``throws``)."""
    options, delivery = context.options, context.delivery
    expected = bool(options.throws) and isinstance(exc, options.throws) and reason is DeadReason.FAILED
    ignored = options.ignore_result or _ignores(delivery.message)
    stored = (not ignored or options.store_errors_even_if_ignored) and not isinstance(delivery.message, Malformed)
    behind, joins = context.ends_workflow(states.FAILURE, exc)
    return Plan(
        settlement=Accept(delivery) if expected else context.dead(reason, detail, exc, traceback),
        state=states.FAILURE if stored else None,
        value=exc,
        traceback=traceback or None,
        sends=_errbacks(context),
        event="failed",
        joins=joins,
        abandoned=behind,
        ends=states.FAILURE,
    )


def _errbacks(context: _Context) -> tuple[Send, ...]:
    message, embed = context.delivery.message, context.embed
    if embed is None or not embed.errbacks or isinstance(message, Malformed):
        return ()
    lineage = {"parent_id": message.id, "root_id": message.headers.get("root_id") or message.id}
    return tuple(Send(errback, (message.id,), lineage) for errback in embed.errbacks)


def _retried(context: _Context, outcome: o.RetryAsked) -> Plan:
    stored = not (context.options.ignore_result or _ignores(context.delivery.message))
    return Plan(
        settlement=Accept(context.delivery),
        state=states.RETRY if stored else None,
        value=outcome.exc,
        traceback=outcome.traceback or None,
        sends=(Send(outcome.send),),
        event="retried",
    )


def _ignored(context: _Context, outcome: o.Ignored) -> Plan:
    """The task stores nothing; who waits for what is behind it, or for the chord it was part of, must hear of it."""
    if outcome.replaced:
        return Plan(settlement=Accept(context.delivery))
    exc = TaskRevokedError("ignored")
    behind, joins = context.ends_workflow(states.REVOKED, exc)
    return Plan(settlement=Accept(context.delivery), value=exc, joins=joins, abandoned=behind, ends=states.REVOKED)


def _rejected(context: _Context, outcome: o.Rejected) -> Plan:
    if outcome.requeue:
        return Plan(settlement=Release(context.delivery, back=True), event="rejected")
    options, exc = context.options, Reject(outcome.reason, False)
    stored = not (options.ignore_result or _ignores(context.delivery.message)) or options.store_errors_even_if_ignored
    behind, joins = context.ends_workflow(states.FAILURE, exc)
    return Plan(
        settlement=context.dead(DeadReason.REJECTED, f"rejected by the task: {outcome.reason}", exc),
        # It will not run again, so whoever waits for its result must hear of it.
        state=states.FAILURE if stored else None,
        value=exc,
        event="rejected",
        joins=joins,
        abandoned=behind,
        ends=states.FAILURE,
    )


def _revoked(context: _Context, outcome: o.Revoked) -> Plan:
    stored = not (context.options.ignore_result or _ignores(context.delivery.message))
    exc = TaskRevokedError(str(outcome))
    behind, joins = context.ends_workflow(states.REVOKED, exc)
    return Plan(
        settlement=Accept(context.delivery),
        state=states.REVOKED if stored else None,
        value=exc,
        event="revoked",
        joins=joins,
        abandoned=behind,
        ends=states.REVOKED,
    )


def _timed_out(context: _Context, outcome: o.TimedOut) -> Plan:
    exc = TimeLimitExceeded(outcome.limit)
    return _failure(context, exc, "", DeadReason.TIME_LIMIT, f"ran longer than its time limit of {outcome.limit:g} s")


def _crashed(context: _Context, outcome: o.Crashed) -> Plan:
    """Back to ready until the cap, then a failure: a task that kills its process must not do so for ever."""
    delivery, marks = context.delivery, context.delivery.marks
    crashes = marks.crashes + 1
    # It has started: its next start waits for a time of its own.
    counted = replace(marks, crashes=crashes, suspect=True, parked_until=None, reserved=False)
    if crashes < context.options.max_crashes:
        return Plan(settlement=Release(delivery, marks=counted))
    context = structs.replace(context, delivery=structs.replace(delivery, marks=counted))
    detail = f"its worker process died {crashes} times while it ran, last by {outcome.how}"
    return _failure(context, WorkerLostError(f"Worker exited prematurely: {detail}"), "", DeadReason.CRASHED, detail)


def exhausted(marks: Marks, options: TaskOptions) -> bool:
    """Whether a message was lost so often that it must not run again: with whole nodes, or renewed by nobody."""
    most = options.max_expired_leases
    return marks.crashes >= options.max_crashes or (most is not None and marks.expired_leases >= most)


def _lost(context: _Context, outcome: o.Lost) -> Plan:
    marks = context.delivery.marks
    if marks.crashes >= context.options.max_crashes:
        reason, detail = DeadReason.CRASHED, f"its node was lost {marks.crashes} times while it ran alone"
    else:
        reason, detail = DeadReason.LEASE_EXPIRED, f"its lease ran out {marks.expired_leases} times"
    return _failure(context, WorkerLostError(f"Worker lost: {detail}"), "", reason, detail)


def _unknown(context: _Context, outcome: o.Unknown) -> Plan:
    delivery, message = context.delivery, context.delivery.message
    marks, task = delivery.marks, message.task
    until = context.now + context.park
    if marks.parked_until is not None:
        # Never longer than our own clock would park it: that of whoever wrote the mark may be ahead.
        until = min(until, marks.parked_until)
    if context.now < until:
        parked = replace(marks, parked_until=until)
        due = min(until, context.now + UNKNOWN_TASK_RETRY)
        # To the back where the broker's clock is ahead of ours: at the front it would keep all others waiting.
        return Plan(settlement=Release(delivery, due=due, marks=parked, back=True))
    detail = f"no worker knows the task '{task}'; is its module in `include` or found by autodiscover_tasks()?"
    return _failure(context, NotRegistered(task), "", DeadReason.UNKNOWN_TASK, detail)


def _discarded(context: _Context, outcome: o.Discarded) -> Plan:
    reason = DeadReason.MALFORMED if isinstance(context.delivery.message, Malformed) else DeadReason.REFUSED
    return _failure(context, outcome.exc, "", reason, outcome.reason)


def _unsigned(context: _Context, outcome: o.Unsigned) -> Plan:
    """Kept for the operator, nothing else: a record, a join or an event would say of a task what a stranger said."""
    return Plan(settlement=context.dead(DeadReason.REFUSED, outcome.reason, SecurityError(outcome.reason)))


def _repeated(context: _Context, outcome: o.Repeated) -> Plan:
    """Done by an earlier delivery, which may have died before it told the chord: told again, it counts once."""
    delivery = context.delivery
    if outcome.state is None or outcome.state == states.RETRY:
        return Plan(settlement=Accept(delivery))
    behind = abandoned(context.embed.chain) if context.embed and outcome.state != states.SUCCESS else ()
    joins = joins_of(delivery.message, context.embed, outcome.state, outcome.result, behind)
    unsettled = outcome.apart and outcome.state == states.FAILURE
    settlement = _failed_before(context, outcome.result) if unsettled else Accept(delivery)
    return Plan(settlement=settlement, joins=joins)


#: The stored exception → why its message lies in the dead letters; any other one failed.
_REASONS = {
    "WorkerLostError": DeadReason.CRASHED,
    "TimeLimitExceeded": DeadReason.TIME_LIMIT,
    "NotRegistered": DeadReason.UNKNOWN_TASK,
}


def _failed_before(context: _Context, stored: Any) -> Accept | DeadLetter:
    """Whoever stored the failure may have died before it wrote the dead letter, where these are two steps: rather a
    second letter than none. Of the exception only the names are known (celery-wire §3.5)."""
    told: Mapping[str, Any] = stored if isinstance(stored, Mapping) else {}  # anybody may have written it
    name, values = str(told.get("exc_type") or ""), told.get("exc_message")
    text = "".join(f": {value}" for value in values[:1]) if isinstance(values, list) else ""
    if name in {cls.__qualname__ for cls in context.options.throws or ()}:
        return Accept(context.delivery)
    reason = _REASONS.get(name, DeadReason.FAILED)
    letter = context.dead(reason, "it failed before, and its message came back")
    return replace(letter, exception=name + text)


def _unstarted(context: _Context, outcome: o.Unstarted) -> Plan:
    delivery, marks = context.delivery, context.delivery.marks
    if not (outcome.suspect or outcome.orphaned):
        return Plan(settlement=Release(delivery))
    if not outcome.suspect or marks.suspect:
        return Plan(settlement=Release(delivery, marks=marks))
    return Plan(settlement=Release(delivery, marks=replace(marks, suspect=True)))


def _postponed(context: _Context, outcome: o.Postponed) -> Plan:
    delivery, marks = context.delivery, None
    if outcome.crashed:
        marks = replace(delivery.marks, crashes=delivery.marks.crashes + 1, suspect=True)
    return Plan(settlement=Release(delivery, due=context.now + outcome.seconds, marks=marks))


def _ignores(message: Any) -> bool:
    return isinstance(message, Malformed) or message.headers.get("ignore_result") is True


def _describe(exc: BaseException) -> str:
    try:
        return f"{type(exc).__name__}: {exc}"
    except Exception:  # noqa: BLE001 - a user's __str__ may raise
        return type(exc).__name__


_DECIDE: Mapping[type[Any], Any] = {
    o.Failure: _failed,
    o.RetryAsked: _retried,
    o.Ignored: _ignored,
    o.Rejected: _rejected,
    o.Revoked: _revoked,
    o.TimedOut: _timed_out,
    o.Crashed: _crashed,
    o.Lost: _lost,
    o.Unknown: _unknown,
    o.Discarded: _discarded,
    o.Unsigned: _unsigned,
    o.Repeated: _repeated,
    o.Unstarted: _unstarted,
    o.Postponed: _postponed,
}
