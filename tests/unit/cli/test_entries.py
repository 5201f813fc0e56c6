"""``celeriac beat list``, ``status`` and their like: what they print."""

from __future__ import annotations

import json
from typing import Any

import pytest

from celeriac import Celery
from celeriac.beat.pages import Pages, Record
from celeriac.beat.places import ledger_of
from celeriac.beat.seen import Seen, write_seen
from celeriac.cli.root import run

WHY = "entry 'old one': key 'color' is not known"
NEXT = "`celeriac beat delete 'old one'` forgets it"


@pytest.fixture
def app(request: pytest.FixtureRequest) -> Celery:
    app = Celery("proj", broker=f"memory://{request.node.name}", set_as_current=False)
    app.conf.beat_schedule = {"x": {"task": "t", "schedule": 10}}
    return app


@pytest.fixture
def passed_over(app: Celery) -> None:
    entry = {"task": "t", "schedule": {"every": 1}, "color": "red"}
    Pages(lambda: ledger_of(app), 1.0).edit("old one", lambda _: Record(entry=entry))


def test_the_list_shows_what_is_passed_over(app: Celery, passed_over: None, capsys: Any) -> None:
    assert run(["beat", "list"], app) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == "Stored, but passed over: old one"
    assert WHY in lines[-1]
    assert lines[-1].endswith(NEXT)
    assert run(["beat", "-q", "list", "--json"], app) == 0
    x, old = map(json.loads, capsys.readouterr().out.splitlines())
    assert (x["name"], x["stored"], old["name"], old["stored"]) == ("x", False, "old one", True)
    assert WHY in old["passed_over"]


def test_the_status_shows_it_too(app: Celery, passed_over: None, capsys: Any) -> None:
    assert run(["beat", "status"], app) == 69
    told = capsys.readouterr()
    assert WHY in told.out
    assert "start `celeriac beat`" in told.err
    moment = app.periodic._now()
    seen = Seen(at=moment, host="h", pid=1, tick=moment, next=moment + 1, entries=1, late=(0.1, 0.2, 0.3))
    write_seen(ledger_of(app), "h:1", seen, moment, timeout=1.0)
    assert run(["beat", "status", "--json"], app) == 0
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (line["name"], line["late"]) == ("h:1", {"p50": 0.1, "p99": 0.2, "max": 0.3})
    assert line["last_tick"] < line["next"]
    assert WHY in line["passed_over"]["old one"]
    assert run(["beat", "status"], app) == 0
    assert "1 entry, 0 sent, clock +0.00 s, late p50 0.100" in capsys.readouterr().out


def test_what_cannot_be_an_entry_is_deleted(app: Celery, passed_over: None, capsys: Any) -> None:
    assert run(["beat", "show", "old one"], app) == 1
    assert WHY in capsys.readouterr().err
    assert run(["beat", "delete", "old one"], app) == 0
    assert capsys.readouterr().out == "Entry old one is deleted.\n"
    assert run(["beat", "list"], app) == 0
    assert "old one" not in capsys.readouterr().out


def test_added_with_a_task_that_nobody_here_knows(app: Celery, capsys: Any) -> None:
    app.task(lambda: None, name="known")
    crontab = ["--crontab", "*/10 8-17 * * mon-fri", "--tz", "Europe/Oslo"]
    assert run(["beat", "add", "one", "--task", "known", *crontab], app) == 0
    assert capsys.readouterr().err == ""
    assert run(["beat", "add", "two", "--task", "a.task.with.a.long.name", *crontab], app) == 0
    assert "The task a.task.with.a.long.name is not registered in this app" in capsys.readouterr().err
    assert run(["beat", "list"], app) == 0
    line = capsys.readouterr().out.splitlines()[4]
    assert line.startswith("    a.task.with.a.long.name <crontab: */10 8-17")
    assert line.endswith("… (stored)")
    assert len(line) == 80
