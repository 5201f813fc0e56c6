"""``migrate``: make or renew what the app's servers must have before they can be used."""

from __future__ import annotations

import click

from celeriac.cli.context import Context, pass_context
from celeriac.client import resolver

__all__ = ["migrate"]


@click.command()
@pass_context
def migrate(context: Context) -> None:
    """Make the tables that this version needs, in PostgreSQL; run it as a role that may create them.

    Workers and producers do so by themselves where their role may and `auto_migrate` is not switched off. Other brokers
    need nothing.
    """
    app = context.app
    # By URL and schema: broker and result store may be two.
    wanted = {app.broker_url: resolver.adapter_options(app.conf, app.broker_url)}
    if app.backend_url is not None:
        wanted.setdefault(app.backend_url, resolver.store_options(app.conf))
    for url, options in wanted.items():
        found = resolver.migrate(url, options)
        if found is None:
            context.echo(f"{resolver.mask(url)}: nothing to do.")
        elif found[0] == found[1]:
            context.echo(f"{resolver.mask(url)}: the schema has version {found[1]} already.")
        elif found[0] == 0:
            context.echo(f"{resolver.mask(url)}: the schema was made, version {found[1]}.")
        else:
            context.echo(f"{resolver.mask(url)}: the schema went from version {found[0]} to {found[1]}.")
