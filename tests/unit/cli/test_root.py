"""The group of commands: lazy, with global options on both sides, plug-ins and hints."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from importlib import import_module
from typing import Any

import click
import pytest

from celeriac import __version__
from celeriac.cli import main, root
from celeriac.cli.context import Context
from celeriac.exceptions import CeleryWarning


class _Entry:
    """An entry point."""

    def __init__(self, name: str, command: click.Command) -> None:
        self.name = name
        self.value = "plugin:command"
        self._command = command

    def load(self) -> click.Command:
        return self._command


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CELERY_APP", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "CELERY_CONFIG_MODULE", "CELERY_LOADER"):
        # Set first, so that what a command writes there is undone.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A command of a plug-in; what it sees of the context."""
    seen: list[Any] = []

    @click.command()
    @click.pass_context
    def flower(ctx: click.Context) -> None:
        seen.append((ctx.obj.app_name, ctx.obj.quiet))

    monkeypatch.setattr(root, "_plugins", lambda: iter([_Entry("flower", flower)]))
    return seen


@pytest.mark.parametrize("argv", [["--version"], ["-q", "--version"]])
def test_version(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    assert capsys.readouterr().out == f"celeriac {__version__}\n"


@pytest.mark.parametrize("argv", [["--help"], ["-h"], []])
def test_help_lists_all_commands(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert [name for name in root.COMMANDS if f"\n  {name} " not in out] == []


def test_help_imports_no_app_and_no_worker() -> None:
    script = (
        "import sys; from celeriac.cli import main; main(['--help']);"
        "print([m for m in sys.modules if m.startswith(('celeriac.app', 'celeriac.worker', 'celeriac.supervisor', "
        "'celeriac.brokers', 'asyncio'))], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_version_does_not_import_click() -> None:
    script = "import sys; from celeriac.cli import main; main(['--version']); sys.exit('click' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("name", root.COMMANDS)
def test_the_table_says_what_the_commands_say(name: str) -> None:
    path, text = root.COMMANDS[name]
    module, _, attribute = path.partition(":")
    command = getattr(import_module(module), attribute)
    assert isinstance(command, click.Command)
    assert text.split()[0] == (command.help or "").split()[0]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["wroker"], "there is no command 'wroker': did you mean worker?"),
        (["graph"], "there is no command 'graph': it does not exist here"),
        (["flower"], "there is no command 'flower': it needs Celery's own command, from a venv of its own"),
        (["xyzzy"], "there is no command 'xyzzy'; celeriac --help"),
        (["--quite"], "No such option '--quite'"),
        (["worker", "--concurency", "3"], "Did you mean '--concurrency'?"),
    ],
)
def test_typing_errors(argv: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert expected in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    "argv", [["-A", "proj", "-q", "flower"], ["flower", "-A", "proj", "-q"], ["-A", "proj", "flower", "-q"]]
)
def test_global_options_stand_on_both_sides(argv: list[str], plugin: list[Any]) -> None:
    assert main(argv) == 0
    assert plugin == [("proj", True)]


def test_plugins_are_listed(plugin: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    assert "flower   (from plugin:command)" in capsys.readouterr().out


def test_urls_reach_the_settings(plugin: list[Any]) -> None:
    assert main(["-b", "redis://a", "flower", "--result-backend", "redis://b"]) == 0
    assert (os.environ["CELERY_BROKER_URL"], os.environ["CELERY_RESULT_BACKEND"]) == ("redis://a", "redis://b")


def test_without_an_app(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worker"]) == 2
    assert capsys.readouterr().err.startswith("Error: no app: name the module")


def test_a_broker_alone_makes_an_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://there")
    assert Context().app.broker_url == "redis://there"


def test_the_app_is_looked_up_once_and_can_be_given() -> None:
    marker = object()
    context = Context(marker)
    assert context.app is marker


def test_a_warning_of_ours_is_one_line(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def warn() -> None:
        warnings.warn("setting 'x' has no effect", CeleryWarning, stacklevel=1)
        warnings.warn("not ours", UserWarning, stacklevel=1)
        warnings.warn_explicit("the option 'x' is not known", UserWarning, root.__file__, 1)

    monkeypatch.setattr(root, "_plugins", lambda: iter([_Entry("warn", warn)]))
    shown = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["warn"]) == 0
    first, second, *_, last = capfd.readouterr().err.splitlines()
    assert first == "Warning: setting 'x' has no effect"
    assert second.startswith(__file__)
    assert second.endswith("UserWarning: not ours")
    assert last == "Warning: the option 'x' is not known"
    assert warnings.showwarning is shown


def test_what_asks_more_of_celery_than_there_is_is_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [_Entry(name, click.Command(name)) for name in ("flower", "other")]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: found if group == "celery.commands" else [])
    assert [entry.name for entry in root._plugins()] == ["other"]


def test_the_help_of_a_command_tells_of_the_options_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["worker"], ["dead", "retry"]):
        assert root.run([*words, "--help"]) == 0
        assert root.MORE in " ".join(capsys.readouterr().out.split())
    assert root.run(["dead", "retry", "--help"]) == 0
    assert "[OPTIONS] [ID]...\n" in capsys.readouterr().out
