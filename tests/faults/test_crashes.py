"""Processes that die of a task, and a supervisor that dies alone."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from tests.faults.fleet import alive, send_signal
from tests.faults.journal import report
from tests.faults.place import HEIRS_LEASE, LEASE, Place
from tests.faults.scenario import scenario
from tests.servers import wait_until

BESIDE = CLUSTER = True


def _until(moment: float) -> None:
    wait_until(lambda: time.monotonic() >= moment, 15.0)


def _load(place: Place, killers: list[str], seconds: float) -> dict[str, tuple[int, float]]:
    """Good tasks of 5 ms at a steady 50 a second, the killers among them; id → number, moment of sending."""
    sent: dict[str, tuple[int, float]] = {}
    began = time.monotonic()
    waiting = list(killers)
    for number in range(int(50 * seconds)):
        _until(began + number / 50)
        if waiting and number % 30 == 10:  # one after the other
            place.send("die", waiting.pop(), task_id=f"killer-{len(waiting)}")
        at = time.time()
        sent[place.send("work", number, 5)] = (number, at)
    return sent


@scenario(
    "processes",
    fault="a task kills its process each time it runs",
    promise="a dead letter after three crashes, other tasks wait less than a second",
)
def test_a_task_that_kills_its_process_disturbs_no_other(place: Place, fault_scale: float) -> None:
    ways = ["SIGKILL", "segfault", "exit"]
    with place.fleet(worker_lease=30) as fleet:
        node = fleet.start("-c", "2")
        wait_until(lambda: len(node.below()) == 3, 15.0)
        sent = _load(place, ways, 2.5 * fault_scale)
        killers = [f"killer-{number}" for number in range(len(ways))]
        for killer in killers:
            record = place.wait_state(killer, "FAILURE")
            assert record["result"]["exc_type"] == "WorkerLostError"
        place.wait_all(fleet, list(sent), 20.0)
        delays = [fleet.journal.started(each)[0].at - at for each, (_, at) in sent.items()]
        starts = [len(fleet.journal.started(killer)) for killer in killers]
        letters = {letter.id: letter for letter in place.dead()}
        place.judge(
            fleet,
            {each: number for each, (number, _) in sent.items()},
            allowed=sum(starts),
            crashes=sum(starts),
            delay_max=max(delays),
        )
        assert starts == [3] * len(killers)
        assert set(letters) == set(killers)
        assert all(letter.reason == "worker lost" and "\n" not in letter.detail for letter in letters.values())
        assert max(delays) < 10.0, f"good tasks waited {max(delays):.2f} s, for a lease?\n{node.log()}"
        assert node.running
        assert node.stop() == 0


@scenario(
    "processes",
    fault="a child is killed (SIGKILL)",
    promise="its task starts elsewhere within 100 ms, no other runs twice",
)
def test_children_that_die_are_replaced_and_their_tasks_run_again_at_once(place: Place) -> None:
    with place.fleet(worker_lease=30) as fleet:
        node = fleet.start("-c", "2")
        ids = place.send_many("gated", [(str(place.folder),)] * 2)
        wait_until(lambda: fleet.journal.read().starts.total() == 2, 10.0, fleet.logs)
        victim = fleet.journal.started(ids[0])[0].pid
        began = time.monotonic()
        send_signal([victim], signal.SIGKILL)
        wait_until(lambda: len(fleet.journal.started(ids[0])) == 2, 20.0, fleet.logs)
        recovery = time.monotonic() - began
        (place.folder / "all").touch()
        place.wait_all(fleet, ids, 10.0)
        again = fleet.journal.again(ids)
        report(place=place.kind, sent=2, lost=0, again=again, doubled=again - 1, recovery=recovery)
        assert recovery < 10.0, "it waited for the lease, though its supervisor saw the child die"
        assert len(fleet.journal.started(ids[1])) == 1, "the other child's task must not run twice"
        assert node.stop() == 0


@pytest.mark.parametrize("pool", ["prefork", pytest.param("threads", marks=pytest.mark.extended)])
@scenario(
    "processes",
    fault="the supervisor is killed alone",
    promise="no child is left, its tasks run again elsewhere",
)
def test_no_process_outlives_its_supervisor(place: Place, pool: str) -> None:
    with place.fleet() as fleet:
        first = fleet.start("-c", "2", "-P", pool)
        ids = place.send_many("gated", [(str(place.folder),)] * 2)
        wait_until(lambda: fleet.journal.read().starts.total() == 2, 10.0, fleet.logs)
        below = first.below()
        began = time.monotonic()
        os.kill(first.pid, signal.SIGKILL)
        first.process.wait(30)
        wait_until(lambda: not any(map(alive, below)), 15.0, lambda: f"alive: {[p for p in below if alive(p)]}")
        gone = time.monotonic() - began
        assert gone < 10.0, "they outlive it"
        (place.folder / "all").touch()
        fleet.conf["worker_lease"] = HEIRS_LEASE
        fleet.start("-c", "2", "-P", pool)
        wait_until(lambda: fleet.journal.ended(ids) == 2, LEASE + 15.0, fleet.logs)
        recovery = time.monotonic() - began
        place.wait_empty()
        again = fleet.journal.again(ids)
        counts = {"sent": 2, "lost": 0, "again": again, "doubled": again - 2}
        report(place=place.kind, pool=pool, **counts, gone=gone, recovery=recovery)
        assert all(len(fleet.journal.started(each)) == 2 for each in ids)
        assert not place.dead()


@scenario(
    "deploys",
    fault="two workers of one name, and one is killed",
    promise="the other one goes on",
)
def test_two_nodes_of_one_name_do_not_disturb_each_other(place: Place, rng: random.Random) -> None:
    with place.fleet() as fleet:
        twins = [fleet.start("-c", "2", name="twin@faults") for _ in range(2)]
        ids = place.send_many("work", [(number, rng.uniform(5, 20)) for number in range(200)])
        wait_until(lambda: fleet.journal.ended(ids) >= 20, 10.0, fleet.logs)
        twins[0].signal_tree(signal.SIGKILL)
        place.wait_all(fleet, ids, 20.0)
        place.judge(fleet, {each: number for number, each in enumerate(ids)}, allowed=8)
        assert twins[1].stop() == 0
