"""``-l/--loglevel``, as the programs that log have it."""

from __future__ import annotations

import click

__all__ = ["loglevel"]


def _level(ctx: click.Context, param: click.Parameter, value: str) -> int:
    from celeriac.app.log import level_of
    from celeriac.exceptions import ImproperlyConfigured

    try:
        return level_of(value)
    except ImproperlyConfigured as error:
        raise click.UsageError(f"-l: {error}", ctx) from None


#: Gives the command a number of Python's logging.
loglevel = click.option(
    "-l",
    "--loglevel",
    metavar="LEVEL",
    default="WARNING",
    show_default=True,
    callback=_level,
    help="debug, info, warning, error, critical, fatal, or a number.",
)
