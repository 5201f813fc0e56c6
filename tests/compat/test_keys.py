"""Keys and locks where Celery's workers run the tasks: they know nothing of them, and leave nothing in the way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.compat.project.fleet import Fleet


@pytest.fixture
def unique(fleet: Fleet) -> Iterator[str]:
    """The name of a task that is unique for our producer."""
    task = fleet.app.tasks["compat.retry"]
    task.unique = "args"
    yield "retry"
    task.unique = None


def lock(fleet: Fleet, times: int) -> bytes | None:
    key = fleet.app.tasks["compat.retry"].unique_rule.key((times,), {})
    return fleet.command("GET", f"celeriac:ledger:{key}")  # type: ignore[no-any-return]


@pytest.mark.parametrize("queue", ["ours", "theirs"])
def test_a_unique_task_with_retries(fleet: Fleet, unique: str, queue: str) -> None:
    first = fleet.send(unique, (2,), queue=queue)
    assert fleet.send(unique, (2,), queue=queue).id == first.id
    assert first.get(timeout=15) == 2
    # Ours frees it; Celery's leaves it, and the record tells that it stands for nothing.
    held = lock(fleet, 2)
    assert held == (None if queue == "ours" else first.id.encode())
    second = fleet.send(unique, (2,), queue="ours")
    assert second.id != first.id
    assert second.get(timeout=15) == 2
    assert lock(fleet, 2) is None


def test_an_idempotency_key(fleet: Fleet) -> None:
    results = [fleet.send("add", (1, 2), queue="theirs", idempotency_key="order-17") for _ in range(3)]
    assert len({result.id for result in results}) == 1
    assert results[0].get(timeout=15) == 3
