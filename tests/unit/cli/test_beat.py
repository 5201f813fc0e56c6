"""``celeriac beat``: its options, and what keeps it from starting."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac import Celery
from celeriac.beat import service
from celeriac.cli.root import run


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, pristine_logging: None) -> list[Any]:
    """The services that were started, none of which runs."""
    found: list[Any] = []

    async def go(self: Any) -> None:
        found.append(self)

    monkeypatch.setattr(service.BeatService, "run", go)
    return found


@pytest.fixture
def app() -> Celery:
    app = Celery("proj", broker="redis://:s3cret@nowhere:1", set_as_current=False)
    app.conf.worker_redirect_stdouts = False
    app.conf.beat_schedule = {"x": {"task": "t", "schedule": 10}}
    return app


def test_it_starts_and_says_what_it_is(app: Celery, served: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["beat", "--max-interval", "5", "-l", "info"], app) == 0
    (started,) = served
    assert (started.max_interval, started.schedule_filename, started.embedded) == (5.0, None, False)
    out = capsys.readouterr().out
    assert "scheduler  celeriac.beat.scheduler:SharedScheduler" in out
    assert "1 in the settings" in out
    assert "s3cret" not in out


def test_another_scheduler_with_its_file(app: Celery, served: list[Any]) -> None:
    assert run(["-q", "beat", "-S", "celery.beat:PersistentScheduler", "-s", "times"], app) == 0
    assert served[0].schedule_filename == "times"
    assert served[0]._kind.__module__ == "celeriac.beat.persistent"


@pytest.mark.parametrize(
    ("setting", "arguments", "node"),
    [
        (False, [], None),
        (True, ["-n", "a@b"], "a@b"),
        (True, ["--no-enable-remote-control"], None),
        (False, ["--enable-remote-control", "-n", "box"], "celerybeat@box"),
    ],
)
def test_as_which_node_it_answers(
    setting: bool, arguments: list[str], node: str | None, app: Celery, served: list[Any], capsys: Any
) -> None:
    app.conf.beat_enable_remote_control = setting
    assert run(["beat", *arguments], app) == 0
    assert served[0].hostname == node
    assert ("answers as" in capsys.readouterr().out) is (node is not None)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--detach"], "--detach is not available: start beat from systemd"),
        (["--executable", "x"], "--executable goes with --detach"),
        (["-S", "x", "list"], "--scheduler is for the scheduler, not for list"),
        (["--max-interval", "0"], "--max-interval must be more than 0 seconds"),
        (["-l", "loud"], "-l: "),
        (["-S", "nowhere:Scheduler"], "beat_scheduler 'nowhere:Scheduler' cannot be imported"),
    ],
)
def test_what_is_refused(
    arguments: list[str], says: str, app: Celery, served: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["beat", *arguments], app) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert served == []


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("beat_schedule", {"x": {"task": "t", "shedule": 1}}, "beat_schedule: entry 'x': key 'shedule' is not known"),
        ("broker_url", "memory://", "memory:// keeps tasks inside one process"),
        ("broker_url", "amqp://nowhere", "periodic tasks need a ledger"),
    ],
)
def test_what_cannot_be_started(
    setting: str, value: Any, says: str, app: Celery, served: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    app.conf[setting] = value
    assert run(["beat"], app) == 2
    assert says in capsys.readouterr().err
    assert served == []
