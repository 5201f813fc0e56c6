"""A dead letter of ours, sent again, runs on a Celery worker: its header of ours is one more header to Celery."""

from __future__ import annotations

from tests.compat.project.fleet import Fleet
from tests.servers import wait_until


def test_celery_runs_what_is_sent_again(fleet: Fleet) -> None:
    letters = fleet.app.dead_letters
    result = fleet.send("add", (1, None), queue="ours")
    found = fleet.outcome(result)
    assert found["state"] == "FAILURE", found
    wait_until(lambda: letters.count(task="compat.add") == 1, 60, fleet.logs)
    again = letters.retry(result.id, args=[20, 22], to_queue="theirs")
    assert again.get(timeout=60) == 42
    assert letters.count(task="compat.add") == 0
