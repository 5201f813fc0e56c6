"""pause and resume: what is written, what is said."""

from __future__ import annotations

import itertools
import json

import pytest

from celeriac import Celery
from celeriac.cli.root import run

_numbers = itertools.count(1)


@pytest.fixture
def app() -> Celery:
    return Celery("proj", broker=f"memory://cli-queues-{next(_numbers)}", set_as_current=False)


def test_pause_list_and_resume(app: Celery, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pause", "emails", "reports", "--by", "me", "--reason", "maintenance"], app) == 0
    assert capsys.readouterr().out == "Paused emails, reports.\n"
    assert run(["pause", "--list"], app) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["emails", "reports"]
    assert lines[0].endswith("by me: maintenance")
    assert run(["resume", "emails", "other"], app) == 0
    assert capsys.readouterr().out == "Resumed emails.\nNot paused: other.\n"
    assert run(["pause", "--list", "--json"], app) == 0
    assert set(json.loads(capsys.readouterr().out)["reports"]) == {"by", "reason", "at"}


@pytest.mark.parametrize("words", [["pause"], ["resume"], ["pause", "--list", "emails"]])
def test_wrong_arguments(app: Celery, words: list[str]) -> None:
    assert run(words, app) == 2
