"""Writes docs/reference/cli.md from the click commands: `python -m tools.cli_reference`. A test compares."""

from __future__ import annotations

from importlib import import_module
from inspect import cleandoc
from pathlib import Path

import click

from celeriac.cli import failure
from celeriac.cli.root import COMMANDS, MORE, celeriac

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "cli.md"

_HEAD = """\
# Command line

Written by `tools/cli_reference.py` from the commands in `src/celeriac/cli/`; do not edit.

`celeriac -A proj worker` and `python -m celeriac -A proj worker` are the same. `-A` and the other options below may
stand before the command or after it. `-A` takes a module, `module:attribute` or a file; without it the environment
variable `CELERY_APP` is read. Commands of plug-ins (entry-point group `celery.commands`) appear beside these.
"""
_EXIT = """\
## Exit codes

A failure prints one line; `--debug` prints the traceback before it.
"""


def page() -> str:
    """The text of the whole page."""
    parts = [_HEAD, "## Options of all commands\n\n" + _options(celeriac)]
    for name, (path, _) in sorted(COMMANDS.items()):
        module, _, attribute = path.partition(":")
        parts.append(_command(name, getattr(import_module(module), attribute)))
    parts.append(_EXIT + "\n" + _exit_codes())
    return "\n".join(parts)


def _command(name: str, command: click.Command, level: str = "##") -> str:
    arguments = [param for param in command.params if isinstance(param, click.Argument)]
    below = command.commands if isinstance(command, click.Group) else {}
    tail = ["COMMAND"] if below else []
    usage = " ".join(["celeriac", name, "[OPTIONS]", *tail, *(_argument(param) for param in arguments)])
    text = f"{level} {name}\n\n`{usage}`\n\n{_prose(command.help)}\n"
    options = _options(command)
    if options:
        text += f"\n{options}"
    if command.epilog and command.epilog != MORE:
        body = command.epilog.replace("\b\n", "").partition("\n")
        text += f"\n{body[0]}\n\n```\n{body[2]}\n```\n"
    for each in below:
        text += "\n" + _command(f"{name} {each}", below[each], level + "#")
    return text


def _argument(param: click.Argument) -> str:
    name = (param.metavar or param.name or "").upper()
    return f"[{name}]..." if param.nargs == -1 and not name.startswith("[") else name


def _prose(text: str | None) -> str:
    return cleandoc(text or "")


def _options(command: click.Command) -> str:
    shown = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    if not shown:
        return ""
    rows = ["| option | meaning |", "|---|---|"]
    for option in shown:
        names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
        value = "" if option.is_flag else f" {option.metavar or option.type.name.upper()}"
        default = f" (default: {option.default})" if option.show_default else ""
        rows.append(f"| {names}{value} | {option.help or ''}{default} |")
    return "\n".join(rows) + "\n"


def _exit_codes() -> str:
    lines = (failure.__doc__ or "").splitlines()
    return "\n".join(line for line in lines if line.startswith("|")).replace("``", "`") + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
