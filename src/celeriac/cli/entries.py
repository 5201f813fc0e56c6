"""``beat list|show|add|change|pause|resume|run|delete|status``: the entries of an app, and who sends them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.calling import Json
from celeriac.cli.context import Context, importing, pass_context
from celeriac.cli.letters import visible

if TYPE_CHECKING:
    from celeriac.beat.desk import Periodic, Shown
    from celeriac.beat.seen import Seen

__all__ = ["COMMANDS"]

_WIDTH = 80
_json = click.option("-j", "--json", "as_json", is_flag=True, help="Print one JSON object a line.")
_name = click.argument("name")


def _keys(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what an entry is."""
    for option in (
        click.option("--enabled/--disabled", default=None, help="Sent, or paused."),
        click.option("--expires", type=float, metavar="SECONDS", help="A run may start so long after it was sent."),
        click.option("--overlap", type=click.Choice(["allow", "skip", "queue"]), help="While the run before goes on."),
        click.option("--deadline", type=float, metavar="SECONDS", help="A slot older than this is not caught up."),
        click.option("--catch-up", type=click.Choice(["none", "once", "all"]), help="Which missed slots are sent."),
        click.option("--options", type=Json(dict, "object"), metavar="JSON", help="Options of apply_async, an object."),
        click.option("--queue", metavar="QUEUE", help="The queue, as in --options."),
        click.option("--kwargs", type=Json(dict, "object"), metavar="JSON", help="Keyword arguments, an object."),
        click.option("--args", type=Json(list, "list"), metavar="JSON", help="Arguments, a list."),
        click.option("--tz", metavar="ZONE", help="Time zone of --crontab and of an --at without one."),
        click.option("--at", metavar="TIME", help="Once, at this time: 2030-01-02T03:04:05+00:00."),
        click.option("--solar", metavar="EVENT,LAT,LON", help="At a solar event: sunset,59.9,10.7."),
        click.option("--crontab", metavar="FIELDS", help='Minute, hour, day, month, weekday: "0 9 * * mon-fri".'),
        click.option("--every", type=float, metavar="SECONDS", help="Every so many seconds."),
        click.option("--task", metavar="TASK", help="Name of the task."),
    ):
        command = option(command)
    return command


@click.command("list")
@_json
@pass_context
def list_(context: Context, /, as_json: bool) -> None:
    """List periodic tasks: those of the settings, and stored ones."""
    found, passed_over = _desk(context).survey()
    if as_json:
        for each in found:
            context.echo(json.dumps(_plain(each)))
        for name, why in passed_over.items():
            context.echo(json.dumps({"name": name, "stored": True, "passed_over": why}))
        return
    if found and not context.quiet:
        context.secho(f"{'NEXT (UTC)':19}  {'LAST (UTC)':19}  NAME", bold=True)
    for each in found:
        for line in _lines(each):
            context.echo(line)
    if not found and not context.quiet:
        context.echo("There are no periodic tasks: see beat_schedule, or `celeriac beat add`.")
    _print_passed_over(context, passed_over)


@click.command()
@_json
@_name
@pass_context
def show(context: Context, /, name: str, as_json: bool) -> None:
    """Show all there is about an entry."""
    _print(context, _desk(context).show(name), as_json)


@click.command()
@_keys
@_json
@_name
@pass_context
def add(context: Context, /, name: str, as_json: bool, **given: Any) -> None:
    """Store an entry; schedulers find it within a second."""
    keys = _given(given)
    for key, option in (("task", "--task"), ("schedule", "--every, --crontab, --solar or --at")):
        if key not in keys:
            raise click.UsageError(f"{key} is missing: give {option}")
    _print_edited(context, _desk(context).add(name, **keys), as_json)


@click.command()
@_keys
@_json
@_name
@pass_context
def change(context: Context, /, name: str, as_json: bool, **given: Any) -> None:
    """Change a stored entry. With another schedule it counts from now."""
    keys = _given(given)
    if not keys:
        raise click.UsageError("nothing to change: give at least one option")
    _print_edited(context, _desk(context).change(name, **keys), as_json)


@click.command()
@_name
@pass_context
def pause(context: Context, /, name: str) -> None:
    """Send an entry no more until it is resumed."""
    _desk(context).pause(name)
    context.echo(f"Entry {visible(name)} is paused.")


@click.command()
@_name
@pass_context
def resume(context: Context, /, name: str) -> None:
    """Send a paused entry again, counting from now."""
    each = _desk(context).resume(name)
    context.echo(f"Entry {visible(name)} goes on; next at {_time(each.next_run)} UTC.")


@click.command()
@click.option("--force", is_flag=True, help="Send it whatever its overlap says.")
@_name
@pass_context
def run(context: Context, /, name: str, force: bool) -> None:
    """Send the task of an entry now; prints its id.

    Its overlap counts: with "skip" nothing is sent while the run before goes on, and it ends with 1; with "queue" the
    task starts when that one has ended.
    """
    context.echo(_desk(context).run(name, force=force).id)


@click.command()
@_name
@pass_context
def delete(context: Context, /, name: str) -> None:
    """Forget a stored entry."""
    _desk(context).delete(name)
    context.echo(f"Entry {visible(name)} is deleted.")


@click.command()
@_json
@pass_context
def status(context: Context, /, as_json: bool) -> int:
    """Show the schedulers that run. Ends with 69 when there is none."""
    desk = _desk(context)
    found, passed_over = desk.schedulers(), desk.survey().passed_over
    for name, seen in sorted(found.items()):
        if as_json:
            context.echo(json.dumps({"name": name, **seen.plain(), "passed_over": passed_over}))
            continue
        for line in _scheduler(name, seen):
            context.echo(line)
    if not as_json:
        _print_passed_over(context, passed_over)
    if not found and not as_json:
        context.echo(
            "No scheduler was heard of in the last half minute: start `celeriac beat`, or a worker with -B.", err=True
        )
    return 0 if found else 69


COMMANDS: tuple[click.Command, ...] = (list_, show, add, change, pause, resume, run, delete, status)


def _desk(context: Context) -> Periodic:
    """``app.periodic``, with all that the app's modules say."""
    with importing("cannot import the modules with tasks"):
        context.app.loader.import_default_modules()
    desk: Periodic = context.app.periodic
    return desk


def _given(given: dict[str, Any]) -> dict[str, Any]:
    """The keys of the entry. Raises ``UsageError``."""
    keys = {key: value for key, value in given.items() if value is not None}
    zone = keys.pop("tz", None)
    kinds = [kind for kind in ("every", "crontab", "solar", "at") if kind in keys]
    if len(kinds) > 1:
        raise click.UsageError(f"give one schedule, not --{' and --'.join(kinds)}")
    for kind in kinds:
        value = keys.pop(kind)
        if kind == "solar":
            event, *place = value.split(",")
            try:
                value = [event, *map(float, place)]
            except ValueError:
                raise click.UsageError(f"--solar takes EVENT,LAT,LON, not {value!r}") from None
        keys["schedule"] = {kind: value} if zone is None else {kind: value, "tz": zone}
    if zone is not None and not kinds:
        raise click.UsageError("--tz goes with a schedule: give --crontab too")
    queue = keys.pop("queue", None)
    if queue is not None:
        keys["options"] = {**keys.get("options", {}), "queue": queue}
    return keys


def _print_edited(context: Context, each: Shown, as_json: bool) -> None:
    _print(context, each, as_json)
    if each.entry.task not in context.app.tasks:
        context.echo(
            f"The task {visible(each.entry.task)} is not registered in this app; it is sent by its name.", err=True
        )


def _print(context: Context, each: Shown, as_json: bool) -> None:
    if as_json:
        context.echo(json.dumps(_plain(each)))
        return
    for key, value in _plain(each).items():
        if value not in (None, "", [], {}):
            context.echo(f"{key:10} {visible(value if isinstance(value, str) else json.dumps(value))}")


def _lines(each: Shown) -> tuple[str, str]:
    """When, and what; the name is never cut."""
    entry = each.entry
    following = "paused" if not entry.enabled else _time(each.next_run)
    first = f"{following:19}  {_time(each.last_run):19}  {visible(entry.name)}"
    notes = ", ".join(text for text, on in (("overdue", each.overdue), ("stored", entry.stored)) if on)
    notes = f" ({notes})" if notes else ""
    what, room = f"    {visible(entry.task)} {visible(repr(entry.schedule))}", _WIDTH - len(notes)
    return first, (what if len(what) <= room else what[: room - 1] + "…") + notes


def _print_passed_over(context: Context, passed_over: Mapping[str, str]) -> None:
    for name, why in sorted(passed_over.items()):
        context.echo(f"Stored, but passed over: {visible(name)}\n    {visible(why)}")


def _scheduler(name: str, seen: Seen) -> tuple[str, str]:
    """Who, and how it does."""
    kind = "worker -B" if seen.embedded else "beat"
    ticked = _time(datetime.fromtimestamp(seen.tick, UTC)) if seen.tick else "-"
    first = f"{visible(name)}  {kind}, celeriac {visible(seen.version)}, last look {ticked} UTC"
    entries = "1 entry" if seen.entries == 1 else f"{seen.entries} entries"
    second = f"    {entries}, {seen.sent} sent, clock {round(seen.skew, 2) + 0.0:+.2f} s"
    if seen.late is not None:
        second += ", late p50 {:.3f}, p99 {:.3f}, most {:.3f} s".format(*seen.late)
    return first, second


def _plain(each: Shown) -> dict[str, Any]:
    entry = each.entry
    try:
        keys = entry.to_json()
    except ValueError:  # only the program of the settings can say it
        keys = {"task": entry.task, "schedule": repr(entry.schedule)}
    return {
        "name": entry.name,
        "stored": entry.stored,
        **keys,
        "enabled": entry.enabled,
        "next": _iso(each.next_run),
        "last": _iso(each.last_run),
        "last_slot": _iso(each.last_slot),
        "last_id": each.last_id or None,
        "count": each.count,
        "overdue": each.overdue,
    }


def _time(moment: datetime | None) -> str:
    return "-" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()
