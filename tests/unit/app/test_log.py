"""Logging of a node: whose handlers, which format, what is printed."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celery, signals
from celeriac.app import lines, log
from celeriac.app.lines import LineFormatter, LineHandler, Printed, name_process
from celeriac.app.log import Logging, get_task_logger, level_of
from celeriac.exceptions import ImproperlyConfigured

pytestmark = pytest.mark.usefixtures("pristine_logging")


def bare() -> logging.Logger:
    """The root logger without pytest's handlers, which come after the fixtures."""
    root = logging.getLogger()
    root.handlers[:] = []
    return root


@pytest.fixture
def app() -> Celery:
    return Celery("proj", broker="memory://", set_as_current=False)


def test_a_root_logger_without_handlers_gets_ours(app: Celery, capfd: pytest.CaptureFixture[str]) -> None:
    bare()
    Logging(app).setup("info")
    logging.getLogger("mine").info("hello")
    logging.getLogger("celery.worker").debug("unheard")
    captured = capfd.readouterr().err
    assert captured.endswith(": INFO/MainProcess] hello\n")
    assert captured.count("\n") == 1


def test_a_configured_root_logger_is_left_alone(app: Celery) -> None:
    seen: list[str] = []

    class _Mine(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    root, mine = bare(), _Mine()
    root.addHandler(mine)
    Logging(app).setup("info")
    logging.getLogger("celery.worker").info("ours")
    get_task_logger("proj.tasks").info("of a task")
    logging.getLogger("theirs").info("below their level")
    assert root.handlers == [mine]
    assert root.level == logging.WARNING
    assert seen == ["ours", "of a task"]


def test_hijacking_is_a_choice(app: Celery) -> None:
    app.conf.worker_hijack_root_logger = True
    root = logging.getLogger()
    root.addHandler(logging.NullHandler())
    Logging(app).setup("info")
    assert [type(handler) for handler in root.handlers] == [LineHandler]


def test_a_receiver_switches_it_off(app: Celery) -> None:
    said: dict[str, Any] = {}
    root = bare()

    def mine(**kwargs: Any) -> None:
        said.update(kwargs)

    signals.setup_logging.connect(mine)
    try:
        Logging(app).setup("debug", "some.log", redirect_stdouts=True)
    finally:
        signals.setup_logging.disconnect(mine)
    assert (said["loglevel"], said["logfile"]) == (logging.DEBUG, "some.log")
    assert root.handlers == []
    assert log._Redirect.level == 0
    assert not Path("some.log").exists()


def test_receivers_add_to_it(app: Celery) -> None:
    seen: list[tuple[str, str]] = []

    def after(logger: Any = None, **_: Any) -> None:
        seen.append(("logger", logger.name))

    def after_task(logger: Any = None, **_: Any) -> None:
        seen.append(("task", logger.name))

    signals.after_setup_logger.connect(after)
    signals.after_setup_task_logger.connect(after_task)
    try:
        Logging(app).setup()
    finally:
        signals.after_setup_logger.disconnect(after)
        signals.after_setup_task_logger.disconnect(after_task)
    assert seen == [("logger", "root"), ("task", "celery.task")]


def test_it_is_set_up_once(app: Celery) -> None:
    root = bare()
    Logging(app).setup()
    Logging(app).setup()
    assert len(root.handlers) == 1


def test_task_loggers_name_the_task(app: Celery, capfd: pytest.CaptureFixture[str]) -> None:
    bare()
    Logging(app).setup("info")

    @app.task(name="proj.talk", shared=False)
    def talk() -> None:
        get_task_logger("proj").info("inside")

    talk.apply(task_id="the-id")
    get_task_logger("proj").info("outside")
    inside, outside = capfd.readouterr().err.splitlines()[-2:]
    assert inside.endswith("proj.talk[the-id]: inside")
    assert outside.endswith("???[???]: outside")


@pytest.mark.parametrize(
    ("level", "number"), [("info", 20), ("INFO", 20), ("Warning", 30), ("fatal", 50), ("15", 15), (10, 10)]
)
def test_levels(level: Any, number: int) -> None:
    assert level_of(level) == number


def test_unknown_levels() -> None:
    with pytest.raises(ImproperlyConfigured, match="unknown log level 'loud'"):
        level_of("loud")


def test_reserved_names() -> None:
    with pytest.raises(RuntimeError):
        get_task_logger("celery.task")


# ---------------------------------------------------------------- files


def record(text: str, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("x", level, __file__, 1, text, None, None)


def test_a_file_that_was_rotated_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "w.log"
    handler = LineHandler(lambda index: str(path))
    handler.handle(record("one"))
    path.rename(tmp_path / "w.log.1")
    handler.handle(record("two"))
    handler.close()
    assert (tmp_path / "w.log.1").read_text() == "one\n"
    assert path.read_text() == "two\n"


def test_each_process_may_have_its_file(app: Celery, tmp_path: Path) -> None:
    Logging(app).setup("info", str(tmp_path / "%n%I.log"), hostname="w1@box")
    logging.getLogger("celery").info("main")
    name_process("child-1", 1)
    logging.getLogger("celery").info("child")
    assert (tmp_path / "w1.log").read_text().endswith("INFO/MainProcess] main\n")
    assert (tmp_path / "w1-1.log").read_text().endswith("INFO/child-1] child\n")


def test_a_file_that_cannot_be_written(app: Celery, tmp_path: Path) -> None:
    with pytest.raises(ImproperlyConfigured, match="cannot write the log file"):
        Logging(app).setup(logfile=str(tmp_path / "no" / "w.log"))


def test_lines_of_many_processes_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "w.log"
    handler = LineHandler(lambda index: str(path))
    children = []
    for number in range(4):
        pid = os.fork()
        if not pid:
            for _ in range(100):
                handler.handle(record(str(number) * 500))
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    handler.close()
    found = path.read_text().splitlines()
    assert len(found) == 400
    assert all(len(line) == 500 and len(set(line)) == 1 for line in found)


def test_a_log_that_cannot_be_written_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lines.os, "write", full)
    LineHandler().handle(record("lost"))


def test_colours() -> None:
    assert LineFormatter("%(message)s", colors=True).format(record("bad", logging.ERROR)) == "\033[1;31mbad\033[0m"
    assert LineFormatter("%(message)s", colors=True).format(record("fine")) == "fine"


def test_the_time_is_logging_s_own() -> None:
    entry = record("x")
    assert LineFormatter("%(asctime)s").format(entry) == logging.Formatter("%(asctime)s").format(entry)
    assert LineFormatter("%(asctime)s", "%H:%M").format(entry) == logging.Formatter("%(asctime)s", "%H:%M").format(
        entry
    )


# ---------------------------------------------------------------- what tasks print


class _Collect(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append((record.levelno, record.getMessage()))


@pytest.fixture
def printed() -> Iterator[tuple[Printed, _Collect, io.StringIO]]:
    logger, collect, stream = logging.getLogger("prints"), _Collect(), io.StringIO()
    logger.handlers[:] = [collect]
    yield Printed(logger, logging.WARNING, stream), collect, stream
    logger.handlers[:] = []


def test_lines_become_records(printed: tuple[Printed, _Collect, io.StringIO]) -> None:
    out, collect, _ = printed
    print("a", 1, "100%", file=out)  # type: ignore[call-overload]
    print(file=out)  # type: ignore[call-overload]
    out.write("half ")
    out.write("and half\nrest")
    out.flush()
    assert [text for _, text in collect.texts] == ["a 1 100%", "half and half", "rest"]
    assert {level for level, _ in collect.texts} == {logging.WARNING}


def test_a_handler_that_prints_does_not_call_itself(printed: tuple[Printed, _Collect, io.StringIO]) -> None:
    out, collect, stream = printed

    class _Printing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            out.write("from the handler\n")

    out._logger.addHandler(_Printing())
    out.write("once\n")
    assert [text for _, text in collect.texts] == ["once"]
    assert stream.getvalue() == "from the handler\n"


def test_only_children_redirect(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    Logging(app).setup(redirect_stdouts=True, redirect_level="error")
    log.enter_process("agent")
    assert not isinstance(sys.stdout, Printed)
    log.enter_process("child-1", 1, tasks=True)
    assert isinstance(sys.stdout, Printed)
    assert isinstance(sys.stderr, Printed)
    assert log._Redirect.level == logging.ERROR


def test_json_lines(app: Celery, capfd: pytest.CaptureFixture[str]) -> None:
    bare()
    app.conf.worker_log_format = "json"
    app.log.setup(logging.INFO)
    name_process("child-1", 1)
    logging.getLogger("celery.worker").info("a\n[CRITICAL] %s", "\x1b[31m")
    try:
        raise ValueError("x\ny")
    except ValueError:
        get_task_logger("mine").exception("bad")
    first, second = map(json.loads, capfd.readouterr().err.splitlines())
    assert (first["message"], first["level"], first["process"]) == ("a\n[CRITICAL] \x1b[31m", "INFO", "child-1")
    assert first["logger"] == "celery.worker"
    assert datetime.fromisoformat(first["time"]).utcoffset() == timedelta(0)
    assert first["pid"] == os.getpid()
    assert "ValueError: x\ny" in second["traceback"]


def test_a_traceback_in_a_line_is_indented_and_escaped() -> None:
    try:
        raise ValueError("x\n[2030-01-01: CRITICAL] forged \x1b[31m")
    except ValueError:
        entry = record("bad", logging.ERROR)
        entry.exc_info = sys.exc_info()
    first, *others = LineFormatter("%(message)s").format(entry).splitlines()
    assert first == "bad"
    assert all(line.startswith("  ") for line in others)
    assert "\x1b" not in "".join(others)
