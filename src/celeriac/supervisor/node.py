"""What a node is to be: settings and command line, resolved once into ``NodeOptions``.

Reads, decides nothing else: no process, no file, no connection. Called by ``celeriac worker`` and by whoever starts a
node in another way. The command line wins over the settings.
"""

from __future__ import annotations

import logging
import os
import re
from typing import Any

from msgspec import Struct

from celeriac.client.registry import Queues
from celeriac.exceptions import ImproperlyConfigured
from celeriac.worker.options import NodeOptions

__all__ = ["Given", "cpus", "pool_name", "resolve"]

logger = logging.getLogger("celery.worker")

_POOLS = {"prefork": "prefork", "processes": "prefork", "threads": "threads", "solo": "solo"}
_GREENLETS = ("gevent", "eventlet")
#: Celery's pools by the name of their class, as some settings have them.
_CLASS_PATH = re.compile(r"celery\.concurrency\.(\w+)[:.]TaskPool")


class Given(Struct, frozen=True, kw_only=True):
    """What the command line says; None and empty: nothing. Times in seconds, memory in KiB."""

    queues: tuple[str, ...] = ()
    exclude_queues: tuple[str, ...] = ()
    pool: str | None = None
    concurrency: int | None = None
    #: Most and fewest children: ``--autoscale=10,3``.
    autoscale: tuple[int, int] | None = None
    prefetch_multiplier: int | None = None
    disable_prefetch: bool = False
    time_limit: float | None = None
    soft_time_limit: float | None = None
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None
    events: bool = False
    heartbeats: bool = True
    purge: bool = False
    pidfile: str | None = None
    #: Periodic tasks are sent too, by this scheduler, which may keep a file.
    beat: bool = False
    scheduler: str | None = None
    schedule_filename: str | None = None


def resolve(conf: Any, queues: Queues, given: Given, *, hostname: str, processors: int | None = None) -> NodeOptions:
    """The options of the node ``hostname``; ``processors`` counts CPUs (None: this machine's).

    ``queues`` are the app's; -Q and -X select among them, there too, so that they agree with what the node does.
    Raises ``ImproperlyConfigured`` naming the option, and ``QueueNotFound``.
    """
    pool = pool_name(given.pool or conf.worker_pool)
    if conf.worker_pool_start_method != "fork":
        raise ImproperlyConfigured("worker_pool_start_method = 'spawn' is not available yet: children are forked")
    concurrency = 1 if pool == "solo" else _concurrency(conf, given, processors)
    if given.autoscale is not None:
        concurrency = _autoscale(given, pool)
    replaced = _replaced(conf, given, pool)
    for name, value in (("--scheduler", given.scheduler), ("-s/--schedule", given.schedule_filename)):
        if value and not given.beat:
            raise ImproperlyConfigured(f"{name} means nothing without -B/--beat")
    return NodeOptions(
        hostname=hostname,
        queues=_queues(queues, given),
        pool=pool,
        concurrency=concurrency,
        autoscale=given.autoscale,
        autoscale_keepalive=conf.seconds("worker_autoscale_keepalive"),
        proc_alive=conf.seconds("worker_proc_alive_timeout") or 0.0,
        async_concurrency=conf.worker_async_concurrency,
        time_limit=_positive(given.time_limit, conf.seconds("task_time_limit")),
        soft_time_limit=_positive(given.soft_time_limit, conf.seconds("task_soft_time_limit")),
        max_tasks_per_child=replaced[0],
        max_memory_per_child=replaced[1],
        grace=conf.seconds("worker_grace"),
        lease=conf.seconds("worker_lease"),
        claim_target=conf.seconds("worker_claim_target"),
        prefetch_limit=_prefetch(conf, given, concurrency if pool == "threads" else 1),
        park=conf.seconds("worker_unknown_task_park"),
        revoke_expires=conf.seconds("task_revoke_expires"),
        events=given.events or bool(conf.worker_send_task_events),
        heartbeats=given.heartbeats,
        remote_control=conf.worker_enable_remote_control,
        log_arguments=conf.worker_log_arguments,
        log_results=conf.worker_log_results,
        redact_names=tuple(conf.redact_names),
        purge=given.purge,
        pidfile=given.pidfile,
        beat=given.beat,
        scheduler=given.scheduler,
        schedule_filename=given.schedule_filename,
    )


def pool_name(name: Any) -> str:
    """prefork, threads or solo; Celery's other names for them are understood. Raises ``ImproperlyConfigured``."""
    text = name if isinstance(name, str) else f"{getattr(name, '__module__', '')}.TaskPool"
    path = _CLASS_PATH.fullmatch(text)
    text = path[1].removesuffix("_") if path else text
    text = {"thread": "threads"}.get(text, text)
    if text in _GREENLETS:
        raise ImproperlyConfigured(
            f"there is no pool {text!r}: use -P threads -c 100 for blocking I/O, or write the tasks as `async def`, "
            "which run many at once in every pool"
        )
    if text not in _POOLS:
        raise ImproperlyConfigured(f"unknown pool {text!r}: use prefork, threads or solo")
    return _POOLS[text]


def cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def _concurrency(conf: Any, given: Given, processors: int | None) -> int:
    wanted = given.concurrency if given.concurrency is not None else conf.worker_concurrency
    if wanted is not None and wanted < 0:
        raise ImproperlyConfigured(f"concurrency cannot be {wanted}: give the number of children or threads, -c 2")
    return int(wanted or processors or cpus())


def _autoscale(given: Given, pool: str) -> int:
    """The children to start with: the fewest."""
    assert given.autoscale is not None
    most, fewest = given.autoscale
    if not 0 <= fewest <= most or not most:
        raise ImproperlyConfigured(f"--autoscale {most},{fewest}: give MAX from 1 and MIN up to MAX, --autoscale 10,3")
    if pool != "prefork":
        raise ImproperlyConfigured(
            f"--autoscale is for -P prefork, not {pool}: threads start as they are needed, so give their most by -c"
        )
    if given.concurrency is not None:
        logger.warning("-c is not used: --autoscale says how many children there are")
    return fewest


def _replaced(conf: Any, given: Given, pool: str) -> tuple[int | None, int | None]:
    """Most tasks and most memory of a child; in a node of one process there is none to take over."""
    limits = (
        _whole(given.max_tasks_per_child, conf.worker_max_tasks_per_child),
        _whole(given.max_memory_per_child, conf.worker_max_memory_per_child),
    )
    if pool == "solo" and limits != (None, None):
        logger.warning("max_tasks_per_child and max_memory_per_child do nothing with -P solo: there are no children")
        return None, None
    return limits


def _queues(queues: Queues, given: Given) -> tuple[str, ...]:
    if given.queues:
        queues.select(given.queues)
    if given.exclude_queues:
        queues.deselect(given.exclude_queues)
    names = tuple(queues.consume_from)
    if not names:
        raise ImproperlyConfigured("no queue is left to take tasks from: check -Q, -X and task_queues")
    return names


def _prefetch(conf: Any, given: Given, slots: int) -> int | None:
    """Celery's prefetch is a bound where somebody asks for one; its default of 4 would make tiny tasks slow."""
    if given.disable_prefetch or conf.worker_disable_prefetch:
        return slots
    multiplier = given.prefetch_multiplier
    if multiplier is None and conf.value_set_for("worker_prefetch_multiplier"):
        multiplier = conf.worker_prefetch_multiplier
    return multiplier * slots if multiplier else None


def _positive(given: float | None, setting: float | None) -> float | None:
    """0 means none, as in Celery."""
    return (given if given is not None else setting) or None


def _whole(given: int | None, setting: int | None) -> int | None:
    return (given if given is not None else setting) or None
