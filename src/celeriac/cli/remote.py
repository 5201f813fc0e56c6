"""``status``, ``inspect`` and ``control``: questions and orders to running nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import update_wrapper
from typing import Any, TypeVar

import click

from celeriac.cli.context import CommaList, Context, importing, nobody, pass_context
from celeriac.cli.methods import CONTROL, INSPECT, Method, parse
from celeriac.cli.replies import merge, pretty, to_json
from celeriac.codec.escape import one_line

__all__ = ["control", "inspect", "status"]

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class _Asking:
    """Whom to ask, how long to wait, and how to print the answers."""

    context: Context
    timeout: float
    destination: list[str] | None
    as_json: bool

    def ask(self, what: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        replies = self.context.app.control.broadcast(
            what,
            arguments=dict(arguments),
            destination=self.destination,
            reply=True,
            timeout=self.timeout,
            limit=len(self.destination) if self.destination else None,
        )
        return merge(replies)

    def answer(self, replies: Mapping[str, Any], *, body: bool = True) -> int:
        """Print them; the exit code says whether none of them is an error."""
        context = self.context
        if not replies:
            raise nobody()
        if self.as_json:
            context.echo(to_json(replies))
            return 0
        good = _show(context, replies, body=body)
        if not context.quiet:
            context.echo(f"\n{len(replies)} node{'' if len(replies) == 1 else 's'} online.")
        return 0 if good else 1


_timeout = click.option(
    "-t", "--timeout", type=float, default=1.0, show_default=True, help="Seconds to wait for answers."
)
_destination = click.option(
    "-d", "--destination", metavar="NODES", type=CommaList(), help="Only these nodes, separated by commas."
)
_json = click.option("-j", "--json", "as_json", is_flag=True, help="Print JSON.")


def _asking(command: Callable[..., int]) -> Callable[..., int]:
    """The options that all of them have; the command gets an ``_Asking`` instead of the context."""

    def told(
        context: Context, /, timeout: float, destination: tuple[str, ...] | None, as_json: bool, **others: Any
    ) -> int:
        asking = _Asking(context, timeout, list(destination) if destination else None, as_json)
        return command(asking, **others)

    update_wrapper(told, command)
    return _timeout(_destination(_json(pass_context(told))))


@click.command()
@_asking
def status(asking: _Asking) -> int:
    """List the workers that are online.

    Exits with 69 when none answers, and with 1 when one cannot run tasks now (its children die as they start, or do not
    reach the broker), so it serves as a health check.
    """
    return asking.answer({node: _ready(answer) for node, answer in asking.ask("ping", {}).items()}, body=False)


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
@_asking
@click.argument("what")
@click.argument("arguments", nargs=-1)
def inspect(asking: _Asking, what: str, arguments: tuple[str, ...]) -> int:
    """Ask running workers what they do."""
    asked = parse(what, _method(asking.context, what, INSPECT, "inspect"), arguments)
    return asking.answer(asking.ask(what, asked))


@click.command(epilog=_listed(CONTROL))
@_print_list(CONTROL)
@_asking
@click.option("--terminate", is_flag=True, help="With revoke: also end the tasks that run.")
@click.option("-s", "--signal", metavar="SIGNAL", help="With revoke --terminate: the signal (default SIGTERM).")
@click.option("--by", metavar="NAME", help="With revoke: who wants it (default: user and host).")
@click.option("--reason", metavar="TEXT", help="With revoke: why, for those who read the result.")
@click.argument("what")
@click.argument("arguments", nargs=-1)
def control(
    asking: _Asking,
    what: str,
    arguments: tuple[str, ...],
    terminate: bool,
    signal: str | None,
    by: str | None,
    reason: str | None,
) -> int:
    """Tell running workers to do something.

    What is revoked is also written to the broker: workers that start later obey too.
    """
    context = asking.context
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
        how = {"terminate": terminate, "signal": signal or "SIGTERM", "by": by, "reason": reason or ""}
        return _revoke(asking, what, told, how)
    if method is not None and not method.answered:
        context.app.control.broadcast(what, arguments=told, destination=asking.destination)
        if not context.quiet:
            context.echo(f"sent {what} to {', '.join(asking.destination or ['all nodes'])}; it is not answered")
        return 0
    return asking.answer(asking.ask(what, told))


def _stamps(pairs: Sequence[str]) -> dict[str, list[str]]:
    """``NAME=VALUE`` of each; a name may come several times."""
    stamps: dict[str, list[str]] = {}
    for each in pairs:
        name, _, value = each.partition("=")
        stamps.setdefault(name, []).append(value)
    return stamps


def _revoke(asking: _Asking, what: str, told: Mapping[str, Any], how: Mapping[str, Any]) -> int:
    """Write the order, tell the nodes; it counts though nobody answers."""
    tell = getattr(asking.context.app.control, what)
    whom = {"destination": asking.destination, "timeout": asking.timeout}
    try:
        replies = merge(tell(*told.values(), **how, **whom, reply=True))
    except ValueError as error:  # no such signal
        raise click.UsageError(str(error)) from None
    if replies or asking.as_json:
        return asking.answer(replies)
    if not asking.context.quiet:
        asking.context.echo("Revoked. No worker answered: those that start obey.")
    return 0


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
