"""``purge``: delete what waits."""

from __future__ import annotations

import click

from celeriac.cli.context import CommaList, Context, interactive, pass_context
from celeriac.client import resolver

__all__ = ["purge"]

_TIMEOUT = 10.0


@click.command()
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("-Q", "--queues", metavar="QUEUES", type=CommaList(), help="These queues (default: the app's).")
@click.option("-X", "--exclude-queues", metavar="QUEUES", type=CommaList(), help="All but these queues.")
@pass_context
def purge(
    context: Context, force: bool, queues: tuple[str, ...] | None, exclude_queues: tuple[str, ...] | None
) -> None:
    """Delete all waiting tasks of some queues, scheduled ones too. There is no way back.

    Tasks that a worker holds are not touched.
    """
    app = context.app
    known = app.sender.router.queues
    names = sorted(set(queues or known.consume_from) - set(exclude_queues or ()))
    if not names:
        raise click.UsageError("no queue is left to purge: check -Q and -X")
    if not force:
        if not interactive():
            raise click.UsageError(f"this deletes all tasks in {', '.join(names)}: confirm with -f")
        context.secho(f"This deletes all waiting tasks in: {', '.join(names)}. There is no way back.", bold=True)
        click.confirm("Delete them?", abort=True)
    url = app.broker_url
    publisher = resolver.publisher(url, resolver.adapter_options(app.conf, url))
    total = sum(publisher.purge(name, timeout=_TIMEOUT) for name in names)
    publisher.close()
    where = f"{len(names)} queue{'' if len(names) == 1 else 's'}"
    context.echo(f"Purged {total} message{'' if total == 1 else 's'} from {where}.")
