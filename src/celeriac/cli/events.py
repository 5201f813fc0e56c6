"""``events``: what workers say they do, line by line."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from datetime import datetime
from typing import Any

import click

from celeriac.cli.context import Context, pass_context
from celeriac.client import resolver
from celeriac.codec.escape import one_line
from celeriac.exceptions import CeleryCommandException, OperationalError
from celeriac.ports import Bus

__all__ = ["events"]

_EXCHANGE = "celeryev"
#: Fields that every event has, and that a line does not repeat.
_COMMON = {"type", "hostname", "timestamp", "utcoffset", "pid", "clock", "uuid", "name", "traceback", "local_received"}


@click.command()
@click.option("-d", "--dump", is_flag=True, expose_value=False, help="Print them as lines: what it does anyway.")
@click.option("-j", "--json", "as_json", is_flag=True, help="Print each event as a line of JSON.")
@pass_context
def events(context: Context, as_json: bool) -> None:
    """Print what workers say they do, as it happens, until interrupted.

    Workers send events about tasks when started with -E, or after `control enable_events`.
    """
    url = context.app.broker_url
    show = _json_line if as_json else _line
    if not context.quiet and not as_json:
        context.echo(f"-> events from {resolver.mask(url)}; Ctrl-C ends")
    asyncio.run(_dump(url, resolver.adapter_options(context.app.conf, url), lambda event: context.echo(show(event))))


async def _dump(url: str, options: Any, show: Callable[[dict[str, Any]], None]) -> None:
    broker = resolver.broker(url, options)
    if not isinstance(broker, Bus):
        raise CeleryCommandException(f"{resolver.mask(url)} carries no events", 1)
    this = asyncio.current_task()
    assert this is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, this.cancel)
    try:
        await broker.open()
        async for payload, _ in broker.listen(_EXCHANGE):
            for event in payload if isinstance(payload, list) else [payload]:
                if isinstance(event, dict):
                    show(event)
    except asyncio.CancelledError:
        pass  # Ctrl-C: this coroutine is the whole program
    except OperationalError as error:
        raise CeleryCommandException(f"cannot listen for events: {error}", 1) from error
    finally:
        await broker.close()


def _json_line(event: dict[str, Any]) -> str:
    return json.dumps(event, default=repr)


def _line(event: dict[str, Any]) -> str:
    """``[time] node kind name[id] field=value …``"""
    at = event.get("timestamp")
    try:
        time = datetime.fromtimestamp(at).isoformat(" ", "milliseconds")  # type: ignore[arg-type]  # noqa: DTZ006
    except (TypeError, ValueError, OverflowError, OSError):  # anybody can send events
        time = "?"
    task = f" {event.get('name') or ''}[{event['uuid']}]" if event.get("uuid") else ""
    fields = " ".join(
        f"{key}={value}" for key, value in event.items() if key not in _COMMON and value not in (None, "")
    )
    return one_line(f"[{time}] {event.get('hostname')} {event.get('type')}{task} {fields}".rstrip())
