"""``dead list|show|retry|drop``: the dead letters of an app's broker."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.calling import Json
from celeriac.cli.context import Context, importing, interactive, pass_context
from celeriac.exceptions import CeleryCommandException

if TYPE_CHECKING:
    from celeriac.app.dead import DeadLetters

__all__ = ["dead"]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
#: Skipped letters that are told one by one.
_TOLD = 20
_REASONS = (
    "failed", "worker lost", "unknown task", "malformed", "refused", "rejected", "time limit",
    "lease expired too often",
)  # fmt: skip


class _When(click.ParamType[Any]):
    """A time, or how long ago."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A datetime or a timedelta."""
        if isinstance(value, (datetime, timedelta)):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", value.strip())
        if match is not None:
            return timedelta(**{_UNITS[match[2]]: float(match[1])})
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time: write 90s, 10m, 2h, 3d, 1w or 2030-01-02T03:04:05+00:00", param, ctx)


class _Reason(click.ParamType[Any]):
    """A reason, written with blanks or hyphens; its beginning is enough."""

    name = "reason"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The reason as the letters have it."""
        wanted = re.sub("[-_]", " ", value.strip().lower())
        found = [reason for reason in _REASONS if reason == wanted]
        found = found or [reason for reason in _REASONS if wanted and reason.startswith(wanted)]
        if len(found) != 1:
            self.fail(f"{value!r} is no reason: they are {', '.join(_REASONS)}", param, ctx)
        return found[0]


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which letters are meant."""
    for option in (
        click.option("--older-than", type=_When(), metavar="WHEN", help="Died before: 2h, 3d ago or a time."),
        click.option("--since", type=_When(), metavar="WHEN", help="Died since: 90s, 10m, 2h, 3d, 1w ago or a time."),
        click.option("--reason", type=_Reason(), metavar="REASON", help=f"Why: {', '.join(_REASONS)}."),
        click.option("--exception", default="", metavar="TEXT", help="Part of the exception, its class or its text."),
        click.option("--queue", default="", metavar="QUEUE", help="Queue they came from."),
        click.option("--task", default="", metavar="NAME", help="Name of the task; * and ? for any characters."),
    ):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@click.pass_context
def dead(ctx: click.Context) -> None:
    """Look at tasks that could not be done, send them again, drop them.

    An ID is that of the task or the letter's own key, or the beginning of either. Filters must all fit.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@dead.command("list")
@_filters
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Show no more than these.")
@click.option("-j", "--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@pass_context
def list_(context: Context, /, limit: int, as_json: bool, **filters: Any) -> None:
    """List dead letters, the newest first."""
    from celeriac.cli import letters

    found = context.app.dead_letters.list(**filters, limit=limit + 1)
    for number, each in enumerate(found[:limit]):
        if as_json:
            context.echo(letters.as_json(each))
            continue
        if not number and not context.quiet:
            context.secho(letters.HEADER, bold=True)
        for line in letters.two_lines(each):
            context.echo(line)
    if not context.quiet and not as_json:
        if not found:
            context.echo("No dead letter fits." if any(filters.values()) else "There are no dead letters.")
        elif len(found) > limit:
            context.echo(f"There are more than these {limit}: see --limit.", err=True)


@dead.command()
@click.option("-j", "--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.option("--raw", is_flag=True, help="Print the bytes of the message instead, nothing masked.")
@click.argument("which", metavar="ID")
@pass_context
def show(context: Context, which: str, as_json: bool, raw: bool) -> None:
    """Show all there is of a dead letter, with arguments and traceback.

    Arguments named like passwords, tokens and secrets, or as redact_names says, are masked.
    """
    from celeriac.cli import letters

    box = context.app.dead_letters
    letter = box.get(which)
    if raw:
        context.echo(letter.raw, nl=False)
        return
    arguments, names = box.arguments(letter), context.app.conf.redact_names
    if as_json:
        args, kwargs = letters.shown(arguments, names) or (None, None)
        context.echo(letters.as_json(letter, args=args, kwargs=kwargs))
        return
    for line in letters.details(letter, arguments, names):
        context.echo(line)


@dead.command()
@_filters
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--limit", type=click.IntRange(1), help="No more than these, the newest first.")
@click.option("--to-queue", metavar="QUEUE", help="Send to this queue instead.")
@click.option("-a", "--args", type=Json(list, "array"), metavar="JSON", help="Other positional arguments.")
@click.option("-k", "--kwargs", type=Json(dict, "object"), metavar="JSON", help="Other keyword arguments.")
@click.option("--countdown", type=float, metavar="SECONDS", help="Earliest start, from now.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("-j", "--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@pass_context
def retry(
    context: Context,
    /,
    ids: tuple[str, ...],
    everything: bool,
    limit: int | None,
    to_queue: str | None,
    args: list[Any] | None,
    kwargs: dict[str, Any] | None,
    countdown: float | None,
    yes: bool,
    as_json: bool,
    **filters: Any,
) -> None:
    """Send dead letters again: those named, or all that fit. Each leaves the dead letters as it is sent.

    The tasks keep their ids; retries and crashes count from zero.
    """
    box = context.app.dead_letters
    if (args is not None or kwargs is not None) and len(ids) != 1:
        raise click.UsageError("-a and -k change the arguments of one letter: name it by its ID")
    if ids:
        _no_filters(filters, everything, limit)
        if args is not None or kwargs is not None:
            with importing("cannot import the app's modules"):
                context.app.loader.import_default_modules()

        def send(which: str) -> str:
            found = box.retry(which, args=args, kwargs=kwargs, to_queue=to_queue, countdown=countdown)
            return str(found.id)

        sent, skipped = _one_by_one(ids, send)
    else:
        count = _confirmed(context, box, "Send", "again", filters, everything, limit, yes)
        if not count:
            return
        done = box.retry_all(**filters, limit=limit, to_queue=to_queue, countdown=countdown)
        sent = list(done.ids)
        skipped = [(each.letter.key, each.why) for each in done.skipped]
    _tell(context, "Sent", "again", sent, skipped, as_json)


@dead.command()
@_filters
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--limit", type=click.IntRange(1), help="No more than these, the newest first.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@pass_context
def drop(
    context: Context, /, ids: tuple[str, ...], everything: bool, limit: int | None, yes: bool, **filters: Any
) -> None:
    """Drop dead letters: those named, or all that fit. There is no way back."""
    box = context.app.dead_letters
    if ids:
        _no_filters(filters, everything, limit)

        def forget(which: str) -> str:
            box.drop(which)
            return which

        dropped, skipped = _one_by_one(ids, forget)
        _tell(context, "Dropped", "", dropped, skipped, False)
        return
    count = _confirmed(context, box, "Drop", "for ever", filters, everything, limit, yes)
    if count:
        number = box.drop_all(**filters, limit=limit)
        context.echo(f"Dropped {_letters(number)}.")


def _no_filters(filters: dict[str, Any], everything: bool, limit: int | None) -> None:
    if everything or limit is not None or any(filters.values()):
        raise click.UsageError("name letters by their IDs, or choose them by filters, not both")


def _one_by_one(ids: tuple[str, ...], act: Callable[[str], str]) -> tuple[list[str], list[tuple[str, str]]]:
    """What ``act`` returned, and the ids that it refused with the reason."""
    from celeriac.app.dead import DeadLetterNotFound, DeadLetterRefused

    done: list[str] = []
    skipped: list[tuple[str, str]] = []
    for which in ids:
        try:
            done.append(act(which))
        except (DeadLetterNotFound, DeadLetterRefused, TypeError) as error:
            if len(ids) == 1:
                code = 2 if isinstance(error, TypeError) else 1
                raise CeleryCommandException(str(error), code) from error
            skipped.append((which, str(error)))
    return done, skipped


def _confirmed(
    context: Context,
    box: DeadLetters,
    verb: str,
    how: str,
    filters: dict[str, Any],
    everything: bool,
    limit: int | None,
    yes: bool,
) -> int:
    """How many letters are meant, once somebody has agreed; says so when there are none."""
    if not everything and not any(filters.values()):
        raise click.UsageError("which ones? Name them by their IDs, choose them by filters, or say --all")
    if not yes and not interactive():
        raise click.UsageError("confirm with --yes")
    count = box.count(**filters)
    if limit is not None:
        count = min(count, limit)
    if not count:
        context.echo("No dead letter fits.")
    elif not yes:
        click.confirm(f"{verb} {_letters(count)} {how}?", abort=True)
    return count


def _tell(
    context: Context, verb: str, how: str, done: list[str], skipped: list[tuple[str, str]], as_json: bool
) -> None:
    """Say what was done; exit code 1 when something was not."""
    from celeriac.cli.letters import visible

    if as_json:
        told = [{"which": which, "why": why} for which, why in skipped]
        context.echo(json.dumps({"sent": done, "skipped": told}))
    else:
        context.echo(f"{verb} {_letters(len(done))}{f' {how}' if how else ''}.")
        for which, why in skipped[:_TOLD]:
            context.echo(f"Skipped {visible(which)}: {visible(why)}", err=True)
        if len(skipped) > _TOLD:
            context.echo(f"Skipped {len(skipped) - _TOLD} more.", err=True)
    if skipped:
        raise CeleryCommandException(f"{_letters(len(skipped))} skipped", 1)


def _letters(number: int) -> str:
    return f"{number} dead letter{'' if number == 1 else 's'}"
