"""``call``, ``result`` and ``report``."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import click

from celeriac.cli.context import Context, importing, pass_context
from celeriac.codec.escape import lines
from celeriac.exceptions import CeleryCommandException, TimeoutError  # noqa: A004 - Celery's name

__all__ = ["Json", "call", "report", "result"]


class Json(click.ParamType[Any]):
    """JSON of one type."""

    def __init__(self, kind: type, name: str) -> None:
        self._kind = kind
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The decoded value."""
        if isinstance(value, self._kind):
            return value
        try:
            decoded = json.loads(value)
        except ValueError as error:
            self.fail(f"{value!r} is no JSON ({error})", param, ctx)
        if not isinstance(decoded, self._kind):
            self.fail(f"{value!r} is no {self.name}", param, ctx)
        return decoded


class _Time(click.ParamType[Any]):
    """A time, or a number of seconds where those are allowed."""

    name = "time"

    def __init__(self, *, seconds: bool = False) -> None:
        self._seconds = seconds

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A datetime or a float."""
        if self._seconds:
            try:
                return float(value)
            except ValueError:
                pass
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            more = " or a number of seconds" if self._seconds else ""
            self.fail(f"{value!r} is no time: write 2030-01-02T03:04:05+00:00{more}", param, ctx)


@click.command()
@click.option("-a", "--args", type=Json(list, "array"), default="[]", metavar="JSON", help="Positional arguments.")
@click.option("-k", "--kwargs", type=Json(dict, "object"), default="{}", metavar="JSON", help="Keyword arguments.")
@click.option("--eta", type=_Time(), metavar="TIME", help="Earliest start, in ISO 8601.")
@click.option("--countdown", type=float, metavar="SECONDS", help="Earliest start, from now.")
@click.option("--expires", type=_Time(seconds=True), metavar="TIME", help="Latest start: a time, or seconds from now.")
@click.option("--serializer", help="Serializer (default: task_serializer).")
@click.option("--queue", help="Queue.")
@click.option("--exchange", help="Exchange.")
@click.option("--routing-key", help="Routing key.")
@click.argument("name")
@pass_context
def call(context: Context, /, name: str, **options: Any) -> None:
    """Send a task by name and print its id.

    The name need not be known here.
    """
    sent = context.app.send_task(name, **{key: value for key, value in options.items() if value is not None})
    context.echo(sent.id)


@click.command()
@click.option("-t", "--task", metavar="NAME", help="Name of the task, where it has a result backend of its own.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Wait no longer than that.")
@click.option("--traceback", is_flag=True, help="Print its traceback instead.")
@click.argument("task_id", metavar="ID")
@pass_context
def result(context: Context, task_id: str, task: str | None, timeout: float | None, traceback: bool) -> None:
    """Print the result of a task; waits until there is one."""
    app = context.app
    if task is not None:
        with importing("cannot import the app's modules"):
            app.loader.import_default_modules()
    found = app.tasks[task].AsyncResult(task_id) if task else app.AsyncResult(task_id)
    if traceback:
        context.echo(lines(str(found.traceback or "")))
        return
    try:
        value = found.get(timeout=timeout, propagate=False)
    except TimeoutError as error:
        raise CeleryCommandException(
            f"task {task_id} has no result after {timeout:g} s: it is {found.state}", 1
        ) from error
    if isinstance(value, BaseException) and not found.successful():
        raise CeleryCommandException(f"task {task_id} is {found.state}: {value!r}; --traceback shows more", 1)
    context.echo(lines(value) if isinstance(value, str) else value)


@click.command()
@pass_context
def report(context: Context) -> None:
    """Print versions and settings, for bug reports; secrets are masked."""
    with importing("cannot import the app's modules"):
        context.app.loader.import_default_modules()
    context.echo(context.app.bugreport())
