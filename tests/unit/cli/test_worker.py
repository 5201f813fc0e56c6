"""The worker command: what it passes on, what it refuses, what it prints."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celery, signals
from celeriac.app.log import Logging
from celeriac.cli.banner import banner, shown
from celeriac.cli.root import run
from celeriac.supervisor import start
from celeriac.supervisor.start import Node


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Celery:
    monkeypatch.setattr(Logging, "setup", lambda self, *args, **kwargs: None)
    made = Celery("proj", broker="sqlite:////data/tasks.db", set_as_current=False)
    made.task(name="proj.add", shared=False)(lambda x: x)
    return made


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    nodes: list[Node] = []

    def launch(node: Node, **options: Any) -> int:
        nodes.append(node)
        return 0

    monkeypatch.setattr(start, "launch", launch)
    return nodes


def test_options_reach_the_node(app: Celery, launched: list[Node]) -> None:
    line = (
        "worker -l INFO -Q a,b -X b -c 3 -P threads -n w1@box -E -Ofair --time-limit=30 --soft-time-limit=20 "
        "--max-tasks-per-child=100 --max-memory-per-child=200000 --without-gossip --without-mingle --without-heartbeat "
        "--prefetch-multiplier=2"
    )
    assert run(line.split(), app) == 0
    options = launched[0].options
    assert options.hostname == "w1@box"
    assert options.queues == ("a",)
    assert (options.pool, options.concurrency, options.prefetch_limit) == ("threads", 3, 6)
    assert (options.time_limit, options.soft_time_limit) == (30.0, 20.0)
    assert (options.max_tasks_per_child, options.max_memory_per_child) == (100, 200000)
    assert (options.events, options.heartbeats) == (True, False)


@pytest.mark.parametrize(("text", "bounds"), [("10,3", (10, 3)), ("3,10", (10, 3)), ("4", (4, 0))])
def test_autoscale(text: str, bounds: tuple[int, int], app: Celery, launched: list[Node]) -> None:
    assert run(["worker", f"--autoscale={text}"], app) == 0
    options = launched[0].options
    assert (options.autoscale, options.concurrency) == (bounds, bounds[1])


def test_beat_inside(app: Celery, launched: list[Node]) -> None:
    assert run(["worker", "-B", "--scheduler", "x:Y", "-s", "file"], app) == 0
    options = launched[0].options
    assert (options.beat, options.scheduler, options.schedule_filename) == (True, "x:Y", "file")


@pytest.mark.parametrize("option", ["--scheduler", "-s"])
def test_options_of_beat_without_it(
    option: str, app: Celery, launched: list[Node], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["worker", option, "x"], app) == 2
    assert "means nothing without -B/--beat" in capsys.readouterr().err
    assert launched == []


@pytest.mark.parametrize(
    "options",
    [
        "-D",
        "--pool-start-method=spawn",
        "-S x",
        "--executable=x",
    ],
)
def test_what_is_not_there_yet_fails(
    options: str, app: Celery, launched: list[Node], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["worker", *options.split()], app) == 2
    error = capsys.readouterr().err
    assert options.partition("=")[0].partition(" ")[0] in error
    assert "not available" in error
    assert error.count("\n") == 1
    assert launched == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("-P gevent", "there is no pool 'gevent': use -P threads"),
        ("-P foo", "unknown pool 'foo'"),
        ("-l loud", "unknown log level 'loud'"),
        ("-c -1", "concurrency cannot be -1"),
        ("-X celery", "no queue is left"),
        ("--autoscale=many", "--autoscale takes MAX,MIN, not 'many'"),
        ("--autoscale=0", "give MAX from 1"),
        ("--autoscale=4,2 -P threads", "give their most by -c"),
        ("-b memory:// -P prefork", "use -P solo"),
    ],
)
def test_values_that_cannot_be(
    options: str,
    expected: str,
    app: Celery,
    launched: list[Node],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "")
    assert run(["worker", *options.split()], app) == 2
    assert expected in capsys.readouterr().err
    assert launched == []


def test_the_signals_come_in_order(app: Celery, launched: list[Node]) -> None:
    seen: list[tuple[str, Any]] = []

    def init(sender: Any = None, instance: Any = None, conf: Any = None, options: Any = None, **_: Any) -> None:
        seen.append(("celeryd_init", sender))
        conf.worker_concurrency = 7

    def after(sender: Any = None, instance: Any = None, **_: Any) -> None:
        seen.append(("celeryd_after_setup", instance.options.concurrency))
        instance.queues.select_add("direct")

    signals.celeryd_init.connect(init)
    signals.celeryd_after_setup.connect(after)
    try:
        assert run(["worker", "-n", "w@h"], app) == 0
    finally:
        signals.celeryd_init.disconnect(init)
        signals.celeryd_after_setup.disconnect(after)
    assert seen == [("celeryd_init", "w@h"), ("celeryd_after_setup", 7)]
    assert launched[0].options.queues == ("celery", "direct")


def test_a_second_start_is_refused(
    app: Celery, launched: list[Node], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pidfile = tmp_path / "w.pid"
    pidfile.write_text(f"{os.getppid()}\n")
    assert run(["worker", "--pidfile", str(pidfile)], app) == 73
    assert f"belongs to process {os.getppid()}" in capsys.readouterr().err
    assert launched == []


def test_include_is_imported(app: Celery, launched: list[Node], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["worker", "-I", "surely_missing"], app) == 2
    assert "surely_missing" in capsys.readouterr().err


def test_banner(app: Celery, launched: list[Node], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-A", "proj", "worker", "-n", "w@h", "-c", "2", "-l", "info"], app) == 0
    out = capsys.readouterr().out
    assert out.startswith("w@h  celeriac ")
    assert "  broker   /data/tasks.db\n  results  the same\n  pool     prefork, 2 children\n  queues   celery\n" in out
    assert "  . proj.add" in out


def test_quiet_means_no_banner(app: Celery, launched: list[Node], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["worker", "-q"], app) == 0
    assert capsys.readouterr().out == ""


def test_the_banner_hides_passwords(app: Celery, launched: list[Node]) -> None:
    app.conf.result_backend = "redis://:hunter2@localhost/0"
    run(["worker", "-q"], app)
    text = banner(launched[0], None)
    assert "hunter2" not in text


def test_each_start_tells_what_is_dangerous(
    app: Celery, launched: list[Node], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("C_FORCE_ROOT", "1")
    app.conf.accept_content = ["json", "pickle"]
    run(["worker", "-q"], app)
    assert "accept_content has pickle" in caplog.text


def test_a_key_that_is_too_short_is_told_at_the_start(app: Celery, launched: list[Node]) -> None:
    app.conf.signing_key = "short"
    assert run(["worker", "-q"], app) != 0
    assert not launched


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("sqlite:////data/a%20b.db", "/data/a b.db"),
        ("redis://u:secret@h/0", "redis://u:********@h/0"),
        ("memory://", "memory://"),
    ],
)
def test_urls_as_they_are_shown(url: str, text: str) -> None:
    assert shown(url) == text


def test_log_format(app: Celery, launched: list[Node]) -> None:
    assert run(["worker", "-q", "--log-format", "json"], app) == 0
    assert (app.conf.worker_log_format, app.conf.worker_task_log_format) == ("json", "json")
