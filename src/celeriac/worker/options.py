"""What a node was asked to be: command line and settings, resolved once by the supervisor, read by all its
processes."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["NodeOptions"]


class NodeOptions(Struct, frozen=True, kw_only=True):
    """Options of one node; times in seconds, memory in KiB (as Celery's ``worker_max_memory_per_child``)."""

    #: Node name: ``name@host``.
    hostname: str
    queues: tuple[str, ...]
    #: ``prefork``, ``threads`` or ``solo``.
    pool: str = "prefork"
    concurrency: int = 1
    #: Most and fewest children, where their number follows the load.
    autoscale: tuple[int, int] | None = None
    #: Seconds for which a child must have been too many before it is taken away.
    autoscale_keepalive: float = 30.0
    #: Seconds in which a child has to come up; 0: any.
    proc_alive: float = 60.0
    #: ``async def`` tasks in flight per child.
    async_concurrency: int = 100
    time_limit: float | None = None
    soft_time_limit: float | None = None
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None
    #: From SIGTERM until unfinished work is given back.
    grace: float = 25.0
    lease: float = 30.0
    #: Work in seconds that a child claims ahead.
    claim_target: float = 0.02
    #: Upper bound of deliveries held by a child (Celery's prefetch); None: none but ``claim_limit``.
    prefetch_limit: int | None = None
    #: Seconds an unknown task waits for a worker that knows it.
    park: float = 60.0
    #: Seconds for which a revoked task stays revoked; None: for ever.
    revoke_expires: float | None = 30 * 86400.0
    events: bool = False
    heartbeats: bool = True
    #: True, False, or ``inspect``: nothing that changes the node.
    remote_control: bool | str = True
    log_arguments: bool = False
    log_results: bool = False
    #: More parts of names whose values are not shown.
    redact_names: tuple[str, ...] = ()
    purge: bool = False
    #: Nothing but log lines (``--quiet``).
    quiet: bool = False
    pidfile: str | None = None
    statedb: str | None = None
    #: Send periodic tasks (``-B``), by the scheduler of that name (None: the setting's), which may keep a file.
    beat: bool = False
    scheduler: str | None = None
    schedule_filename: str | None = None
