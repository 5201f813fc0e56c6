"""``beat``: start a scheduler of periodic tasks; its subcommands are in ``entries.py``."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import ExitStack
from typing import Any

import click
from click.core import ParameterSource

from celeriac.cli.context import Context, importing
from celeriac.cli.entries import COMMANDS
from celeriac.cli.options import loglevel, unavailable

__all__ = ["beat"]


@click.group(invoke_without_command=True)
@loglevel
@click.option("-f", "--logfile", metavar="FILE", help="Log there; %n, %h, %d: name, host, domain.")
@click.option("-S", "--scheduler", metavar="CLASS", help="module:Class, or the name of an entry point.")
@click.option("-s", "--schedule", metavar="FILE", help="File of a scheduler that keeps one (PersistentScheduler).")
@click.option("--max-interval", type=float, metavar="SECONDS", help="Longest sleep between two looks at the schedule.")
@click.option(
    "--enable-remote-control/--no-enable-remote-control",
    "remote_control",
    default=None,
    help="Answer `celeriac inspect ping`; default: beat_enable_remote_control.",
)
@click.option("-n", "--hostname", metavar="NAME", help="Name of the node that answers (default: celerybeat@%h).")
@click.option("--pidfile", metavar="FILE", help="Write the process id there; refuse to start while it lives.")
@click.option("--uid", metavar="USER", help="Become this user.")
@click.option("--gid", metavar="GROUP", help="Become this group.")
@click.option("--umask", metavar="OCTAL", help="Mask of new files' modes.")
@unavailable("--detach", flag=True, why="is not available: start beat from systemd, a container or nohup")
@unavailable("--executable", why="goes with --detach, which is not available")
@click.pass_context
def beat(ctx: click.Context, /, **options: Any) -> int | None:
    """Start a scheduler that sends periodic tasks when they are due.

    Any number of them may run, and workers with -B: each slot is sent once. SIGTERM or SIGINT stops it.
    """
    if ctx.invoked_subcommand is not None:
        for param in ctx.command.params:
            if param.name in options and ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(f"{param.opts[-1]} is for the scheduler, not for {ctx.invoked_subcommand}", ctx)
        return None
    return _start(ctx.ensure_object(Context), options)


for _command in COMMANDS:
    beat.add_command(_command)


def _start(context: Context, options: dict[str, Any]) -> int:
    app = context.app
    from celeriac.app.nodenames import expand, node_name
    from celeriac.beat.service import BeatService, verify
    from celeriac.supervisor.pidfile import PidFile
    from celeriac.supervisor.privileges import drop_privileges
    from celeriac.supervisor.start import load_modules

    if options["max_interval"] is not None and options["max_interval"] <= 0:
        raise click.UsageError("--max-interval must be more than 0 seconds")
    hostname = node_name(options["hostname"], os.uname().nodename, default="celerybeat")
    drop_privileges(options["uid"], options["gid"], options["umask"])
    with importing("cannot import the modules with tasks"):
        load_modules(app)
    with ExitStack() as stack:
        if options["pidfile"]:
            stack.enter_context(PidFile(expand(options["pidfile"], hostname)))
        conf = app.conf
        app.log.setup(
            options["loglevel"],
            options["logfile"],
            redirect_stdouts=conf.worker_redirect_stdouts,
            redirect_level=conf.worker_redirect_stdouts_level,
            colorize=False if context.no_color else None,
            hostname=hostname,
        )
        _refuse_memory(app)
        kind = verify(app, options["scheduler"], options["schedule"])
        answers = options["remote_control"]
        service = BeatService(
            app,
            kind,
            max_interval=options["max_interval"],
            schedule_filename=options["schedule"],
            hostname=hostname if (conf.beat_enable_remote_control if answers is None else answers) else None,
        )
        if not context.quiet:
            click.echo(_banner(context, kind, service.hostname), color=False)
        asyncio.run(_serve(service))
    return 0


async def _serve(service: Any) -> None:
    """Run until SIGTERM or SIGINT, or until the service itself ends by an error."""
    loop = asyncio.get_running_loop()
    running = asyncio.ensure_future(service.run())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        loop.add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        if not running.cancelled():
            raise


def _refuse_memory(app: Any) -> None:
    if app.broker_url.startswith("memory:"):
        from celeriac.exceptions import ImproperlyConfigured

        raise ImproperlyConfigured(
            "memory:// keeps tasks inside one process, so no worker would see what beat sends: use -P solo -B, or "
            "sqlite:///file"
        )


def _banner(context: Context, kind: Any, hostname: str | None) -> str:
    import platform

    from celeriac import __version__
    from celeriac.cli.banner import shown

    app = context.app
    rows = [
        ("app", context.app_name or app.main or "default"),
        ("broker", shown(app.broker_url)),
        ("scheduler", f"{kind.__module__}:{kind.__qualname__}" if isinstance(kind, type) else repr(kind)),
        ("entries", f"{len(app.conf.beat_schedule or {})} in the settings"),
    ]
    if hostname is not None:
        rows.append(("answers as", hostname))
    lines = [f"beat  celeriac {__version__}, Python {platform.python_version()}", ""]
    return "\n".join([*lines, *(f"  {name:<10} {text}" for name, text in rows)]) + "\n"
