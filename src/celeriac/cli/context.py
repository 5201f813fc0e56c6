"""What all commands share: the global options, the app they name, and how to print (``ctx.obj``, as in Celery)."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.failure import BadImport
from celeriac.exceptions import CeleryCommandException, ImproperlyConfigured

if TYPE_CHECKING:
    from celeriac.app.base import Celery

__all__ = ["EX_UNAVAILABLE", "CommaList", "Context", "global_options", "importing", "nobody", "pass_context"]

#: Exit code when no worker answers; health checks of containers rely on it.
EX_UNAVAILABLE = 69


class Context:
    """``ctx.obj``: plug-ins read ``app``, ``quiet``, ``no_color`` and use ``echo`` and ``style``."""

    def __init__(self, app: Any = None) -> None:
        self._app: Any = app
        self.app_name: str | None = None
        self.workdir: str | None = None
        self.no_color = bool(os.environ.get("NO_COLOR"))
        self.quiet = False
        self.debug = False

    @property
    def app(self) -> Celery:
        """The app that ``-A`` names, imported at the first use. Raises what makes the exit code 2."""
        if self._app is None:
            self._app = self._find()
        return self._app  # type: ignore[no-any-return]

    def _find(self) -> Celery:
        name = self.app_name or os.environ.get("CELERY_APP")
        if name:
            from celeriac.app.discovery import find_app

            with importing(f"cannot import {name!r}"):
                return find_app(name)
        if not any(os.environ.get(each) for each in ("CELERY_BROKER_URL", "CELERY_CONFIG_MODULE")):
            raise ImproperlyConfigured(
                "no app: name the module that holds it, as in -A proj or -A proj.module:app (or set CELERY_APP)"
            )
        from celeriac.app.base import Celery

        return Celery("default")

    def echo(self, message: Any = "", **options: Any) -> None:
        """Print, without colours where they are not wanted."""
        click.echo(message, color=False if self.no_color else None, **options)

    def secho(self, message: Any = "", **options: Any) -> None:
        """Print in a style."""
        click.secho(message, color=False if self.no_color else None, **options)

    def style(self, message: Any, **options: Any) -> str:
        """Text in a style."""
        return str(message) if self.no_color else click.style(message, **options)

    def pretty(self, value: Any) -> tuple[str, str]:
        """A state and the text of an answer, as Celery's commands show them."""
        from celeriac.cli.replies import pretty

        return pretty(value)


class importing:  # noqa: N801 - reads as a statement
    """``with importing("cannot import 'proj'"):`` what the user's modules raise becomes one line and exit code 2."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, SystemExit):
            raise BadImport(self._what) from RuntimeError(f"the module exits with {error.code!r} while it is imported")
        if isinstance(error, Exception) and not isinstance(error, ImproperlyConfigured):
            raise BadImport(self._what) from error


pass_context = click.pass_obj


class CommaList(click.ParamType[Any]):
    """Names separated by commas."""

    name = "list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """A tuple of names without blanks around them; the option may be repeated."""
        if isinstance(value, tuple):
            return value
        return tuple(part for each in str(value).split(",") if (part := each.strip()))


def _found(ctx: click.Context) -> Context:
    return ctx.ensure_object(Context)


def _set_app(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value:
        _found(ctx).app_name = value


def _set_flag(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and param.name:
        setattr(_found(ctx), param.name, True)


def _set_environment(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    # The settings read these at each use, in this process and in those that it starts.
    if value and param.name:
        os.environ[_ENVIRONMENT[param.name]] = value


def _take_names(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        import_module("celeriac.contrib.celery_names")


def _change_directory(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value:
        try:
            os.chdir(value)
        except OSError as error:
            raise click.UsageError(f"--workdir {value}: {error.strerror}", ctx) from error
        _found(ctx).workdir = value


_ENVIRONMENT = {
    "broker": "CELERY_BROKER_URL",
    "result_backend": "CELERY_RESULT_BACKEND",
    "config": "CELERY_CONFIG_MODULE",
    "loader": "CELERY_LOADER",
}


def global_options() -> list[click.Option]:
    """New objects for the options that stand before or after a command."""
    return [
        _GlobalOption(["-A", "--app"], metavar="APP", callback=_set_app, help="The app: module or module:attribute."),
        _GlobalOption(["-b", "--broker"], metavar="URL", callback=_set_environment, help="URL of the broker."),
        _GlobalOption(
            ["--result-backend"], metavar="URL", callback=_set_environment, help="URL of the result backend."
        ),
        _GlobalOption(["--loader"], metavar="CLASS", callback=_set_environment, help="Loader class of the app."),
        _GlobalOption(["--config"], metavar="MODULE", callback=_set_environment, help="Configuration module."),
        _GlobalOption(
            ["--workdir"],
            metavar="DIR",
            callback=_change_directory,
            is_eager=True,
            help="Change to this directory first.",
        ),
        _GlobalOption(
            ["--celery-names"],
            is_flag=True,
            is_eager=True,
            callback=_take_names,
            help="Add-ons that import celery find Celeriac.",
        ),
        _GlobalOption(["--skip-checks"], is_flag=True, hidden=True, help="For Celery's sake: there are no checks."),
        _GlobalOption(["-C", "--no-color"], is_flag=True, callback=_set_flag, help="No colours (also NO_COLOR=1)."),
        _GlobalOption(["-q", "--quiet"], is_flag=True, callback=_set_flag, help="Print results only."),
        _GlobalOption(["--debug"], is_flag=True, callback=_set_flag, help="Show tracebacks of errors."),
    ]


class _GlobalOption(click.Option):
    """Writes into the Context instead of arriving at the command; shown in the help of ``celeriac`` alone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, expose_value=False, **kwargs)


def nobody() -> CeleryCommandException:
    """No worker answered."""
    return CeleryCommandException(
        "no worker answered in time: check that one runs on this broker, or wait longer with -t", EX_UNAVAILABLE
    )


def interactive() -> bool:
    """Somebody sits at a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()
