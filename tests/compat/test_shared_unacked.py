"""Both kinds of worker on one `unacked` table: what a killed one held comes back, what a living one holds does not.

The last test takes our workers away: a fleet of Celery's alone goes on.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.project.fleet import Fleet, Worker
from tests.servers import RedisServer, wait_until

#: Seconds; so short that kombu restores within the test. Its scans come every second here.
VISIBILITY = 2.0
TASKS = 300


@pytest.fixture(scope="module")
def shared(compat_redis: RedisServer, celery_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """No workers yet. Acknowledged late on both sides, or a kill loses what it will."""
    options = {"visibility_timeout": VISIBILITY, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}
    folder = tmp_path_factory.mktemp("shared")
    with Fleet(
        compat_redis,
        folder,
        celery_python,
        db=1,
        broker_transport_options=options,
        task_acks_late=True,
        worker_prefetch_multiplier=4,
        worker_lease=3 * VISIBILITY,
    ) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def theirs(shared: Fleet) -> Worker:
    return shared.theirs("theirs@shared", "-c", "2", "-Q", "both", "--without-mingle")


@pytest.fixture(scope="module")
def ours(shared: Fleet, theirs: Worker) -> Worker:
    worker = shared.ours("ours@shared", "-c", "2", "-Q", "ours,both")
    theirs.ready()
    return worker.ready()


def send_many(fleet: Fleet, first: int) -> list[str]:
    """`TASKS` tasks of 10 ms on the queue that both drain."""
    task = fleet.app.tasks["compat.late_work"]
    signatures = [task.s(number, 10.0).set(queue="both") for number in range(first, first + TASKS)]
    return [str(result.id) for result in fleet.app.send_many(signatures)]


def ended(fleet: Fleet, ids: list[str], side: str = "") -> int:
    wanted = set(ids)
    return len({words[1] for words in fleet.journal("end") if words[1] in wanted and words[0].startswith(side)})


def all_done(fleet: Fleet, ids: list[str], first: int) -> None:
    """Every result is there, and readable from both sides."""
    keys = [f"celery-task-meta-{task_id}" for task_id in ids]
    wait_until(
        lambda: all(raw and b'"SUCCESS"' in raw for raw in fleet.command("MGET", *keys)),
        60,
        lambda: f"{ended(fleet, ids)} of {len(ids)} ended\n{fleet.logs()}",
    )
    expected = list(range(first, first + len(ids)))
    assert [fleet.app.AsyncResult(task_id).get(timeout=60) for task_id in ids] == expected
    assert fleet.console.run("[app.AsyncResult(i).get(timeout=60) for i in ids]", ids=ids) == expected
    wait_until(lambda: not fleet.command("EXISTS", "both", "unacked", "unacked_index"), 60, "nothing is left")


def test_kombus_restore_leaves_living_leases_alone(shared: Fleet, ours: Worker) -> None:
    """A long task of ours, held far longer than Celery's visibility timeout, with a Celery worker that scans."""
    result = shared.send("late", ("long",), queue="ours")
    wait_until(lambda: [words for words in shared.journal("start") if words[1] == result.id], 60, shared.logs)
    until = time.time() + 2 * VISIBILITY + 0.5
    wait_until(lambda: time.time() > until or not shared.command("ZCARD", "unacked_index"), 60)
    shared.open("long")
    assert result.get(timeout=60) == "ours"
    assert [words[0] for words in shared.journal("start") if words[1] == result.id] == ["ours"]


def test_pickle_is_refused_where_it_is_not_accepted(shared: Fleet, ours: Worker) -> None:
    """This fleet accepts JSON alone. Celery drops such a message; ours say so in the result."""
    found = shared.console.run("outcome(send('add', (1, 2), queue='ours', serializer='pickle'))")
    assert (found.get("error", [None] * 2)[1], found["state"]) == ("ContentDisallowed", "FAILURE"), found
    assert ours.running


def test_our_worker_is_killed(shared: Fleet, ours: Worker) -> None:
    """Celery's worker alone finishes: it restores what ours held, as it would for one of its own."""
    ids = send_many(shared, 0)

    def both() -> bool:
        if ended(shared, ids) == len(ids):  # one of them did all while the machine held the other up
            ids.extend(send_many(shared, len(ids)))
        return ended(shared, ids, "ours") > 20 and ended(shared, ids, "theirs") > 20

    wait_until(both, 60, shared.logs)
    ours.kill()
    all_done(shared, ids, 0)
    runs = Counter(words[1] for words in shared.journal("start") if words[1] in set(ids))
    assert set(runs) == set(ids)
    assert max(runs.values()) <= 2
    assert sum(runs.values()) - len(ids) <= 20  # what was in flight at most


def test_celerys_worker_is_killed(shared: Fleet, theirs: Worker) -> None:
    """Ours restore what it held once its visibility timeout has passed.

    It is killed while all it may hold is recorded: what kombu has popped and not yet recorded is lost by kombu itself.
    """
    held = [shared.send("late", ("heir",), queue="both").id for _ in range(12)]
    wait_until(lambda: shared.command("ZCARD", "unacked_index") == 8, 60, shared.logs)  # two children, four each
    wait_until(lambda: len({w[1] for w in shared.journal("start")} & set(held)) == 2, 60, shared.logs)
    theirs.kill()
    shared.open("heir")
    shared.ours("heir@shared", "-c", "2", "-Q", "both,ours").ready()
    ids = send_many(shared, TASKS)
    all_done(shared, ids, TASKS)
    assert [shared.app.AsyncResult(task_id).get(timeout=60) for task_id in held] == ["ours"] * 12
    runs = Counter(words[1] for words in shared.journal("start") if words[1] in {*ids, *held})
    assert set(runs) == {*ids, *held}
    assert sum(runs.values()) == TASKS + len(held) + 2


def test_switching_back(shared: Fleet, celery_python: Path) -> None:
    """After our workers have stopped, Celery's find what they gave back; only what is not due yet stays with us."""
    for worker in shared.workers:
        if worker.running:
            assert worker.stop() == 0, worker.log()
    (heir,) = [worker for worker in shared.workers if worker.name == "heir@shared"]
    assert "Traceback" not in heir.text()
    again = shared.ours("last@shared", "-c", "1", "-Q", "both,ours", worker_grace=0.2).ready()
    later = shared.send("add", (1, 2), queue="both", countdown=3600)
    running = shared.send("late", ("back",), queue="both")
    wait_until(lambda: [words for words in shared.journal("start") if words[1] == running.id], 60, shared.logs)
    waiting = shared.send("side", queue="both")
    wait_until(lambda: shared.command("EXISTS", "celeriac:schedule:both"), 60, "the later one is scheduled")
    again.stop()
    assert not shared.command("EXISTS", "unacked", "unacked_index")
    kept = {key.decode() for key in shared.command("KEYS", "celeriac:*")}
    dead = {"celeriac:dead", "celeriac:dead:records", "celeriac:dead:counts"}  # of the refused pickle
    assert kept - dead == {"celeriac:schedules", "celeriac:schedule:both"}
    (entry,) = shared.command("ZRANGE", "celeriac:schedule:both", 0, -1)
    assert later.id.encode() in entry
    shared.open("back")
    shared.theirs("again@shared", "-c", "1", "-Q", "both", "--without-mingle").ready()
    assert shared.console.run("[app.AsyncResult(i).get(timeout=60) for i in ids]", ids=[running.id, waiting.id]) == [
        "theirs",
        "theirs",
    ]
    assert "ERROR" not in shared.workers[-1].text()
    assert "WARNING" not in shared.workers[-1].text()
