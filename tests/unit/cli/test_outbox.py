"""``celeriac outbox``, on a SQLite outbox and a memory broker."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from celeriac import Celery
from celeriac.app.log import Logging
from celeriac.cli.context import Context
from celeriac.cli.root import celeriac
from celeriac.exceptions import ImproperlyConfigured

_numbers = itertools.count()


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    monkeypatch.setattr(Logging, "setup", lambda self, level: None)  # else all later tests would log
    url = f"sqlite:///{tmp_path / 'application.db'}"
    with Celery("shop", broker=f"memory://cli-outbox-{next(_numbers)}", outbox_url=url) as made:
        yield made


def run(app: Celery, *words: str) -> Result:
    return CliRunner().invoke(celeriac, ["outbox", *words], obj=Context(app))


def commit(app: Celery, *names: str) -> list[str]:
    connection = sqlite3.connect(app.conf.outbox_url[len("sqlite:///") :])
    with connection, app.transaction(connection):
        ids = [app.send_task(name).id for name in names]
    connection.close()
    return ids


def fail(app: Celery, task_id: str) -> None:
    connection = sqlite3.connect(app.conf.outbox_url[len("sqlite:///") :])
    with connection:
        connection.execute(
            "UPDATE celeriac_outbox SET failed = 1, attempts = 1, error = 'too\nlarge' WHERE task_id = ?", (task_id,)
        )
    connection.close()


def test_from_the_table_to_an_empty_one(app: Celery) -> None:
    assert run(app, "migrate").output.startswith("The outbox is there: sqlite:///")
    assert run(app, "migrate").exit_code == 0
    first, second = commit(app, "one", "two")
    assert "2 waiting, the oldest for 0." in run(app, "status").output
    (row, _) = map(json.loads, run(app, "list", "--json").output.splitlines())
    assert (row["task"], row["task_id"], row["queue"], row["failed"]) == ("one", first, "celery", False)
    assert run(app, "list").output.splitlines()[1].startswith(f"{second}  two  celery  waiting for 0 s")
    assert run(app, "relay", "--once").exit_code == 0
    now = json.loads(run(app, "status", "-j").output)
    assert (now["waiting"], now["failed"], now["oldest"]) == (0, 0, 0.0)
    assert run(app, "list").output == "No message waits.\n"
    assert run(app, "list", "--json").output == ""
    assert app.sender.publisher.depth(["celery"], timeout=1.0)["celery"].ready == 2


def test_what_failed_is_tried_again_or_dropped(app: Celery) -> None:
    run(app, "migrate")
    first, second, third = commit(app, "one", "two", "three")
    fail(app, first)
    fail(app, second)
    assert run(app, "relay", "--once").exit_code == 0
    assert "0 waiting, the oldest for 0.0 s; 2 failed" in run(app, "status").output
    assert third not in run(app, "list", "--failed").output
    assert "one  celery  failed for 0 s: too\\nlarge" in run(app, "list", "--failed", "--limit", "1").output
    assert run(app, "drop", first).output == "Dropped 1.\n"
    assert run(app, "retry", "--all").output == "1 to be tried again.\n"
    run(app, "relay", "--once")
    assert app.sender.publisher.depth(["celery"], timeout=1.0)["celery"].ready == 2
    assert run(app, "retry", third).output == "0 to be tried again.\n"


@pytest.mark.parametrize("words", [["retry"], ["drop"], ["retry", "--all", "id"], ["drop", "--all", "-y", "id"]])
def test_ids_or_all(app: Celery, words: list[str]) -> None:
    assert "name the ids, or say --all" in run(app, *words).output


def test_all_is_confirmed(app: Celery) -> None:
    assert "confirm with -y" in run(app, "drop", "--all").output


def test_a_url_of_ones_own(app: Celery, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'other.db'}"
    assert run(app, "migrate", url).exit_code == 0
    assert run(app, "status", "--url", url).output.startswith(url)


def test_the_statements(app: Celery) -> None:
    assert "CREATE OR REPLACE TRIGGER" in run(app, "ddl", "postgresql").output
    connection = sqlite3.connect(":memory:")
    connection.executescript(run(app, "ddl", "sqlite").output)
    connection.close()


def test_no_outbox() -> None:
    with Celery("shop", broker="memory://cli-outbox") as app:
        result: Any = run(app, "status")
        assert isinstance(result.exception, ImproperlyConfigured)
        assert "set outbox_url" in str(result.exception)
