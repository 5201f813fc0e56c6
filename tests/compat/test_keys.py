"""Keys and locks where Celery's workers run the tasks: they know nothing of them, and leave nothing in the way."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.compat.project.fleet import Fleet


@pytest.fixture
def unique(fleet: Fleet) -> Iterator[str]:
    """The name of a task that is unique for our producer."""
    task = fleet.app.tasks["compat.later"]
    task.unique = "args"
    yield "later"
    task.unique = None


def lock(fleet: Fleet, gate: str) -> bytes | None:
    key = fleet.app.tasks["compat.later"].unique_rule.key((gate,), {})
    return fleet.command("GET", f"celeriac:ledger:{key}")  # type: ignore[no-any-return]


@pytest.mark.parametrize("queue", ["ours", "theirs"])
def test_a_unique_task_with_retries(fleet: Fleet, unique: str, queue: str) -> None:
    gate = f"unique-{queue}-{uuid4()}"
    first = fleet.send(unique, (gate,), queue=queue)
    assert fleet.send(unique, (gate,), queue=queue).id == first.id
    fleet.wait_state(first.id, "RETRY")
    assert fleet.send(unique, (gate,), queue=queue).id == first.id
    fleet.open(f"{gate}-again")
    assert first.get(timeout=60) == gate
    # Ours frees it; Celery's leaves it, and the record tells that it stands for nothing.
    held = lock(fleet, gate)
    assert held == (None if queue == "ours" else first.id.encode())
    second = fleet.send(unique, (gate,), queue="ours")
    assert second.id != first.id
    assert second.get(timeout=60) == gate
    assert lock(fleet, gate) is None


def test_an_idempotency_key(fleet: Fleet) -> None:
    results = [fleet.send("add", (1, 2), queue="theirs", idempotency_key="order-17") for _ in range(3)]
    assert len({result.id for result in results}) == 1
    assert results[0].get(timeout=60) == 3
