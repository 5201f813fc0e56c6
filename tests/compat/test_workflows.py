"""The same workflow expressions with real Celery and with Celeriac: values, states, result trees, signatures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compat.project.fleet import Fleet
from tests.compat.project.workflows import EXPRESSIONS, report
from tests.servers import RedisServer


@pytest.fixture(scope="module")
def celery(
    compat_redis: RedisServer, celery_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """What Celery makes of all of them."""
    folder = tmp_path_factory.mktemp("celery")
    with Fleet(compat_redis, folder, celery_python, db=7) as fleet:
        fleet.theirs("theirs@host", "-c", "2").ready()
        fleet.wait_for_answer("theirs@host")
        code = (
            "from tests.compat.project import workflows as w\n{n: w.report(app, e) for n, e in w.EXPRESSIONS.items()}"
        )
        yield fleet.console.run(code)


@pytest.fixture(scope="module")
def ours(compat_redis: RedisServer, celery_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(compat_redis, tmp_path_factory.mktemp("ours"), celery_python, db=8) as fleet:
        fleet.ours("ours@host", "-c", "2").ready()
        yield fleet


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_it_is_the_same(celery: dict[str, Any], ours: Fleet, name: str) -> None:
    found = json.loads(json.dumps(report(ours.app, EXPRESSIONS[name])))
    theirs = celery[name]
    for key in ("value", "error", "signature"):
        assert found.get(key) == theirs.get(key), (key, EXPRESSIONS[name])
    assert found["tree"] == (_ended(theirs["tree"], found["tree"]) if "error" in found else theirs["tree"])


def _ended(theirs: Any, ours: Any) -> Any:
    """Celery's tree of a workflow that failed, with our ends where either has none yet: `get` raises before the others
    have ended. With Celery the steps behind a failed one may stay PENDING for ever."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        if "PENDING" in (theirs.get("state"), ours.get("state")):
            theirs = {**theirs, "state": ours["state"], "value": ours["value"]}
        return {key: _ended(value, ours.get(key)) for key, value in theirs.items()}
    if isinstance(theirs, list) and isinstance(ours, list):
        return [_ended(*pair) for pair in zip(theirs, ours, strict=True)]
    return theirs
