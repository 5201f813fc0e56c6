"""``pause`` and ``resume``: stop the whole fleet from taking tasks out of some queues, and let it go on."""

from __future__ import annotations

from datetime import datetime

import click

from celeriac.cli.context import Context, pass_context
from celeriac.cli.replies import to_json

__all__ = ["pause", "resume"]


@click.command()
@click.option("--by", metavar="NAME", help="Who pauses them (default: user and host).")
@click.option("--reason", default="", metavar="TEXT", help="Why, for those who find them paused.")
@click.option("-l", "--list", "listed", is_flag=True, help="List the paused queues instead.")
@click.option("-j", "--json", "as_json", is_flag=True, help="With --list: print JSON.")
@click.argument("queues", nargs=-1)
@pass_context
def pause(context: Context, queues: tuple[str, ...], by: str | None, reason: str, listed: bool, as_json: bool) -> None:
    """Let no worker take tasks from these queues.

    Tasks that run are finished, and more can be sent. Workers that start later obey too, until `celeriac resume`.
    """
    control = context.app.control
    if listed:
        if queues:
            raise click.UsageError("--list shows all paused queues: name none")
        paused = control.paused_queues()
        if as_json:
            rows = {name: {"by": each.by, "reason": each.reason, "at": each.at} for name, each in paused.items()}
            context.echo(to_json(rows))
            return
        for name, each in sorted(paused.items()):
            since = datetime.fromtimestamp(each.at).astimezone().isoformat(" ", "seconds")
            why = f": {each.reason}" if each.reason else ""
            context.echo(f"{name}  paused {since} by {each.by}{why}")
        return
    _named(queues)
    control.pause_queue(*queues, by=by, reason=reason)
    if not context.quiet:
        context.echo(f"Paused {', '.join(queues)}.")


@click.command()
@click.argument("queues", nargs=-1)
@pass_context
def resume(context: Context, queues: tuple[str, ...]) -> None:
    """Let workers take tasks from paused queues again."""
    _named(queues)
    paused = context.app.control.paused_queues()
    context.app.control.resume_queue(*queues)
    if not context.quiet:
        running = [name for name in queues if name not in paused]
        resumed = [name for name in queues if name in paused]
        if resumed:
            context.echo(f"Resumed {', '.join(resumed)}.")
        if running:
            context.echo(f"Not paused: {', '.join(running)}.")


def _named(queues: tuple[str, ...]) -> None:
    if not queues:
        raise click.UsageError("name the queues, as in `celeriac pause emails`; --list of pause shows what is paused")
