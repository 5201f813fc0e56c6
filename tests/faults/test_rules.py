"""Revoked tasks and paused queues on real nodes: whoever starts later obeys, and nobody is missed by a crash."""

from __future__ import annotations

import random
import signal
import time
from typing import Any

import pytest

from celeriac import chain, chord, group
from tests.faults.fleet import Fleet
from tests.faults.journal import report
from tests.faults.place import QUEUE, Place
from tests.servers import wait_until

FAR = 30 * 86400

BESIDE = True


def _needs_withdrawing(place: Place) -> None:
    if not place.withdraws:
        pytest.skip("what is revoked here is refused when it is claimed, not before")


def said(place: Place, task_id: str, seconds: float = 15.0) -> str:
    """What the result says once the task is revoked."""
    record = place.wait_state(task_id, "REVOKED", seconds)
    assert record["result"]["exc_type"] == "TaskRevokedError"
    return str(record["result"]["exc_message"][0])


def test_revoked_before_any_worker_runs(place: Place) -> None:
    ids = [place.send("work", number, 1) for number in range(3)]
    later = place.send("work", 3, 1, countdown=FAR)
    place.app.control.revoke([ids[1], later], by="alice", reason="wrong customer")
    with place.fleet() as fleet:
        fleet.start("-c", "2")
        assert said(place, ids[1]) == said(place, later) == "revoked by alice: wrong customer"
        place.wait_all(fleet, [ids[0], ids[2]], 10.0)
        assert not fleet.journal.started(ids[1])
        assert not fleet.journal.started(later)
        place.wait_empty()
        result = place.app.AsyncResult(ids[1])
        assert str(result.info) == "revoked by alice: wrong customer"


def test_a_worker_that_starts_later_obeys(place: Place) -> None:
    place.app.control.revoke("to-come", by="")
    with place.fleet() as fleet:
        first = fleet.start("-c", "1")
        first.stop()
        fleet.start("-c", "1")
        place.send("work", 1, 1, task_id="to-come")
        assert said(place, "to-come") == "revoked"
        assert not fleet.journal.started("to-come")


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
def test_scheduled_far_ahead(place: Place, told: bool) -> None:
    """Removed at once, also by nodes that take no remote commands."""
    _needs_withdrawing(place)
    with place.fleet(worker_enable_remote_control=told) as fleet:
        fleet.start("-c", "1")
        task_id, other = (place.send("work", number, 1, countdown=FAR) for number in range(2))
        wait_until(lambda: place.depth().scheduled == 2, 10.0)
        began = time.monotonic()
        place.app.AsyncResult(task_id).revoke(by="bob")
        assert said(place, task_id, 15.0) == "revoked by bob"
        took = time.monotonic() - began
        assert took < 10.0  # of 30 days
        assert place.depth().scheduled == 1
        assert place.state(other) == "PENDING"
        report(place=place.kind, told=told, took=took)


@pytest.mark.parametrize(
    ("told", "task"), [(True, "gated"), (False, "gated"), (True, "waits"), (False, "waits")], ids=str
)
def test_running_ones_are_ended(place: Place, told: bool, task: str) -> None:
    with place.fleet(worker_enable_remote_control=told) as fleet:
        fleet.start("-c", "1")
        arguments = (str(place.folder), 60) if task == "gated" else (1, 60_000)
        task_id = place.send(task, *arguments)
        wait_until(lambda: fleet.journal.started(task_id), 10.0, fleet.logs)
        place.app.AsyncResult(task_id).revoke(terminate=True, by="carol", reason="too long")
        assert said(place, task_id) == "terminated by carol: too long"
        after = place.send("work", 1, 1)
        place.wait_all(fleet, [after], 10.0)
        assert fleet.journal.ended([task_id]) == 0


def test_one_that_was_settled_before_it_ran(redis_place: Place) -> None:
    """``acks_late=False``: no lease tells of it, and its end is recorded all the same."""
    place = redis_place
    with place.fleet() as fleet:
        fleet.start("-c", "1")
        task_id = place.send("once", 1, 60_000)
        wait_until(lambda: fleet.journal.started(task_id), 10.0, fleet.logs)
        place.app.control.terminate(task_id, by="")
        assert said(place, task_id) == "terminated"
        after = place.send("work", 1, 1)
        place.wait_all(fleet, [after], 10.0)
        assert fleet.journal.ended([task_id]) == 0


def test_one_of_many_threads_is_ended(redis_place: Place) -> None:
    """Its process is replaced; the others run again, uncounted."""
    place = redis_place
    with place.fleet() as fleet:
        fleet.start("-c", "2", "-P", "threads")
        task_id, other = (place.send("gated", str(place.folder), 60) for _ in range(2))
        wait_until(lambda: fleet.journal.started(task_id) and fleet.journal.started(other), 10.0, fleet.logs)
        place.app.control.terminate(task_id, by="")
        assert said(place, task_id) == "terminated"
        wait_until(lambda: len(fleet.journal.started(other)) == 2, 10.0, fleet.logs)
        (place.folder / "all").touch()
        place.wait_all(fleet, [other], 15.0)
        assert fleet.journal.ended([task_id]) == 0


def test_a_node_killed_right_after_the_order(place: Place, rng: random.Random) -> None:
    """The order outlives whoever was about to obey it."""
    with place.fleet() as fleet:
        node = fleet.start("-c", "1")
        running = place.send("gated", str(place.folder), 60)
        wait_until(lambda: fleet.journal.started(running), 10.0, fleet.logs)
        waiting = place.send("work", 1, 1)
        place.app.control.revoke([running, waiting], terminate=True, by="dave")
        time.sleep(rng.uniform(0, 0.3))  # any moment between the order and its end
        node.signal_tree(signal.SIGKILL)
        fleet.start("-c", "1")
        assert said(place, running, 15.0).endswith("by dave")
        assert said(place, waiting, 15.0) == "revoked by dave"
        assert fleet.journal.ended([running, waiting]) == 0
        place.wait_empty()


def test_a_child_killed_right_after_the_order(place: Place, rng: random.Random) -> None:
    with place.fleet() as fleet:
        node = fleet.start("-c", "1")
        running = place.send("gated", str(place.folder), 60)
        wait_until(lambda: fleet.journal.started(running), 10.0, fleet.logs)
        place.app.control.revoke(running, terminate=True, by="erin")
        node.kill_one(rng)
        assert said(place, running, 15.0).endswith("by erin")


def test_a_thousand_at_once(place: Place) -> None:
    _needs_withdrawing(place)
    with place.fleet() as fleet:
        fleet.start("-c", "2")
        task = place.app.tasks["faults.work"]
        results = place.app.send_many(task.s(number, 1).set(countdown=FAR) for number in range(1000))
        ids = [str(each.id) for each in results]
        wait_until(lambda: place.depth().scheduled == 1000, 15.0, fleet.logs)
        began = time.monotonic()
        place.app.control.revoke(ids[::2], by="")
        revoked = lambda: sum(r is not None and r["status"] == "REVOKED" for r in place.records(ids[::2]))  # noqa: E731
        wait_until(lambda: revoked() == 500, 15.0, lambda: f"{revoked()} of 500\n{fleet.logs()}")
        report(place=place.kind, revoked=500, took=time.monotonic() - began)
        assert place.depth().scheduled == 500
        assert not any(place.records(ids[1::2]))


def test_groups_chains_and_chords(place: Place) -> None:
    task: Any = place.app.tasks["faults.work"]
    step: Any = place.app.tasks["faults.step"]
    collect: Any = place.app.tasks["faults.collect"]
    many = group(task.s(number, 1) for number in range(3)).apply_async()
    many.revoke(by="frank")
    steps = chain(task.s(1, 1), step.s(), step.s()).apply_async()
    steps.revoke(parents=True, by="frank")
    whole = chord([task.s(number, 1) for number in range(3)], collect.s()).apply_async()
    whole.parent.results[1].revoke(by="frank")
    with place.fleet() as fleet:
        fleet.start("-c", "2")
        for member in (*many.results, steps, steps.parent, steps.parent.parent, whole.parent.results[1]):
            assert said(place, member.id) == "revoked by frank"
        record = place.wait_state(whole.id, "FAILURE")
        assert record["result"]["exc_type"] == "ChordError"
        assert "revoked by frank" in record["result"]["exc_message"][0]
        assert not fleet.journal.started(whole.id)
        place.wait_empty()


def test_by_stamps(place: Place) -> None:
    task: Any = place.app.tasks["faults.work"]
    ids = []
    for customer in ("17", "18", "19"):
        signature = task.s(1, 1)
        signature.stamp(customer=customer)
        ids.append(str(signature.apply_async().id))
    place.app.control.revoke_by_stamped_headers({"customer": ["17", "19"]}, by="")
    with place.fleet() as fleet:
        fleet.start("-c", "1")
        place.wait_all(fleet, [ids[1]], 10.0)
        assert said(place, ids[0]) == said(place, ids[2]) == "revoked"


def test_a_retry_of_a_revoked_task_is_refused(place: Place) -> None:
    _needs_withdrawing(place)
    with place.fleet() as fleet:
        fleet.start("-c", "1")
        task_id = place.send("later", 1, FAR)
        place.wait_state(task_id, "RETRY")
        place.app.control.revoke(task_id, by="")
        assert said(place, task_id) == "revoked"
        assert len(fleet.journal.started(task_id)) == 1
        place.wait_empty()


def test_expired_while_waiting_scheduled_and_between_attempts(place: Place) -> None:
    waiting = place.send("work", 1, 1, expires=0.2)
    scheduled = place.send("work", 1, 1, countdown=1.0, expires=0.5)
    time.sleep(0.3)
    with place.fleet() as fleet:
        fleet.start("-c", "1")
        for task_id in (waiting, scheduled):
            assert said(place, task_id) == "expired"
        for _ in range(5):  # on a busy machine it may expire before its first attempt
            again = place.send("later", 1, 2.0, expires=1.5)
            assert said(place, again) == "expired"
            if fleet.journal.started(again):
                break
        assert [len(fleet.journal.started(each)) for each in (waiting, scheduled, again)] == [0, 0, 1]
        place.wait_empty()


def _quiet(fleet: Fleet, seconds: float = 0.5) -> None:
    """Nothing starts for a while."""
    before = fleet.journal.read().starts.total()
    time.sleep(seconds)
    assert fleet.journal.read().starts.total() == before


def test_pause_under_load_restart_and_resume(place: Place) -> None:
    control = place.app.control
    with place.fleet(worker_lease=30) as fleet:
        node = fleet.start("-c", "2", "-Q", f"{QUEUE},other")
        ids = place.send_many("work", [(number, 10) for number in range(300)])
        wait_until(lambda: fleet.journal.ended(ids) >= 20, 15.0, fleet.logs)
        control.pause_queue(QUEUE, by="grace", reason="deploy")
        wait_until(lambda: place.depth().leased == 0, 15.0, lambda: f"{place.depth()}\n{fleet.logs()}")
        ids += place.send_many("work", [(number, 10) for number in range(300, 310)])
        _quiet(fleet)
        done = fleet.journal.ended(ids)
        assert done < len(ids)
        assert place.depth().ready == len(ids) - done, "what has not started is back"
        assert (control.paused_queues()[QUEUE].by, control.paused_queues()[QUEUE].reason) == ("grace", "deploy")
        other = place.send("work", 1, 1, queue="other")
        wait_until(lambda: fleet.journal.ended([other]) == 1, 15.0, fleet.logs)
        ids.append(place.send("work", 310, 1))
        node.stop()
        fleet.start("-c", "2")
        _quiet(fleet)
        began = time.monotonic()
        control.resume_queue(QUEUE)
        wait_until(lambda: fleet.journal.ended(ids) > done, 10.0, fleet.logs)
        took = time.monotonic() - began
        place.wait_all(fleet, ids, 20.0)
        place.judge(fleet, {each: number for number, each in enumerate(ids)}, resumed=took)
        assert fleet.journal.again(ids) == 0
        assert took < 10.0
        assert control.paused_queues() == {}


def test_pausing_an_idle_node(place: Place) -> None:
    """It waits in a claim, which must not deliver what comes later."""
    with place.fleet() as fleet:
        fleet.start("-c", "2")
        place.app.control.pause_queue(QUEUE)
        ids = place.send_many("work", [(number, 1) for number in range(10)])
        time.sleep(0.5)
        assert fleet.journal.read().starts.total() == 0
        place.app.control.resume_queue(QUEUE)
        place.wait_all(fleet, ids, 15.0)
