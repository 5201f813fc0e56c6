"""``broker test``: the conformance suite on a server of one's own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.context import Context, pass_context
from celeriac.client import resolver
from celeriac.exceptions import CeleryCommandException

if TYPE_CHECKING:
    from celeriac.testing.trial import Group

__all__ = ["broker"]

#: Exit code when the server cannot be put to the test at all.
_UNABLE = 2


@click.group(invoke_without_command=True)
@click.pass_context
def broker(ctx: click.Context) -> None:
    """Put a broker to the test."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@broker.command("test")
@click.option("--ledger", metavar="URL", help="Keep rules, locks and limits there, beside the broker.")
@click.option(
    "--late",
    type=click.FloatRange(0.1, 10.0),
    default=0.5,
    show_default=True,
    metavar="SECONDS",
    help="How late the server may be: more for one that is far away.",
)
@click.option("--only", multiple=True, metavar="GROUP", help="Only this group of sentences; may be repeated.")
@click.option("-j", "--json", "as_json", is_flag=True, help="Print a JSON object for each group of sentences.")
@click.argument("url", metavar="[URL]", required=False)
@pass_context
def test(
    context: Context, url: str | None, ledger: str | None, late: float, only: tuple[str, ...], as_json: bool
) -> None:
    """Run the conformance suite against a server that may be in use.

    URL is that of the broker; without it the app's. What is made there has names of its own, which are told first, and
    is taken away again. Nothing else is touched. On RabbitMQ that is in the virtual host celeriac-test. Takes a minute
    or two. Exit code 1 when something breaks. Needs pytest: pip install 'celeriac[test]'.
    """
    try:
        from celeriac.testing.trial import Trial, unreachable
    except ModuleNotFoundError as error:
        raise CeleryCommandException(
            f"celeriac broker test needs {error.name}: pip install 'celeriac[test]'", _UNABLE
        ) from error
    if url is not None:
        # Without -A there is an app with this broker; with it, the app's other settings count.
        os.environ.setdefault("CELERY_BROKER_URL", url)
    conf = context.app.conf
    given = url or context.app.broker_url
    trial = Trial(given, resolver.adapter_options(conf, given), ledger=ledger or _beside(conf, given), late=late)
    why = unreachable(trial)
    if why:
        raise CeleryCommandException(why, _UNABLE)
    if not as_json and not context.quiet:
        names = " and ".join(each.what.replace(f"{trial.name}-0", f"{trial.name}-…") for each in trial.places)
        context.echo(f"Testing {resolver.mask(given)}: makes {names} and takes them away again.")
    groups: list[Group] = []

    def done(group: Group) -> None:
        groups.append(group)
        context.echo(_json(group) if as_json else _line(group))
        for each in () if as_json else group.broken:
            context.echo(f"  {each.test}\n    {each.sentence}")
            if each.got:
                context.echo(f"    {each.got}")

    code = trial.run(done, only)
    broken = sum(len(group.broken) for group in groups)
    if code not in (0, 1) or not groups:
        raise CeleryCommandException("the suite could not be run: see above", _UNABLE)
    if not as_json and not context.quiet:
        held = sum(group.held for group in groups)
        _say_skipped(context, groups)
        context.echo(_verdict(held, broken))
    if broken:
        raise click.exceptions.Exit(1)


def _beside(conf: Any, url: str) -> str | None:
    """The ledger that the app would use with this broker."""
    if resolver.keeps_ledger(url):
        return None
    return resolver.ledger_url(conf, url)


def _verdict(held: int, broken: int) -> str:
    if broken:
        return f"{held} sentences hold, {broken} are broken."
    return f"All {held} sentences hold." if held else "Nothing was tested: all of it is skipped."


def _line(group: Group) -> str:
    parts = [f"{group.held} hold"]
    if group.skipped:
        parts.append(f"{sum(group.skipped.values())} skipped")
    if group.broken:
        parts.append(f"{len(group.broken)} BROKEN")
    return f"{group.name:12}  {', '.join(parts)}"


def _json(group: Group) -> str:
    import msgspec

    return msgspec.json.encode(group).decode()


def _say_skipped(context: Context, groups: list[Group]) -> None:
    reasons: dict[str, int] = {}
    for group in groups:
        for reason, count in group.skipped.items():
            reasons[reason] = reasons.get(reason, 0) + count
    for reason, count in sorted(reasons.items(), key=lambda each: -each[1]):
        context.echo(f"skipped {count}: {reason.removeprefix('_Place ')}")
