"""From a delivery to a completion: decode, run, decide, encode. The pipe every task goes through, on the task's thread.

Each stage is somebody else's: the codec decodes, the app's tracer runs, ``plan`` decides, the codec encodes. The runner
only connects them, writes the child's slot, and counts. It knows no broker; its completions are written by the
completer.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from celeriac import states
from celeriac.app import trace
from celeriac.app.request import Request
from celeriac.client.payloads import payloads_of
from celeriac.clock import SYSTEM
from celeriac.codec.body import NO_EMBED, decode_body
from celeriac.codec.escape import one_line
from celeriac.codec.failures import format_traceback
from celeriac.codec.reference import CONTENT_TYPE as REFERENCE
from celeriac.codec.signing import signer_of
from celeriac.exceptions import (
    CeleryError,
    ContentDisallowed,
    DecodeError,
    InvalidTaskError,
    MessageTooLarge,
    OperationalError,
    PayloadLost,
    TimeLimitExceeded,
    WorkerShutdown,
    WorkerTerminate,
)
from celeriac.model import outcome as o
from celeriac.model.message import Delivery, Malformed, Message
from celeriac.model.options import TaskOptions
from celeriac.model.outcome import Embed
from celeriac.model.plan import Plan, Send, plan
from celeriac.model.settle import Completion, Release, StoredResult
from celeriac.ports import Broker, Clock, Particular, Timekeeper
from celeriac.worker.follow_ups import FollowUps, Sent
from celeriac.worker.joiner import Joiner
from celeriac.worker.records import Recorder
from celeriac.worker.report import Report
from celeriac.worker.timed import run_timed, to_its_end

if TYPE_CHECKING:
    from celeriac.app.base import Celery
    from celeriac.worker.options import NodeOptions
    from celeriac.worker.slot import Slot

__all__ = ["STORE_AWAY", "Entry", "Runner"]

logger = logging.getLogger("celery.app.trace")

#: Seconds until a task is offered again whose arguments lie in a payload store that is away.
STORE_AWAY = 5.0
#: Seconds beyond its hard limit in which the child itself writes the end of a task that was acknowledged early.
_TELL = 1.0
#: Weight of the newest run in the moving average of a task's run time.
_NEWEST = 0.2


class Entry(Struct, frozen=True):
    """All that the runner needs of one registered task, looked up once."""

    task: Any
    tracer: Any
    options: TaskOptions
    request: Any


class Runner:
    """Runs deliveries of one app. Thread-safe: any number of task threads share it."""

    def __init__(
        self,
        app: Celery,
        options: NodeOptions,
        *,
        slot: Slot | None,
        report: Report,
        results: bool,
        clock: Clock = SYSTEM,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self.app = app
        self.options = options
        self.report = report
        #: Run time in seconds per task name, a moving average; read by the fetcher.
        self.runtimes: dict[str, float] = {}
        #: Tasks run, per name.
        self.totals: dict[str, int] = {}
        self.count = 0
        #: Monotonic time until which the leases of what is claimed are certain; set by Leases.
        self.valid_until = float("inf")
        #: The time by which due times count, seconds since the epoch: the broker's where it has a clock.
        self.now: Callable[[], float] = clock.now
        #: Takes a STARTED record, for tasks that track it; set by the child.
        self.started: Callable[[StoredResult], None] | None = None
        #: Called when a task raises WorkerShutdown or WorkerTerminate.
        self.leave: Callable[[], None] | None = None
        #: Called after each task: the limits of the child.
        self.after: Callable[[], None] | None = None
        #: Called with a reason when a coroutine goes on after its hard limit: only the end of the process ends it.
        self.stuck: Callable[[str], None] | None = None
        #: Rates set by remote control, starts per second by task (0: no limit); see ``limit_rate``.
        self.rates: dict[str, float] = {}
        #: Limits set by remote control, soft and hard, in seconds by task; see ``set_limits``.
        self.time_limits: dict[str, tuple[float | None, float | None]] = {}
        #: token → outcome, of coroutines that are cancelled on request.
        self.terminated: dict[str, o.Revoked] = {}
        #: token → since when its body runs (monotonic), of coroutines that have a limit.
        self.timed: dict[str, float] = {}
        self._slot = slot
        self._monotonic, self._rand = clock.monotonic, rand
        self._results = results
        self._entries: dict[str, Entry] = {}
        conf = app.conf
        self._accept = frozenset(conf.accept_content)
        self._max_bytes: int = conf.max_message_bytes
        #: Checks what is claimed before anything else does; None: nothing is signed.
        self.signer = signer_of(conf)
        self._hostname = options.hostname
        #: Where large bodies and results lie; None: nowhere but in their messages.
        self.payloads = payloads_of(conf)
        self.follow_ups = FollowUps(app)
        self._recorder = Recorder(options.hostname, conf, clock.now, self.payloads)
        self._joiner: Joiner | None = None

    # -- lookup ------------------------------------------------------------------------------------------------

    def entry(self, name: str) -> Entry | None:
        """The task of that name, or None. Looks up the registry only; imports nothing."""
        found = self._entries.get(name)
        if found is None:
            task = self.app.tasks.get(name)
            if task is None:
                return None
            tracer = trace.tracer_for(task, hostname=self.options.hostname)
            found = Entry(task, tracer, self._options(task), task.request_class.from_message)
            self._entries[name] = found
        return found

    def _options(self, task: Any) -> TaskOptions:
        options: TaskOptions = task.options()
        limits = self.time_limits.get(task.name)
        if limits is not None:
            options = replace(options, soft_time_limit=limits[0], time_limit=limits[1])
        rate = self.rates.get(task.name)
        if rate is None or self.app.conf.worker_disable_rate_limits:
            return options
        return replace(options, rate=rate or None, limited=bool(rate) or options.max_concurrency is not None)

    def limit_rate(self, name: str, rate: float) -> None:
        """From now on at most ``rate`` starts of the task a second, whatever its declaration says; 0: no limit."""
        self.rates[name] = rate
        self._entries.pop(name, None)

    def set_limits(self, name: str, soft: float | None, hard: float | None) -> None:
        """From now on tasks of that name have these limits in seconds; None: the node's."""
        self.time_limits[name] = (soft, hard)
        self._entries.pop(name, None)

    def expect(self, name: str) -> float:
        """How long a task of that name takes, in seconds; unknown ones are expected to be long."""
        return self.runtimes.get(name, 1.0)

    def soft_limit(self, delivery: Delivery) -> float | None:
        """Soft limit of a delivery in seconds: the message's, the task's, the node's."""
        message = delivery.message
        if isinstance(message, Malformed):
            return None
        entry = self.entry(message.task)
        own = entry.options.soft_time_limit if entry else None
        return message.soft_time_limit or own or self.options.soft_time_limit

    def hard_limit(self, delivery: Delivery) -> float | None:
        """Hard limit of a delivery in seconds: the message's, the task's, the node's."""
        message = delivery.message
        if isinstance(message, Malformed):
            return None
        entry = self.entry(message.task)
        own = entry.options.time_limit if entry else None
        return message.time_limit or own or self.options.time_limit

    # -- running -----------------------------------------------------------------------------------------------

    def run(self, delivery: Delivery, soft: Any = None) -> Completion | Delivery:
        """Run a synchronous task. Returns the delivery itself when its lease is no longer certain: it did not run."""
        started = self._monotonic()
        if started >= self.valid_until:
            return delivery
        prepared = self._prepare(delivery)
        if isinstance(prepared, Completion):
            return prepared
        entry, request, embed = prepared
        message: Message = delivery.message  # type: ignore[assignment]
        options, slot = entry.options, self._slot
        hard = message.time_limit or options.time_limit or self.options.time_limit
        if slot is not None:
            late = options.acks_late
            deadline = started + hard + (0.0 if late else _TELL) if hard else 0.0
            early = not (late or options.ignore_result or message.headers.get("ignore_result"))
            slot.begin(
                delivery.token, message.id, started, deadline, hard or 0.0, early, message.reply_to if early else ""
            )
            hard = None  # the supervisor's to keep
        limit = message.soft_time_limit or options.soft_time_limit or self.options.soft_time_limit
        try:
            if soft is None or (limit is None and hard is None):
                outcome = entry.tracer.run(request)
            else:
                soft.arm(limit, started, hard)
                outcome = entry.tracer.run(request)
                soft.disarm()
                if hard and isinstance(outcome, o.Failure) and isinstance(outcome.exc, TimeLimitExceeded):
                    outcome = o.TimedOut(hard)
        except (Exception, WorkerShutdown, WorkerTerminate) as error:  # noqa: BLE001 - see _failed
            if soft is not None:
                soft.disarm()
            outcome = self._failed(error)
        completion = self.conclude(delivery, outcome, entry, embed, request, self._monotonic() - started)
        if slot is not None:
            slot.end()
        return completion

    def _failed(self, error: BaseException) -> o.Failure:
        """Add-ons wrap tracers, users' exceptions may raise when they are looked at, and a task may end its worker: it
        has failed then, so that the next worker does not meet the same."""
        if isinstance(error, (WorkerShutdown, WorkerTerminate)) and self.leave is not None:
            self.leave()
        return o.Failure(error, format_traceback(error))

    def limited(self, delivery: Delivery, exc: BaseException) -> Completion:
        """The end of a task whose soft limit was raised outside its body."""
        if self._slot is not None:
            self._slot.end()
        message = delivery.message  # it was checked before it ran
        try:
            embed = self._embed(message) if isinstance(message, Message) else None
        except OperationalError:
            entry = self.entry(message.task)
            if entry is None or entry.options.acks_late:
                return self.conclude(delivery, o.Postponed(STORE_AWAY))
            embed = None  # nothing brings it back
        return self.conclude(delivery, o.Failure(exc, format_traceback(exc)), embed=embed)

    async def arun(self, delivery: Delivery) -> Completion | Delivery:
        """Run an ``async def`` task on the current loop, with its limits as timers."""
        started = self._monotonic()
        if started >= self.valid_until:
            return delivery
        cancelled = False
        if self.payloads is None:
            prepared = self._prepare(delivery)
        else:  # which may read from far away
            prepared, cancelled = await to_its_end(asyncio.to_thread(self._prepare, delivery))
        if isinstance(prepared, Completion):
            self.terminated.pop(delivery.token, None)
            return prepared
        entry, request, embed = prepared
        outcome = self._failed(asyncio.CancelledError()) if cancelled else await self._body(delivery, entry, request)
        if self.terminated and delivery.token in self.terminated:
            outcome = self.terminated.pop(delivery.token)
        runtime = self._monotonic() - started
        if self.payloads is None:
            return self.conclude(delivery, outcome, entry, embed, request, runtime)
        concluding = asyncio.to_thread(self.conclude, delivery, outcome, entry, embed, request, runtime)
        completion, _ = await to_its_end(concluding)
        self.terminated.pop(delivery.token, None)  # too late: it was over
        return completion

    async def _body(self, delivery: Delivery, entry: Entry, request: Any) -> o.Outcome:
        hard, soft = self.hard_limit(delivery), self.soft_limit(delivery)
        try:
            if not (hard or soft):
                outcome: o.Outcome = await entry.tracer.arun(request)
                return outcome
            self.timed[delivery.token] = self._monotonic()
            return await run_timed(entry.tracer.arun, request, soft=soft, hard=hard, stuck=self._stuck)
        except (Exception, asyncio.CancelledError, WorkerShutdown, WorkerTerminate) as error:  # noqa: BLE001
            return self._failed(error)
        finally:
            self.timed.pop(delivery.token, None)

    def _stuck(self) -> None:
        if self.stuck is not None:
            self.stuck("a coroutine goes on after its hard time limit")

    def _prepare(self, delivery: Delivery) -> Completion | tuple[Entry, Any, Embed]:
        message = delivery.message
        if isinstance(message, Malformed):
            return self.conclude(delivery, o.Discarded(DecodeError(message.reason), message.reason))
        entry = self._entries.get(message.task) or self.entry(message.task)
        if entry is None:
            return self.conclude(delivery, o.Unknown())
        try:
            args, kwargs, embed = self.decoded(message)
        except (DecodeError, ContentDisallowed, MessageTooLarge, InvalidTaskError, PayloadLost) as error:
            return self.conclude(delivery, o.Discarded(error, f"{type(error).__name__}: {error}"), entry=entry)
        except OperationalError as error:
            name = one_line(f"{message.task}[{message.id}]")
            logger.warning("Task %s waits for its arguments: %s", name, error)
            return self.conclude(delivery, o.Postponed(STORE_AWAY), entry=entry, embed=NO_EMBED)
        try:
            again = delivery.redelivered
            request = entry.request(message, args, kwargs, embed, hostname=self._hostname, redelivered=again)
        except Exception as error:  # noqa: BLE001 - a Request class of the user's own: it costs this task, not the child
            return self.conclude(delivery, o.Failure(error, format_traceback(error)), entry, embed)
        if entry.options.track_started and self.started is not None:
            record = self._recorder.started(message, entry.options)
            self.app.backend.starts.begin(record)
            self.started(record)
        self.report.received(message, request)
        return entry, request, embed

    # -- concluding --------------------------------------------------------------------------------------------

    @property
    def joiner(self) -> Joiner:
        """Concludes chords, with the same encoders."""
        if self._joiner is None:
            self._joiner = Joiner(self.app, self.follow_ups, self._recorder)
        return self._joiner

    def meet(self, broker: Broker) -> None:
        """Count by its clock, and send what it can hold."""
        if isinstance(broker, Timekeeper):
            self.now = broker.now
        if isinstance(broker, Particular):
            self.follow_ups.check = broker.check

    def conclude(
        self,
        delivery: Delivery,
        outcome: o.Outcome,
        entry: Entry | None = None,
        embed: Embed | None = None,
        request: Any = None,
        runtime: float = 0.0,
    ) -> Completion:
        """The completion of an outcome: plan, encode, report. Also for deliveries that were not run.

        ``request`` is None when the task did not run; ``runtime`` in seconds.
        """
        message = delivery.message
        if self.signer is not None and request is None:
            outcome = self._trusted(message, outcome)
        if entry is None:
            entry = self.entry(message.task)
        options = entry.options if entry is not None else self._foreign(message.task)
        if embed is None and type(outcome) in _NEEDS_EMBED and not isinstance(message, Malformed):
            try:
                embed = self._embed(message)
            except OperationalError as error:
                outcome = self._unless_over(delivery, outcome, options, error)
        now = self.now()
        decided = plan(delivery, outcome, options, now, self._rand(), embed, self._hostname, self.options.park)
        try:
            completion = self._written(delivery, outcome, decided, options, request, now)
        except Exception as error:  # noqa: BLE001 - user code in routers and apply_async; values that cannot be encoded
            outcome = o.Failure(error, format_traceback(error))
            decided = plan(delivery, outcome, options, now, 0.0, embed, self._hostname, self.options.park)
            # Without the request: its arguments (``result_extended``) may be what cannot be encoded.
            completion = self._written(delivery, outcome, decided, options, None, now)
        if request is not None:
            self._count(message.task, runtime)
        self.report.concluded(delivery, outcome, decided, runtime)
        return completion

    def _trusted(self, message: Message | Malformed, outcome: o.Outcome) -> o.Outcome:
        """The outcome of what did not run; for what nobody has checked before, that it is unsigned. What a stranger has
        written is not decoded, has no record and tells no chord."""
        if self.signer is None or isinstance(message, Malformed) or type(outcome) is o.Unsigned:
            return outcome
        reason = self.signer.refusal(message)
        return outcome if reason is None else o.Unsigned(reason)

    def _unless_over(
        self, delivery: Delivery, outcome: o.Outcome, options: TaskOptions, error: OperationalError
    ) -> o.Outcome:
        """What becomes of a task whose payload is away: what follows its end cannot be told, so it does not end yet."""
        if isinstance(plan(delivery, outcome, options, self.now(), 0.0, park=self.options.park).settlement, Release):
            return outcome
        name = one_line(f"{delivery.message.task}[{delivery.message.id}]")
        logger.warning("The end of task %s waits for what follows it: %s", name, error)
        return o.Postponed(STORE_AWAY, crashed=isinstance(outcome, (o.Crashed, o.TimedOut)))

    def _written(
        self, delivery: Delivery, outcome: o.Outcome, decided: Plan, options: TaskOptions, request: Any, now: float
    ) -> Completion:
        """A plan as it is to be written: follow-ups sent, values encoded."""
        message = delivery.message
        joins = decided.joins
        added = request.__dict__.get("added") if request is not None and joins else None
        asked = request.__dict__.get("sends") if request is not None else None
        if not (decided.sends or asked or joins or decided.abandoned):
            return Completion(
                settlement=decided.settlement,
                result=self._record(message, decided, options, request, now),
                frees=decided.frees,
            )
        sent = self.follow_ups.sent()
        failed = decided.event == "failed" or decided.state == states.FAILURE
        if not failed:
            self._send(outcome, decided, request, sent)
        if asked:
            self.follow_ups.of_success(map(Send, asked), request, sent)
        if added and type(outcome) is not o.Success:
            added = None  # the chord fails, whatever was to be added to it
        if added:
            self.follow_ups.of_success([Send(each) for each in added if each is not None], request, sent)
        results, content_type = self._results, message.content_type if isinstance(message, Message) else ""
        recorder, behind = self._recorder, decided.abandoned
        completion = Completion(
            settlement=decided.settlement,
            publish=sent.messages,
            result=self._record(message, decided, options, request, now),
            others=recorder.others(behind, decided.ends, decided.value, _reply_to(message))
            if behind and results
            else (),
            opens=sent.chords,
            parts=recorder.parts(joins, len(added or ()), content_type) if joins and results else (),
            frees=() if asked and _goes_on(message.id, asked) else decided.frees,
        )
        if failed:
            # After all is encoded: what cannot be is decided anew, and errbacks are called once.
            self._tell_errbacks(message, decided, request, sent)
        return completion

    def _count(self, name: str, runtime: float) -> None:
        runtimes = self.runtimes
        old = runtimes.get(name)
        runtimes[name] = runtime if old is None else old + _NEWEST * (runtime - old)
        self.totals[name] = self.totals.get(name, 0) + 1
        self.count += 1
        if self.after is not None:
            self.after()

    def _send(self, outcome: o.Outcome, decided: Plan, request: Any, sent: Sent) -> None:
        if decided.sends and type(outcome) is o.Success:
            self.follow_ups.of_success(decided.sends, request, sent)
        elif decided.sends:
            self.follow_ups.of_any(decided.sends, sent)

    def _tell_errbacks(self, message: Any, decided: Plan, request: Any, sent: Sent) -> None:
        if decided.sends:
            if request is None:
                request = Request.from_message(message, (), {}, hostname=self._hostname)
            self.follow_ups.of_failure(decided.sends, request, decided.value, decided.traceback or "", sent)

    def _record(
        self, message: Any, decided: Plan, options: TaskOptions, request: Any, now: float
    ) -> StoredResult | None:
        if decided.state is None or not self._results:
            return None
        return self._recorder.record(message, decided, options, request, now)

    def decoded(self, message: Message) -> tuple[list[Any], dict[str, Any], Embed]:
        """Arguments and what follows. Raises as ``decode_body`` and ``Payloads.fetch``."""
        if message.content_type == REFERENCE:
            if self.payloads is None:
                raise PayloadLost("its arguments lie in a payload store: set payload_store here as its sender has it")
            message = self.payloads.fetch(message)
        return decode_body(message, accept=self._accept, max_bytes=self._max_bytes)

    def _embed(self, message: Message) -> Embed | None:
        """What follows, as far as it can be decoded. Raises ``OperationalError`` while it is away."""
        try:
            return self.decoded(message)[2]
        except OperationalError:
            raise
        except CeleryError:
            return None

    def _foreign(self, name: str) -> TaskOptions:
        """Options for a task that is not registered here: the settings' defaults."""
        return TaskOptions(name=name, result_expires=self.app.conf.seconds("result_expires") or None)


def _goes_on(task_id: str, asked: Sequence[Any]) -> bool:
    """What an attempt wants sent when it is over is the next one of the same task (``retry(throw=False)``)."""
    return any(each.options.get("task_id") == task_id for each in asked)


#: Outcomes that end a task without running it here, while others wait for its end.
_NEEDS_EMBED = frozenset({o.Unknown, o.Crashed, o.Lost, o.TimedOut, o.Revoked, o.Repeated})


def _reply_to(message: Message | Malformed) -> str:
    """Where the sender of a message waits for results."""
    return message.reply_to if isinstance(message, Message) else ""
