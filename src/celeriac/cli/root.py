"""The group of all commands: ours, by a table, so that only the one that is named is imported; and plug-ins.

Plug-ins are click commands in the entry-point group ``celery.commands`` or ``celeriac.commands``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from importlib import import_module
from typing import Any, TextIO

import click

from celeriac.cli.context import Context, global_options
from celeriac.cli.failure import report
from celeriac.exceptions import CeleryWarning

__all__ = ["COMMANDS", "MORE", "celeriac", "run"]

#: Name -> module and attribute, and the line in the list of commands.
COMMANDS: dict[str, tuple[str, str]] = {
    "beat": ("celeriac.cli.beat:beat", "Start a scheduler of periodic tasks."),
    "broker": ("celeriac.cli.broker:broker", "Put a broker to the test."),
    "call": ("celeriac.cli.calling:call", "Send a task by name and print its id."),
    "control": ("celeriac.cli.remote:control", "Tell running workers to do something."),
    "dead": ("celeriac.cli.dead:dead", "Look at tasks that could not be done, send them again, drop them."),
    "events": ("celeriac.cli.events:events", "Print what workers say they do, as it happens."),
    "inspect": ("celeriac.cli.remote:inspect", "Ask running workers what they do."),
    "migrate": ("celeriac.cli.migrate:migrate", "Make the tables that this version needs, in PostgreSQL."),
    "outbox": ("celeriac.cli.outbox:outbox", "Look after messages that wait in the application's database."),
    "pause": ("celeriac.cli.queues:pause", "Let no worker take tasks from some queues."),
    "purge": ("celeriac.cli.purge:purge", "Delete all waiting tasks of some queues."),
    "report": ("celeriac.cli.calling:report", "Print versions and settings, for bug reports."),
    "result": ("celeriac.cli.calling:result", "Print the result of a task."),
    "resume": ("celeriac.cli.queues:resume", "Let workers take tasks from paused queues again."),
    "shell": ("celeriac.cli.shell:shell", "Start an interactive Python with the app and its tasks."),
    "status": ("celeriac.cli.remote:status", "List the workers that are online."),
    "worker": ("celeriac.cli.worker:worker", "Start a worker node."),
}
#: Celery's commands that are not here, and what to do instead.
_MISSING = {
    "multi": "start each node with `celeriac worker`, from systemd or a container",
    "upgrade": "settings with old names are understood as they are",
    "list": "there is nothing to list: bindings exist on RabbitMQ only",
    "graph": "it does not exist here",
    "amqp": "it does not exist here",
    "logtool": "it does not exist here",
    "flower": "it needs Celery's own command, from a venv of its own: celery -b URL flower",
}
#: At the end of each command's help.
MORE = "-A, -b and other options of all commands may stand here too: celeriac --help."
#: The directory of this package's files.
_PACKAGE = __file__.removesuffix("cli/root.py")
PLUGIN_GROUPS = ("celery.commands", "celeriac.commands")


class Root(click.Group):
    """Loads commands when they are named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Ours, then those of plug-ins."""
        return sorted(COMMANDS) + sorted(entry.name for entry in _plugins() if entry.name not in COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, with the global options added; None when there is none of that name."""
        if cmd_name in COMMANDS:
            module, _, attribute = COMMANDS[cmd_name][0].partition(":")
            return _with_global_options(getattr(import_module(module), attribute))
        for entry in _plugins():
            if entry.name == cmd_name:
                return _with_global_options(entry.load())
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with a hint for names that do not exist."""
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None:
            if name.startswith("-"):
                return super().resolve_command(ctx, args)
            raise click.UsageError(f"there is no command {name!r}{_hint(name)}", ctx)
        return name, command, args[1:]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing one."""
        rows = [(name, text) for name, (_, text) in sorted(COMMANDS.items())]
        rows += [(entry.name, f"(from {entry.value})") for entry in _plugins() if entry.name not in COMMANDS]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _with_global_options(command: click.Command) -> click.Command:
    taken = {text for param in command.params for text in (*param.opts, *param.secondary_opts)}
    names = {param.name for param in command.params}
    for option in global_options():
        if option.name not in names and not taken & set(option.opts):
            option.hidden = True
            command.params.append(option)
    command.epilog = command.epilog or MORE
    if isinstance(command, click.Group):
        for each in command.commands.values():
            _with_global_options(each)
    return command


def _plugins() -> Iterator[Any]:
    from importlib.metadata import entry_points

    for group in PLUGIN_GROUPS:
        # What would run and then fail, for it asks more of Celery than there is, is no command.
        yield from (entry for entry in entry_points(group=group) if entry.name not in _MISSING)


def _hint(name: str) -> str:
    from difflib import get_close_matches

    if name in _MISSING:
        return f": {_MISSING[name]}"
    close = get_close_matches(name, [*COMMANDS, *(entry.name for entry in _plugins())], n=1)
    return f": did you mean {close[0]}?" if close else ""


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        from celeriac import __version__

        click.echo(f"celeriac {__version__}")
        ctx.exit()


@click.group(
    cls=Root,
    params=global_options(),
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="All of these options may also stand after the command.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Print the version."
)
@click.pass_context
def celeriac(ctx: click.Context) -> None:
    """A distributed task queue with Celery's API and wire protocol.

    Start a worker with: celeriac -A proj worker
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """One line for ours: settings and URLs are read late, by no line of the user's that it could name."""
    if issubclass(category, CeleryWarning) or filename.startswith(_PACKAGE):
        click.echo(f"Warning: {message}", err=True)
    else:
        click.echo(warnings.formatwarning(message, category, filename, lineno, line), err=True, nl=False)


def run(arguments: list[str], app: Any = None) -> int:
    """Run a command line; returns the exit code. Nothing that is raised leaves here but a worker's own exit."""
    context = Context(app)
    context.debug = "--debug" in arguments  # for errors that come before it is parsed
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = celeriac.main(args=arguments, prog_name="celeriac", standalone_mode=False, obj=context)
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else 1
    except BaseException as error:  # noqa: BLE001 - the end of the program: one line instead of a traceback
        return report(error, debug=context.debug)
    return code if isinstance(code, int) else 0
