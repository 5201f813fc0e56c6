"""The remote commands of a node, under Celery's names; also where users register their own.

``@control_command`` and ``@inspect_command`` work as in ``celery.worker.control``; a command is called with the state
(the agent; ``.app``, ``.hostname``) and the request's arguments, and may be a coroutine function.
"""

from __future__ import annotations

import inspect
import json
import logging
import os
import resource
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, overload

from celeriac.client.signal_names import signal_number
from celeriac.codec.escape import one_line
from celeriac.codec.redaction import hides, masked
from celeriac.conf.masking import mask_url
from celeriac.exceptions import SecurityError
from celeriac.model.limits import per_second
from celeriac.model.rules import REVOKE, Order, decode_order, stamp_keys

if TYPE_CHECKING:
    from celeriac.worker.agent import Agent
    from celeriac.worker.autoscale import Autoscale

__all__ = ["Panel", "control_command", "execute", "inspect_command"]

logger = logging.getLogger("celery.worker.control")

Command = Callable[..., Any]
C = TypeVar("C", bound=Command)


class Panel:
    """All commands by name."""

    data: dict[str, Command] = {}
    writes: set[str] = set()

    @classmethod
    def register(cls, name: str, command: Command, *, writes: bool) -> None:
        """Add a command; ``writes`` marks those that change something (they are logged)."""
        cls.data[name] = command
        if writes:
            cls.writes.add(name)


@overload
def control_command(command: C, /) -> C: ...
@overload
def control_command(*, name: str | None = None, alias: str | None = None, **options: Any) -> Callable[[C], C]: ...
def control_command(command: Any = None, /, **options: Any) -> Any:
    """Register a command that changes something. Options as Celery's (name, alias, args, signature, help)."""
    return _register(command, True, **options)


@overload
def inspect_command(command: C, /) -> C: ...
@overload
def inspect_command(*, name: str | None = None, alias: str | None = None, **options: Any) -> Callable[[C], C]: ...
def inspect_command(command: Any = None, /, **options: Any) -> Any:
    """Register a command that only reads. Options as Celery's."""
    return _register(command, False, **options)


def _register(command: Any, writes: bool, *, name: str | None = None, alias: str | None = None, **options: Any) -> Any:
    def decorate(command: C) -> C:
        for each in (name or command.__name__, alias):
            if each:
                Panel.register(each, command, writes=writes)
        return command

    return decorate if command is None else decorate(command)


async def execute(agent: Agent, method: str, arguments: Mapping[str, Any], *, origin: str = "here") -> Any:
    """Run a command; ``origin`` is who asked for it, for the log. Raises ``KeyError`` when there is none of that name,
    ``SecurityError`` when it would change something and must not, and what the command raises."""
    command = Panel.data[method]
    if method in Panel.writes:
        if agent.options.remote_control == "inspect":
            raise SecurityError(f"{method} changes something, and worker_enable_remote_control is 'inspect'")
        shown = masked(dict(arguments), hides(agent.options.redact_names), mask_url)
        logger.info("Remote command %s from %s: %s", method, origin, one_line(repr(shown), 1000))
    answer = command(agent, **arguments)
    return await answer if inspect.isawaitable(answer) else answer


@inspect_command(default_timeout=0.2)
def ping(state: Agent, **kwargs: Any) -> dict[str, str]:
    """Are you there? A node that is there and cannot run tasks says why under ``unready``."""
    why = state.unready()
    return {"ok": "pong", "unready": why} if why else {"ok": "pong"}


@inspect_command(alias="dump_active")
async def active(state: Agent, safe: bool = False, **kwargs: Any) -> list[Any]:
    """Running tasks."""
    return _public(await state.link.ask("active", {}))


@inspect_command(alias="dump_reserved")
async def reserved(state: Agent, **kwargs: Any) -> list[Any]:
    """Tasks that were claimed and have not started."""
    return _public(await state.link.ask("reserved", {}))


def _public(answers: list[Any]) -> list[dict[str, Any]]:
    """Tasks as others see them: without their leases' tokens."""
    return [{key: value for key, value in task.items() if key != "token"} for answer in answers for task in answer]


@inspect_command(alias="dump_schedule")
def scheduled(state: Agent, **kwargs: Any) -> list[Any]:
    """Tasks with an ETA in this worker's memory: none, they wait in the broker."""
    return []


@inspect_command(alias="dump_revoked")
def revoked(state: Agent, **kwargs: Any) -> list[str]:
    """Ids that were revoked."""
    return list(state.enforcer.book.revoked)


@inspect_command(alias="dump_tasks")
def registered(state: Agent, taskinfoitems: Any = None, builtins: bool = False, **kwargs: Any) -> list[str]:
    """Names of the registered tasks."""
    names = sorted(name for name in state.app.tasks if builtins or not name.startswith("celery."))
    if not taskinfoitems:
        return names
    shown = []
    for name in names:
        task = state.app.tasks[name]
        fields = [f"{item}={getattr(task, item)}" for item in taskinfoitems if getattr(task, item, None) is not None]
        shown.append(f"{name} [{' '.join(fields)}]" if fields else name)
    return shown


@inspect_command()
async def query_task(state: Agent, ids: Any = (), **kwargs: Any) -> dict[str, Any]:
    """Where tasks are, by id."""
    wanted = {ids} if isinstance(ids, str) else set(ids)
    found: dict[str, Any] = {}
    for kind in ("reserved", "active"):
        for answer in await state.link.ask(kind, {}):
            found |= {task["id"]: [kind, task] for task in _public([answer]) if task["id"] in wanted}
    return found


@inspect_command()
async def stats(state: Agent, **kwargs: Any) -> dict[str, Any]:
    """Numbers of this node, in Celery's shape (celery-wire §3.7)."""
    answers = await state.link.ask("stats", {})
    total: dict[str, int] = {}
    for answer in answers:
        for name, count in answer["total"].items():
            total[name] = total.get(name, 0) + count
    options, usage = state.options, resource.getrusage(resource.RUSAGE_SELF)
    limits = [options.soft_time_limit or 0, options.time_limit or 0]
    return {
        "total": total,
        "pid": os.getppid() if options.pool != "solo" else os.getpid(),
        "clock": "0",
        "uptime": round(state.clock.now() - state.started),
        "pool": {
            "implementation": f"celeriac:{options.pool}",
            "max-concurrency": state.pool.wanted if state.pool is not None else options.concurrency,
            "processes": [answer["pid"] for answer in answers],
            "max-tasks-per-child": options.max_tasks_per_child or "N/A",
            "put-guarded-by-semaphore": False,
            "timeouts": limits,
            "writes": {},
        },
        **({"autoscaler": _autoscaler(state.pool)} if state.pool is not None and state.pool.bounds else {}),
        **({"outboxes": state.relays.stats()} if state.relays is not None else {}),
        **{name: value for guest in state.guests for name, value in guest.stats().items()},
        "broker": state.app.broker_info(),
        "prefetch_count": options.prefetch_limit or 0,
        "rusage": {name[3:]: getattr(usage, name) for name in dir(usage) if name.startswith("ru_")},
    }


def _autoscaler(pool: Autoscale) -> dict[str, Any]:
    bounds = pool.bounds
    assert bounds is not None
    return {"current": pool.wanted, "max": bounds.most, "min": bounds.fewest, "qty": pool.wanted}


@inspect_command()
def active_queues(state: Agent, **kwargs: Any) -> list[dict[str, Any]]:
    """The queues this node takes tasks from."""
    paused = state.enforcer.book.paused
    return [{**_queue_info(name), "paused": name in paused} for name in state.queues]


def _queue_info(name: str) -> dict[str, Any]:
    exchange = {
        "name": name,
        "type": "direct",
        "arguments": None,
        "durable": True,
        "passive": False,
        "auto_delete": False,
        "delivery_mode": None,
        "no_declare": False,
    }
    nothing = ("queue_arguments", "binding_arguments", "consumer_arguments", "alias", "no_declare", "expires")
    limits = ("message_ttl", "max_length", "max_length_bytes", "max_priority")
    return {
        "name": name,
        "exchange": exchange,
        "routing_key": name,
        "durable": True,
        "exclusive": False,
        "auto_delete": False,
        "no_ack": False,
        "bindings": [],
        **dict.fromkeys((*nothing, *limits)),
    }


@inspect_command()
def clock(state: Agent, **kwargs: Any) -> dict[str, int]:
    """The logical clock."""
    return {"clock": 0}


@inspect_command(alias="dump_conf")
def conf(state: Agent, with_defaults: bool = False, **kwargs: Any) -> Any:
    """The configuration, secrets masked."""
    table = state.app.conf.table(with_defaults=with_defaults, censored=True)
    return json.loads(json.dumps({str(name): value for name, value in table.items()}, default=repr, skipkeys=True))


@inspect_command()
def report(state: Agent, **kwargs: Any) -> dict[str, str]:
    """Versions and settings as text, for bug reports."""
    return {"ok": state.app.bugreport()}


@inspect_command()
async def hello(state: Agent, from_node: str = "", revoked: Any = None, **kwargs: Any) -> dict[str, Any] | None:
    """A Celery worker starts next to us, tells what is revoked and asks the same (its mingle step)."""
    if from_node == state.options.hostname:
        return None
    if isinstance(revoked, (list, dict)) and revoked and state.options.remote_control != "inspect":
        await state.enforcer.revoke([f"{REVOKE}{each}" for each in revoked], Order(at=time.time()))
    known = state.enforcer.book.revoked
    return {"revoked": {each: decode_order(rule.value or b"").at for each, rule in known.items()}, "clock": 0}


@control_command()
async def revoke(
    state: Agent,
    task_id: Any = (),
    terminate: bool = False,
    signal: Any = None,
    by: Any = "",
    reason: Any = "",
    **kwargs: Any,
) -> dict[str, str]:
    """Refuse tasks by id from now on; ``terminate`` also ends those that run, by ``signal`` (default SIGTERM)."""
    ids = {task_id} if isinstance(task_id, str) else {str(each) for each in task_id}
    order = _order(by, reason, terminate, signal)
    await state.enforcer.revoke([f"{REVOKE}{each}" for each in ids], order)
    return {"ok": f"tasks {ids} flagged as revoked"}


@control_command()
async def revoke_by_stamped_headers(
    state: Agent,
    headers: Any,
    terminate: bool = False,
    signal: Any = None,
    by: Any = "",
    reason: Any = "",
    **kwargs: Any,
) -> dict[str, str]:
    """Refuse tasks that carry one of these stamps from now on; as ``revoke``."""
    if isinstance(headers, (list, tuple)):  # Celery's command line sends ["name=value", ...]
        headers = dict(each.partition("=")[::2] for each in headers)
    await state.enforcer.revoke(stamp_keys(headers), _order(by, reason, terminate, signal))
    return {"ok": f"headers {headers} flagged as revoked"}


@control_command()
async def terminate(state: Agent, signal: Any = "SIGTERM", task_id: Any = (), **kwargs: Any) -> dict[str, str]:
    """End running tasks by id."""
    return await revoke(state, task_id=task_id, terminate=True, signal=signal, **kwargs)


def _order(by: Any, reason: Any, terminate: Any, signal: Any) -> Order:
    name = str(signal or "SIGTERM")
    if terminate:
        signal_number(name)
    return Order(by=str(by), reason=str(reason), at=time.time(), terminate=bool(terminate), signal=name)


@control_command()
async def shutdown(state: Agent, msg: str = "", **kwargs: Any) -> None:
    """Stop the node as SIGTERM does. No answer, as in Celery."""
    logger.warning("Got shutdown from remote")
    state.stop_node()


@control_command()
async def enable_events(state: Agent, **kwargs: Any) -> dict[str, str]:
    """Send task events from now on."""
    return await _switch_events(state, True)


@control_command()
async def disable_events(state: Agent, **kwargs: Any) -> dict[str, str]:
    """Send no more task events."""
    return await _switch_events(state, False)


async def _switch_events(state: Agent, on: bool) -> dict[str, str]:
    before, state.events = state.events, on
    state.runner.report.events = on
    state.tell("events", {"on": on})
    await state.link.ask("events", {"on": on})
    word = "enabled" if on else "disabled"
    return {"ok": f"task events already {word}" if before == on else f"task events {word}"}


@control_command()
async def heartbeat(state: Agent, **kwargs: Any) -> None:
    """Send a heartbeat event now."""
    await state._beat("heartbeat")


@control_command()
async def rate_limit(state: Agent, task_name: str, rate_limit: Any, **kwargs: Any) -> dict[str, str]:
    """Another limit for a task's starts in all workers together: ``"10/m"``; 0: none. Until the node ends."""
    try:
        rate = per_second(rate_limit) or 0.0
    except ValueError as error:
        return {"error": f"Invalid rate limit string: {error}"}
    if task_name not in state.app.tasks:
        return {"error": "unknown task"}
    state.runner.limit_rate(task_name, rate)
    rates = state.runner.rates
    state.tell("rate_limit", {"rates": rates})
    await state.link.ask("rate_limit", {"rates": rates})
    return {"ok": "new rate limit set successfully" if rate else "rate limits disabled successfully"}


@control_command()
async def add_consumer(state: Agent, queue: Any, **kwargs: Any) -> dict[str, str]:
    """Take tasks from one more queue."""
    if not isinstance(queue, str) or not queue:
        raise TypeError(f"the name of a queue is a text that is not empty, not {queue!r}")
    if queue in state.queues:
        return {"ok": f"already consuming from {queue!r}"}
    return await _consume(state, [*state.queues, queue], f"add consumer {queue}")


@control_command()
async def cancel_consumer(state: Agent, queue: str, **kwargs: Any) -> dict[str, str]:
    """Take no more tasks from a queue."""
    return await _consume(state, [name for name in state.queues if name != queue], f"no longer consuming from {queue}")


async def _consume(state: Agent, queues: list[str], answer: str) -> dict[str, str]:
    await state.broker.declare(queues)
    state.queues = queues
    state.tell("queues", {"queues": queues})
    await state.link.ask("queues", {"queues": queues})
    return {"ok": answer}


@control_command()
async def time_limit(state: Agent, task_name: str, hard: Any = None, soft: Any = None, **kwargs: Any) -> dict[str, str]:
    """Set the time limits of a task, in seconds, for runs that start from now on."""
    if task_name not in state.app.tasks:
        logger.error("Change time limit attempt for unknown task %s", task_name)
        return {"error": "unknown task"}
    for name, value in (("soft", soft), ("hard", hard)):
        if value is not None and not (isinstance(value, (int, float)) and value > 0):
            raise ValueError(f"a {name} limit is a number of seconds above 0, not {value!r}")
    state.runner.set_limits(task_name, soft, hard)
    state.tell("time_limit", {"limits": state.runner.time_limits})
    await state.link.ask("time_limit", {"limits": {task_name: (soft, hard)}})
    return {"ok": "time limits set successfully"}


@control_command()
def autoscale(state: Agent, max: int | None = None, min: int | None = None, **kwargs: Any) -> dict[str, str]:  # noqa: A002 - Celery's names
    """Keep between ``min`` and ``max`` children."""
    pool = _pool(state)
    old = pool.bounds
    most = max if max is not None else old.most if old else pool.wanted
    fewest = min if min is not None else old.fewest if old else 0
    pool.bound(most, fewest)
    return {"ok": f"autoscale now max={most} min={fewest}"}


@control_command()
def pool_grow(state: Agent, n: int = 1, **kwargs: Any) -> dict[str, str]:
    """Start ``n`` more children."""
    _pool(state).grow(n)
    return {"ok": "pool will grow"}


@control_command()
def pool_shrink(state: Agent, n: int = 1, **kwargs: Any) -> dict[str, str]:
    """End ``n`` children: idle ones first, busy ones when they have finished."""
    _pool(state).shrink(n)
    return {"ok": "pool will shrink"}


def _pool(state: Agent) -> Autoscale:
    if state.pool is None:
        raise ValueError(f"the pool {state.options.pool!r} has one process: only -P prefork grows and shrinks")
    return state.pool
