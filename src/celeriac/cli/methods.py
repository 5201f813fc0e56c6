"""The remote commands that ``inspect`` and ``control`` know: arguments by position, as Celery's have them.

Data and parsing only. Commands that an app registers itself take ``name=value`` arguments, values in JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import click

__all__ = ["CONTROL", "INSPECT", "Method", "parse"]


def _yes(text: str) -> bool:
    lowered = text.lower()
    if lowered in {"1", "true", "yes", "on", "t", "y"}:
        return True
    if lowered in {"0", "false", "no", "off", "f", "n"}:
        return False
    raise ValueError(text)


class Method(NamedTuple):
    """One remote command."""

    help: str
    #: Arguments by position: name and converter.
    positional: tuple[tuple[str, Callable[[str], Any]], ...] = ()
    #: How many of them must be there.
    required: int = 0
    #: Where all further ones go.
    rest: str = ""
    rest_required: bool = False
    #: How it is written.
    usage: str = ""
    #: Nodes answer it; those that are not answered are sent, and that is all.
    answered: bool = True


INSPECT: dict[str, Method] = {
    "active": Method("Running tasks."),
    "active_queues": Method("Queues that tasks are taken from."),
    "clock": Method("The logical clock."),
    "conf": Method("Settings, secrets masked.", (("with_defaults", _yes),), usage="[WITH_DEFAULTS]"),
    "hello": Method("What a starting worker asks.", (("from_node", str),), 1, usage="NODE"),
    "ping": Method("Is it there?"),
    "query_task": Method("Where tasks are.", rest="ids", rest_required=True, usage="ID..."),
    "registered": Method("Names of tasks, with attributes of them.", rest="taskinfoitems", usage="[ATTRIBUTE...]"),
    "report": Method("Versions and settings."),
    "reserved": Method("Tasks that were claimed and have not started."),
    "revoked": Method("Revoked ids."),
    "scheduled": Method("Tasks with an ETA in the memory of workers."),
    "stats": Method("Numbers."),
}
CONTROL: dict[str, Method] = {
    "add_consumer": Method("Take tasks from one more queue.", (("queue", str),), 1, usage="QUEUE"),
    "autoscale": Method("Bounds of the number of children.", (("max", int), ("min", int)), 1, usage="MAX [MIN]"),
    "cancel_consumer": Method("Take no more tasks from a queue.", (("queue", str),), 1, usage="QUEUE"),
    "disable_events": Method("Send no more events about tasks."),
    "enable_events": Method("Send events about tasks."),
    "heartbeat": Method("Send a heartbeat event now.", answered=False),
    "pool_grow": Method("More children.", (("n", int),), usage="[N]"),
    "pool_restart": Method("Restart the children (Celery workers only)."),
    "pool_shrink": Method("Fewer children.", (("n", int),), usage="[N]"),
    "rate_limit": Method(
        "Starts of a task per time: 10/s, 100/m, 2/h; 0: no limit.",
        (("task_name", str), ("rate_limit", str)),
        2,
        usage="TASK RATE",
    ),
    "revoke": Method("Refuse tasks from now on.", rest="task_id", rest_required=True, usage="ID..."),
    "revoke_by_stamped_headers": Method(
        "Refuse tasks by a stamped header.",
        rest="headers",
        rest_required=True,
        usage="NAME=VALUE...",
    ),
    "shutdown": Method("Stop, as SIGTERM does.", answered=False),
    "terminate": Method(
        "Refuse tasks and end those that run.", (("signal", str),), 1, "task_id", True, usage="SIGNAL ID..."
    ),
    "time_limit": Method(
        "Limits of a task, in seconds.",
        (("task_name", str), ("soft", float), ("hard", float)),
        2,
        usage="TASK SOFT [HARD]",
    ),
}


def parse(name: str, method: Method | None, given: Sequence[str]) -> Mapping[str, Any]:
    """The arguments of a remote command as it gets them. Raises ``UsageError`` naming what is missing or too much."""
    if method is None:
        return _by_name(name, given)
    arguments: dict[str, Any] = {}
    for (key, convert), text in zip(method.positional, given, strict=False):
        try:
            arguments[key] = convert(text)
        except ValueError:
            raise click.UsageError(f"{name}: {key} cannot be {text!r}; write {name} {method.usage}") from None
    rest = list(given[len(method.positional) :])
    missing = len(given) < method.required or (method.rest_required and not rest)
    if missing or (rest and not method.rest):
        raise click.UsageError(f"{name} takes {method.usage or 'no arguments'}, not {' '.join(given) or 'nothing'}")
    if method.rest and rest:
        arguments[method.rest] = rest
    return arguments


def _by_name(name: str, given: Sequence[str]) -> Mapping[str, Any]:
    arguments: dict[str, Any] = {}
    for each in given:
        key, equals, text = each.partition("=")
        if not equals:
            raise click.UsageError(
                f"{name} is a command of the app's own: write its arguments as NAME=VALUE, not {each!r}"
            )
        try:
            arguments[key] = json.loads(text)
        except ValueError:
            arguments[key] = text
    return arguments
