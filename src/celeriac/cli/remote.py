"""``status``, ``inspect`` and ``control``: questions and orders to running nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from celeriac.cli.context import CommaList, Context, importing, nobody, pass_context
from celeriac.cli.methods import CONTROL, INSPECT, Method, parse
from celeriac.cli.replies import merge, pretty, to_json
from celeriac.codec.escape import one_line

__all__ = ["control", "inspect", "status"]

_F = TypeVar("_F", bound=Callable[..., Any])

_timeout = click.option(
    "-t", "--timeout", type=float, default=1.0, show_default=True, help="Seconds to wait for answers."
)
_destination = click.option(
    "-d", "--destination", metavar="NODES", type=CommaList(), help="Only these nodes, separated by commas."
)
_json = click.option("-j", "--json", "as_json", is_flag=True, help="Print JSON.")


@click.command()
@_timeout
@_destination
@_json
@pass_context
def status(context: Context, timeout: float, destination: tuple[str, ...] | None, as_json: bool) -> int:
    """List the workers that are online.

    Exits with 69 when none answers, and with 1 when one cannot run tasks now (its children die as they start, or do not
    reach the broker), so it serves as a health check.
    """
    replies = {node: _ready(answer) for node, answer in _ask(context, "ping", {}, timeout, destination).items()}
    if not replies:
        raise nobody()
    if as_json:
        context.echo(to_json(replies))
        return 0
    good = _show(context, replies, body=False)
    _count(context, replies)
    return 0 if good else 1


def _ready(answer: Any) -> Any:
    """A pong of a node that is there and cannot run tasks is an error."""
    why = answer.get("unready") if isinstance(answer, dict) else None
    return {"error": f"not ready: {why}"} if why else answer


def _listed(methods: Mapping[str, Method]) -> str:
    rows = [(f"{name} {method.usage}".strip(), method.help) for name, method in methods.items()]
    width = max(len(usage) for usage, _ in rows)
    return "\b\nWhat there is:\n" + "\n".join(f"  {usage:<{width}}  {text}" for usage, text in rows)


def _print_list(methods: Mapping[str, Method]) -> Callable[[_F], _F]:
    def callback(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value:
            click.echo(_listed(methods).removeprefix("\b\n"))
            ctx.exit()

    return click.option(
        "--list", is_flag=True, is_eager=True, expose_value=False, callback=callback, help="List them and exit."
    )


@click.command(epilog=_listed(INSPECT))
@_print_list(INSPECT)
@_timeout
@_destination
@_json
@click.argument("what")
@click.argument("arguments", nargs=-1)
@pass_context
def inspect(
    context: Context,
    what: str,
    arguments: tuple[str, ...],
    timeout: float,
    destination: tuple[str, ...] | None,
    as_json: bool,
) -> int:
    """Ask running workers what they do."""
    asked = parse(what, _method(context, what, INSPECT, "inspect"), arguments)
    replies = _ask(context, what, asked, timeout, destination)
    return _answer(context, replies, as_json)


@click.command(epilog=_listed(CONTROL))
@_print_list(CONTROL)
@_timeout
@_destination
@_json
@click.option("--terminate", is_flag=True, help="With revoke: also end the tasks that run.")
@click.option("-s", "--signal", metavar="SIGNAL", help="With revoke --terminate: the signal (default SIGTERM).")
@click.option("--by", metavar="NAME", help="With revoke: who wants it (default: user and host).")
@click.option("--reason", metavar="TEXT", help="With revoke: why, for those who read the result.")
@click.argument("what")
@click.argument("arguments", nargs=-1)
@pass_context
def control(
    context: Context,
    what: str,
    arguments: tuple[str, ...],
    timeout: float,
    destination: tuple[str, ...] | None,
    as_json: bool,
    terminate: bool,
    signal: str | None,
    by: str | None,
    reason: str | None,
) -> int:
    """Tell running workers to do something.

    What is revoked is also written to the broker: workers that start later obey too.
    """
    method = _method(context, what, CONTROL, "control")
    told = dict(parse(what, method, arguments))
    revokes = what in ("revoke", "revoke_by_stamped_headers")
    if (terminate or signal) and not revokes:
        raise click.UsageError("--terminate and --signal go with revoke only")
    if (by or reason) and not (revokes or what == "terminate"):
        raise click.UsageError("--by and --reason go with revoke only")
    if what == "terminate":
        what, terminate, signal = "revoke", True, told.pop("signal")
    if what == "revoke_by_stamped_headers":
        told["headers"] = _stamps(told["headers"])
    if revokes or what == "revoke":
        return _revoke(context, what, told, timeout, destination, as_json, terminate, signal, by, reason)
    if method is not None and not method.answered:
        context.app.control.broadcast(what, arguments=told, destination=_list(destination))
        if not context.quiet:
            context.echo(f"sent {what} to {', '.join(destination) if destination else 'all nodes'}; it is not answered")
        return 0
    replies = _ask(context, what, told, timeout, destination)
    return _answer(context, replies, as_json)


def _stamps(pairs: Sequence[str]) -> dict[str, list[str]]:
    """``NAME=VALUE`` of each; a name may come several times."""
    stamps: dict[str, list[str]] = {}
    for each in pairs:
        name, _, value = each.partition("=")
        stamps.setdefault(name, []).append(value)
    return stamps


def _revoke(
    context: Context,
    what: str,
    told: Mapping[str, Any],
    timeout: float,
    destination: tuple[str, ...] | None,
    as_json: bool,
    terminate: bool,
    signal: str | None,
    by: str | None,
    reason: str | None,
) -> int:
    """Write the order, tell the nodes; it counts though nobody answers."""
    tell = getattr(context.app.control, what)
    how = {"destination": _list(destination), "terminate": terminate, "signal": signal or "SIGTERM"}
    try:
        replies = merge(tell(*told.values(), **how, by=by, reason=reason or "", reply=True, timeout=timeout))
    except ValueError as error:  # no such signal
        raise click.UsageError(str(error)) from None
    if replies or as_json:
        return _answer(context, replies, as_json)
    if not context.quiet:
        context.echo("Revoked. No worker answered: those that start obey.")
    return 0


def _answer(context: Context, replies: Mapping[str, Any], as_json: bool) -> int:
    if not replies:
        raise nobody()
    if as_json:
        context.echo(to_json(replies))
        return 0
    good = _show(context, replies)
    _count(context, replies)
    return 0 if good else 1


def _show(context: Context, replies: Mapping[str, Any], *, body: bool = True) -> bool:
    """Print the answers, one node after the other; says whether none of them is an error."""
    good = True
    for name, answer in replies.items():
        node, (state, text) = one_line(name), pretty(answer)
        good = good and state == "OK"
        arrow = context.style("->", fg="blue", bold=True)
        color = "green" if state == "OK" else "red"
        if body or state != "OK":
            context.echo(f"{arrow}  {node}: {context.style(state, fg=color, bold=True)}")
            context.echo("\n".join(f"    {one_line(line)}" for line in text.splitlines()))
        else:
            context.echo(f"{node}: {context.style(state, fg=color, bold=True)}")
    return good


def _count(context: Context, replies: Mapping[str, Any]) -> None:
    """How many answered."""
    if not context.quiet:
        context.echo(f"\n{len(replies)} node{'' if len(replies) == 1 else 's'} online.")


def _ask(
    context: Context, what: str, arguments: Mapping[str, Any], timeout: float, destination: tuple[str, ...] | None
) -> dict[str, Any]:
    replies = context.app.control.broadcast(
        what,
        arguments=dict(arguments),
        destination=_list(destination),
        reply=True,
        timeout=timeout,
        limit=len(destination) if destination else None,
    )
    return merge(replies)


def _list(destination: tuple[str, ...] | None) -> list[str] | None:
    return list(destination) if destination else None


def _method(context: Context, what: str, methods: Mapping[str, Method], command: str) -> Method | None:
    """The command's form; None for one that the app registers itself."""
    if what in methods:
        return methods[what]
    from celeriac.worker.commands import Panel

    with importing("cannot import the app's modules"):
        context.app.loader.import_default_modules()
    if what in Panel.data:
        return None
    from difflib import get_close_matches

    close = get_close_matches(what, methods, n=1)
    hint = f"did you mean {close[0]}?" if close else f"celeriac {command} --list shows what there is"
    raise click.UsageError(f"{command} does not know {what!r}: {hint}")
