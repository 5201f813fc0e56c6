"""Options that several programs have: the log's level, and those of Celery that cannot be had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from celeriac.cli.failure import Refused

__all__ = ["loglevel", "unavailable"]

_F = TypeVar("_F", bound=Callable[..., Any])


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


def unavailable(*names: str, why: str, flag: bool = False) -> Callable[[_F], _F]:
    """An option of Celery that does nothing here. It fails, saying why and what to do: ignoring it would hide it."""

    def refuse(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value not in (None, False):
            raise Refused(f"{'/'.join(names)} {why}")

    return click.option(*names, is_flag=flag, default=None, hidden=True, expose_value=False, callback=refuse)
