"""Errors are one line and an exit code; tracebacks are for --debug."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import pytest

from celeriac.cli.context import importing
from celeriac.cli.failure import BadImport, Refused, explain, report
from celeriac.exceptions import CeleryCommandException, ImproperlyConfigured, OperationalError, QueueNotFound


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (click.UsageError("what?"), "what?", 2),
        (Refused("not yet"), "not yet", 2),
        (ImproperlyConfigured("bad setting"), "bad setting", 2),
        (QueueNotFound("no queue x"), "no queue x", 2),
        (OperationalError("no broker"), "no broker", 1),
        (CeleryCommandException("nobody", 69), "nobody", 69),
        (KeyboardInterrupt(), "interrupted", 130),
        (BrokenPipeError(), "", 1),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero; --debug shows the traceback", 1),
    ],
)
def test_explain(error: BaseException, line: str, code: int) -> None:
    assert explain(error) == (line, code)


def test_a_report_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(OperationalError("first\nsecond")) == 1
    assert capsys.readouterr().err == "Error: first second\n"


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise OperationalError("no broker")
    except OperationalError as error:
        report(error, debug=True)
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("Error: no broker\n")


def test_an_error_in_the_users_module_is_shown_with_its_place(tmp_path: Path) -> None:
    module = tmp_path / "broken.py"
    module.write_text("x = 1\ny = 1 / 0\n")
    with pytest.raises(BadImport) as caught, importing("cannot import 'broken'"):
        exec(compile(module.read_text(), str(module), "exec"), {})
    line, code = explain(caught.value)
    assert code == 2
    assert line.startswith(f"cannot import 'broken': ZeroDivisionError: division by zero ({module}, line 2)")


def test_an_error_in_a_configuration_that_is_read_late_is_shown_with_its_place(tmp_path: Path) -> None:
    module = tmp_path / "settings.py"
    module.write_text("\nfrom nowhere_at_all import Queue\n")
    with pytest.raises(ImportError) as caught:
        exec(compile(module.read_text(), str(module), "exec"), {})
    place = f"({module}, line 2)"
    told = f"ModuleNotFoundError: No module named 'nowhere_at_all' {place}; --debug shows the traceback"
    assert explain(caught.value) == (told, 2)


@pytest.mark.parametrize("name", ["celery", "kombu.common"])
def test_who_has_not_switched_yet_is_told_how(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, name.partition(".")[0], raising=False)
    line, code = explain(ModuleNotFoundError(f"No module named {name!r}", name=name))
    assert code == 2
    assert line.endswith("write celeriac instead, or add --celery-names (docs/how-to/coming-from-celery.md)")


def test_the_place_is_the_users_where_ours_has_raised(tmp_path: Path) -> None:
    module = tmp_path / "wrong.py"
    module.write_text("from celeriac.schedules import crontab\ncrontab(minute=61)\n")
    with pytest.raises(BadImport) as caught, importing("cannot import 'wrong'"):
        exec(compile(module.read_text(), str(module), "exec"), {})
    assert f"minute: 61 is out of range; allowed is 0 to 59 ({module}, line 2)" in explain(caught.value)[0]


def test_a_syntax_error_is_shown_with_its_place() -> None:
    with pytest.raises(BadImport) as caught, importing("cannot import 'broken'"):
        compile("def x(:\n", "broken.py", "exec")
    assert "(broken.py, line 1)" in explain(caught.value)[0]


def test_a_module_that_exits_does_not_end_the_program() -> None:
    with pytest.raises(BadImport), importing("cannot import 'script'"):
        raise SystemExit(0)


def test_our_own_errors_pass_an_import() -> None:
    with pytest.raises(ImproperlyConfigured), importing("cannot import"):
        raise ImproperlyConfigured("no such module")
