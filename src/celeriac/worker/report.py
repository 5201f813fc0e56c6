"""What the outside hears of a task: log lines in Celery's shape, events, and the signals of tasks that did not run.

Called on the task's thread for every task, so each part costs nothing while nobody listens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celeriac import signals
from celeriac.codec.escape import block, one_line
from celeriac.codec.redaction import hides, redacted
from celeriac.codec.saferepr import saferepr
from celeriac.model import outcome as o
from celeriac.model.message import Delivery, Malformed, Message
from celeriac.model.plan import Plan
from celeriac.model.settle import DeadLetter, Release
from celeriac.worker.options import NodeOptions

__all__ = ["Report"]

_received = logging.getLogger("celery.worker.strategy")
_traced = logging.getLogger("celery.app.trace")
_RESULT_LENGTH = 1024


class Report:
    """Reports of one child. ``emit(type, fields)`` takes events while ``events`` is on."""

    def __init__(
        self, *, log_arguments: bool = False, log_results: bool = False, redact_names: tuple[str, ...] = ()
    ) -> None:
        self.events = False
        self.emit: Callable[[str, dict[str, Any]], None] | None = None
        self._log_arguments = log_arguments
        self._log_results = log_results
        self._names = redact_names
        self._hidden = hides(redact_names)
        self.refresh()

    @classmethod
    def of(cls, options: NodeOptions) -> Report:
        """As the node's options say."""
        return cls(
            log_arguments=options.log_arguments, log_results=options.log_results, redact_names=options.redact_names
        )

    def refresh(self) -> None:
        """Read the levels of the loggers again."""
        self._info = _traced.isEnabledFor(logging.INFO)
        self._info_received = _received.isEnabledFor(logging.INFO)

    def received(self, message: Message, request: Any) -> None:
        """A task is about to run."""
        if self._info_received:
            shown = ""
            if self._log_arguments:
                args, kwargs = self._arguments(message)
                shown = f" args={one_line(args)} kwargs={one_line(kwargs)}"
            _received.info("Task %s[%s] received%s", one_line(_name(message)), one_line(message.id), shown)
        if signals.task_received.receivers:
            signals.task_received.send(sender=None, request=request)
        if self.events and self.emit is not None:
            headers = message.headers
            args, kwargs = self._arguments(message)
            fields = {
                "uuid": message.id,
                "name": message.task,
                "args": args,
                "kwargs": kwargs,
                "root_id": headers.get("root_id"),
                "parent_id": headers.get("parent_id"),
                "retries": message.retries,
                "eta": headers.get("eta"),
                "expires": headers.get("expires"),
            }
            self.emit("task-received", fields)
            self.emit("task-started", {"uuid": message.id})

    def _arguments(self, message: Message) -> tuple[str, str]:
        """As the sender has shown them, who may have been anybody."""
        get, names = message.headers.get, self._names
        return redacted(str(get("argsrepr") or ""), names), redacted(str(get("kwargsrepr") or ""), names)

    def _result(self, value: Any) -> str:
        return saferepr(value, _RESULT_LENGTH, hidden=self._hidden)

    def concluded(self, delivery: Delivery, outcome: o.Outcome, decided: Plan, runtime: float) -> None:
        """A task ended, or a delivery will not run."""
        if type(outcome) is o.Success:
            if self._info:
                message = delivery.message
                shown = f": {one_line(self._result(outcome.value))}" if self._log_results else ""
                _traced.info(
                    "Task %s[%s] succeeded in %ss%s", one_line(_name(message)), one_line(message.id), runtime, shown
                )
        else:
            self._log(delivery, outcome, decided)
            self._signal(delivery, outcome)
        if self.events and self.emit is not None and decided.event is not None:
            self.emit(f"task-{decided.event}", self._fields(delivery, outcome, decided, runtime))

    def _log(self, delivery: Delivery, outcome: o.Outcome, decided: Plan) -> None:
        message = delivery.message
        name = one_line(f"{_name(message) or '?'}[{message.id or '?'}]")
        match outcome:
            case o.Failure(exc, traceback):
                if isinstance(decided.settlement, DeadLetter):
                    _traced.error("Task %s raised unexpected: %s\n%s", name, one_line(_show(exc)), block(traceback))
                else:
                    _traced.info("Task %s raised expected: %s", name, one_line(_show(exc)))
            case o.RetryAsked(exc, _, _):
                _traced.info("Task %s retry: %s", name, one_line(exc))
            case o.Rejected(reason, requeue):
                _traced.info("Task %s rejected%s: %s", name, " (requeued)" if requeue else "", one_line(reason))
            case o.Ignored():
                _traced.info("Task %s ignored", name)
            case o.Revoked(reason):
                said = str(outcome)
                more = "" if said == reason else f" ({one_line(said)})"
                _traced.info("Discarding %s task: %s%s", reason, name, more)
            case o.TimedOut(limit):
                _traced.error("Hard time limit (%ss) exceeded for %s", limit, name)
            case o.Crashed(how):
                left = (
                    "goes back to its queue" if isinstance(decided.settlement, Release) else "goes to the dead letters"
                )
                _traced.error("Worker process died by %s while it ran task %s, which %s", how, name, left)
            case o.Lost():
                _traced.error("Task %s goes to the dead letters: %s", name, one_line(_detail(decided)))
            case o.Unknown():
                if isinstance(decided.settlement, Release):
                    if delivery.marks.parked_until is None:
                        _received.error("Received unregistered task %s: it waits for a worker that knows it", name)
                else:
                    _received.error("Task %s goes to the dead letters: %s", name, one_line(_detail(decided)))
            case o.Discarded(_, reason):
                queue = one_line(delivery.queue)
                _received.error("Message %s in queue '%s' goes to the dead letters: %s", name, queue, one_line(reason))
            case o.Unsigned(reason):
                queue = one_line(delivery.queue)
                _received.error("Message %s in queue '%s' is refused, not run: %s", name, queue, reason)
            case o.Repeated():
                _received.info("Task %s was delivered again but is already done", name)
            case _:
                pass

    def _signal(self, delivery: Delivery, outcome: o.Outcome) -> None:
        message = delivery.message
        match outcome:
            case o.Unknown() if signals.task_unknown.receivers:
                exc = KeyError(message.task)
                signals.task_unknown.send(sender=None, message=message, exc=exc, name=message.task, id=message.id)
            case o.Discarded(exc, _) if signals.task_rejected.receivers:
                signals.task_rejected.send(sender=None, message=message, exc=exc)
            case o.Revoked(reason, signum) if signals.task_revoked.receivers:
                signals.task_revoked.send(
                    sender=None,
                    request=message,
                    terminated=reason == "terminated",
                    signum=signum,
                    expired=reason == "expired",
                )
            case _:
                pass

    def _fields(self, delivery: Delivery, outcome: o.Outcome, decided: Plan, runtime: float) -> dict[str, Any]:
        fields: dict[str, Any] = {"uuid": delivery.message.id}
        match outcome:
            case o.Success(value):
                fields.update(result=self._result(value), runtime=runtime)
            case o.Revoked(reason, signum):
                fields.update(terminated=reason == "terminated", signum=signum, expired=reason == "expired")
            case o.Rejected(_, requeue):
                fields.update(requeue=requeue)
            case _:
                fields.update(exception=_show(decided.value), traceback=decided.traceback)
        return fields


def _name(message: Message | Malformed) -> str:
    if isinstance(message, Malformed):
        return message.task
    return message.headers.get("shadow") or message.task


def _show(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - a user's __repr__ may raise
        return f"<{type(value).__name__}: its repr() raises>"


def _detail(decided: Plan) -> str:
    settlement = decided.settlement
    return settlement.detail if isinstance(settlement, DeadLetter) else ""
