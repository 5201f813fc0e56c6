"""``outbox migrate|ddl|relay|status|list|retry|drop``: messages that wait in the application's database."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.context import Context, interactive, pass_context
from celeriac.client.outboxes import outbox_urls
from celeriac.client.resolver import mask
from celeriac.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from celeriac.model.outbox import Row
    from celeriac.ports import OutboxStore

__all__ = ["outbox"]


@click.group(invoke_without_command=True)
@click.pass_context
def outbox(ctx: click.Context) -> None:
    """Look after messages that wait in the application's database: app.transaction() puts them there.

    The database is that of the setting outbox_url, or --url.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


_url = click.option("--url", metavar="URL", help="This outbox (default: outbox_url; all of them).")
_json = click.option("-j", "--json", "as_json", is_flag=True, help="Print one JSON object a line.")


def _urls(context: Context, url: str | None) -> list[str]:
    found = [url] if url else outbox_urls(context.app.conf)
    if not found:
        raise ImproperlyConfigured("there is no outbox: set outbox_url, or name one by its URL")
    return found


@contextmanager
def _opened(url: str) -> Iterator[OutboxStore]:
    from celeriac.outbox.stores import store_of

    store = store_of(url)
    try:
        yield store
    finally:
        store.close()


@outbox.command()
@click.argument("url", required=False)
@pass_context
def migrate(context: Context, url: str | None) -> None:
    """Make the table in the database at URL (default: outbox_url). Running it again changes nothing."""
    for each in _urls(context, url):
        with _opened(each) as store:
            store.create()
        if not context.quiet:
            context.echo(f"The outbox is there: {mask(each)}")


@outbox.command()
@click.argument("dialect", type=click.Choice(["postgresql", "sqlite"]))
@pass_context
def ddl(context: Context, dialect: str) -> None:
    """Print the statements that make the table, for migrations of your own."""
    from celeriac.outbox import ddl as statements

    for statement in statements(dialect):
        context.echo(f"{statement};\n")


@outbox.command()
@_url
@click.option("--once", is_flag=True, help="Publish what is there now, then exit.")
@click.option("-l", "--loglevel", default="INFO", show_default=True, help="Level of the log.")
@pass_context
def relay(context: Context, url: str | None, once: bool, loglevel: str) -> None:
    """Publish what was committed, until SIGTERM. Workers with outbox_url do this too; any number does no harm."""
    from celeriac.client.relay import Relay
    from celeriac.outbox.stores import store_of

    app = context.app
    relays = [Relay(app, store_of(each), mask(each)) for each in _urls(context, url)]
    app.log.setup(loglevel)
    if once:
        for each in relays:
            while each.turn():
                pass
            each.close()
        return
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threads = [threading.Thread(target=each.run, args=(stop,), daemon=True) for each in relays]
    for thread in threads:
        thread.start()
    stop.wait()
    for thread in threads:
        thread.join(10)


@outbox.command()
@_url
@_json
@pass_context
def status(context: Context, url: str | None, as_json: bool) -> None:
    """Say how many messages wait, for how long, and how many cannot be published."""
    for each in _urls(context, url):
        with _opened(each) as store:
            now = store.standing()
        if as_json:
            row = {"outbox": mask(each), "waiting": now.waiting, "failed": now.failed, "oldest": round(now.oldest, 3)}
            context.echo(json.dumps(row))
        else:
            context.echo(f"{mask(each)}: {now.waiting} waiting, the oldest for {now.oldest:.1f} s; {now.failed} failed")


@outbox.command("list")
@_url
@click.option("--failed", is_flag=True, help="Only those that cannot be published.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Show no more than these.")
@_json
@pass_context
def list_(context: Context, url: str | None, failed: bool, limit: int, as_json: bool) -> None:
    """List the messages that are there, the oldest first."""
    shown = False
    for each in _urls(context, url):
        with _opened(each) as store:
            for row in store.list(failed=True if failed else None, limit=limit):
                context.echo(json.dumps(_as_dict(row)) if as_json else _line(row))
                shown = True
    if not shown and not as_json and not context.quiet:
        context.echo("No message has failed." if failed else "No message waits.")


@outbox.command()
@_url
@click.option("--all", "everything", is_flag=True, help="All that failed.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@pass_context
def retry(context: Context, url: str | None, everything: bool, ids: tuple[str, ...]) -> None:
    """Let relays try these again: ids of tasks or of rows."""
    _which(everything, ids)
    count = 0
    for each in _urls(context, url):
        with _opened(each) as store:
            count += store.retry(None if everything else ids)
    context.echo(f"{count} to be tried again.")


@outbox.command()
@_url
@click.option("--all", "everything", is_flag=True, help="All that failed.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@pass_context
def drop(context: Context, url: str | None, everything: bool, yes: bool, ids: tuple[str, ...]) -> None:
    """Forget these: ids of tasks or of rows. Their tasks never run; there is no way back."""
    _which(everything, ids)
    if everything and not yes:
        if not interactive():
            raise click.UsageError("this forgets all that failed: confirm with -y")
        click.confirm("Forget all that failed?", abort=True)
    count = 0
    for each in _urls(context, url):
        with _opened(each) as store:
            count += store.drop(None if everything else ids)
    context.echo(f"Dropped {count}.")


def _which(everything: bool, ids: tuple[str, ...]) -> None:
    if everything == bool(ids):
        raise click.UsageError("name the ids, or say --all")


def _line(row: Row) -> str:
    from celeriac.cli.letters import visible

    what = row.parcel.task or f"(a {row.parcel.kind.value})"
    state = "failed" if row.failed else "waiting"
    why = f": {row.error}" if row.error else ""
    return visible(f"{row.parcel.task_id}  {what}  {row.parcel.queue}  {state} for {row.age:.0f} s{why}")


def _as_dict(row: Row) -> dict[str, Any]:
    parcel = row.parcel
    return {
        "id": parcel.id, "kind": parcel.kind.value, "task": parcel.task, "task_id": parcel.task_id,
        "queue": parcel.queue, "bytes": len(parcel.body), "age": round(row.age, 3), "attempts": row.attempts,
        "failed": row.failed, "error": row.error,
    }  # fmt: skip
