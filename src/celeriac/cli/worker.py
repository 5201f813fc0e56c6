"""``worker``: start a node."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.context import CommaList, Context, importing, pass_context
from celeriac.cli.options import loglevel, unavailable

if TYPE_CHECKING:
    from celeriac.supervisor.start import Node

__all__ = ["worker"]


def _bounds(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """MAX or MAX,MIN, in any order, as Celery has it."""
    if value is None:
        return None
    try:
        numbers = [int(part) for part in value.split(",")]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 2:
        raise click.UsageError(f"--autoscale takes MAX,MIN, not {value!r}: write --autoscale 10,3", ctx)
    return max(numbers), min(numbers) if len(numbers) > 1 else 0


@click.command()
@loglevel
@click.option("-f", "--logfile", metavar="FILE", help="Log there; %n, %h, %d: name, host, domain; %i, %I: child.")
@click.option("--log-format", metavar="FORMAT", help="Log lines: json, or a format of Python's logging.")
@click.option("-n", "--hostname", metavar="NAME", help="Name of the node: name@%h, where %h, %n, %d are the host's.")
@click.option("-Q", "--queues", metavar="QUEUES", type=CommaList(), help="Take tasks from these queues only.")
@click.option("-X", "--exclude-queues", metavar="QUEUES", type=CommaList(), help="Take none from these.")
@click.option("-c", "--concurrency", type=int, help="Children or threads (default: the number of CPUs).")
@click.option("--autoscale", metavar="MAX,MIN", callback=_bounds, help="Between so many children, as the load has it.")
@click.option("-P", "--pool", metavar="POOL", help="prefork (default), threads or solo.")
@click.option("-E", "--task-events", "--events", "events", is_flag=True, help="Send events about tasks.")
@click.option(
    "-O", "--optimization", metavar="PROFILE", hidden=True, expose_value=False, type=click.Choice(["default", "fair"])
)
@click.option("-I", "--include", metavar="MODULES", type=CommaList(), help="Import these modules too.")
@click.option("--time-limit", type=float, metavar="SECONDS", help="Hard limit of tasks that have none.")
@click.option("--soft-time-limit", type=float, metavar="SECONDS", help="Soft limit of tasks that have none.")
@click.option("--max-tasks-per-child", type=int, metavar="N", help="Replace a child after so many tasks.")
@click.option("--max-memory-per-child", type=int, metavar="KIB", help="Replace a child that uses more memory.")
@click.option("--prefetch-multiplier", type=int, metavar="N", help="Hold at most so many tasks per slot.")
@click.option("--disable-prefetch", is_flag=True, help="Hold no tasks but those that run.")
@click.option("--purge", "--discard", "purge", is_flag=True, help="Delete all waiting tasks of its queues first.")
@click.option("--pidfile", metavar="FILE", help="Write the process id there; refuse to start while it lives.")
@click.option("--uid", metavar="USER", help="Become this user.")
@click.option("--gid", metavar="GROUP", help="Become this group.")
@click.option("--umask", metavar="OCTAL", help="Mask of new files' modes.")
@click.option("--without-heartbeat", is_flag=True, help="Send no heartbeat events.")
@click.option("--without-gossip", is_flag=True, expose_value=False, help="For Celery's sake: there is no gossip.")
@click.option("--without-mingle", is_flag=True, expose_value=False, help="For Celery's sake: a start waits for nobody.")
@click.option("-B", "--beat", is_flag=True, help="Send periodic tasks too: any number of workers may.")
@click.option("--scheduler", metavar="CLASS", help="With -B: module:Class, or the name of an entry point.")
@click.option(
    "-s", "--schedule-filename", "--schedule", metavar="FILE", help="With -B: file of a scheduler that keeps one."
)
@unavailable(
    "-D", "--detach", flag=True, why="is not available yet: start the worker from systemd, a container or nohup"
)
@unavailable("--pool-start-method", why="is not available yet: children are forked")
@unavailable("--heartbeat-interval", why="is not available: heartbeats come every 2 seconds")
@unavailable("--executable", why="goes with -D/--detach, which is not available yet")
@unavailable("-S", "--statedb", why="is not available, nor needed: revoked ids are kept on the broker")
@pass_context
def worker(context: Context, /, **options: Any) -> int:
    """Start a worker node: a supervisor, an agent and children that run tasks.

    SIGTERM or SIGINT stops it when running tasks have ended (worker_grace seconds at most), a second one or SIGQUIT at
    once; tasks that have not ended go back to their queues.
    """
    app = context.app
    from msgspec.structs import replace

    from celeriac.app.nodenames import node_name
    from celeriac.supervisor.pidfile import PidFile
    from celeriac.supervisor.privileges import drop_privileges
    from celeriac.supervisor.start import launch, load_modules

    hostname = node_name(options["hostname"], os.uname().nodename)
    drop_privileges(options["uid"], options["gid"], options["umask"])
    if options["log_format"]:
        app.conf.worker_log_format = app.conf.worker_task_log_format = options["log_format"]
    if options["include"]:
        app.conf.include = [*(app.conf.include or ()), *options["include"]]
    with importing("cannot import the modules with tasks"):
        load_modules(app)
    with ExitStack() as stack:
        if options["pidfile"]:
            from celeriac.app.nodenames import expand

            stack.enter_context(PidFile(expand(options["pidfile"], hostname)))
        node = _node(context, options, hostname)
        if not context.quiet:
            from celeriac.cli.banner import banner

            click.echo(banner(node, context.app_name, tasks=options["loglevel"] <= _INFO), color=False)
        node.options = replace(node.options, quiet=context.quiet)
        return launch(node, ready=lambda: _ready(node))


_INFO = 20


def _node(context: Context, options: dict[str, Any], hostname: str) -> Node:
    from celeriac.supervisor.node import Given
    from celeriac.supervisor.start import prepare

    same = (
        "pool",
        "concurrency",
        "autoscale",
        "prefetch_multiplier",
        "disable_prefetch",
        "time_limit",
        "soft_time_limit",
        "events",
        "max_tasks_per_child",
        "max_memory_per_child",
        "purge",
        "pidfile",
        "beat",
        "scheduler",
        "schedule_filename",
    )
    given = Given(
        queues=options["queues"] or (),
        exclude_queues=options["exclude_queues"] or (),
        heartbeats=not options["without_heartbeat"],
        **{name: options[name] for name in same},
    )
    return prepare(
        context.app,
        given,
        hostname=hostname,
        loglevel=options["loglevel"],
        logfile=options["logfile"],
        colorize=False if context.no_color else None,
    )


def _ready(node: Node) -> None:
    import logging

    logging.getLogger("celery.apps.worker").info("%s ready.", node.hostname)
