"""A whole node is stopped for longer than its lease, and goes on afterwards: what it then writes is refused."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.fleet import Fleet, Node
from tests.faults.journal import report
from tests.faults.place import HEIRS_LEASE, LEASE, Place
from tests.faults.scenario import scenario
from tests.servers import wait_until


def _until_ended(fleet: Fleet, count: int) -> None:
    wait_until(lambda: fleet.journal.read().ends.total() == count, 10.0, fleet.logs)


@pytest.mark.parametrize("zombie_first", [False, True])
@scenario(
    "processes",
    fault="a whole worker is stopped (SIGSTOP) beyond its lease, and goes on",
    promise="taken over after the lease, what the stopped one writes is refused",
)
def test_a_frozen_node_cannot_write(place: Place, zombie_first: bool) -> None:
    folder = place.folder / "gates"
    folder.mkdir()
    with place.fleet() as fleet:
        frozen = fleet.start("-c", "2")
        ids = place.send_many("gated", [(str(folder),)] * 2)
        wait_until(lambda: fleet.journal.read().starts.total() == 2, 10.0, fleet.logs)
        zombies = {run.pid for run in fleet.journal.runs}
        began = time.monotonic()
        frozen.signal_tree(signal.SIGSTOP)
        fleet.conf["worker_lease"] = HEIRS_LEASE
        rightful = fleet.start("-c", "2")
        wait_until(lambda: fleet.journal.read().starts.total() == 4, LEASE + 8.0, fleet.logs)
        recovery = time.monotonic() - began
        heirs = {run.pid for run in fleet.journal.runs} - zombies
        groups = (zombies, heirs) if zombie_first else (heirs, zombies)
        for turn, group in enumerate(groups, 1):
            for pid in group:
                Path(folder, str(pid)).touch()
            if group is zombies:
                frozen.signal_tree(signal.SIGCONT)
                wait_until(lambda: len(frozen.lines("lost its lease")) == 2, 10.0, fleet.logs)
            _until_ended(fleet, 2 * turn)
            if zombie_first and group is zombies:
                assert place.records(ids) == [None, None], "the zombie has stored a result"
        place.wait_empty()
        records = place.records(ids)
        extra = place.send("work", 7, 1)
        place.wait_state(extra, "SUCCESS")
        results = {record["result"] for record in records if record is not None}
        report(
            place=place.kind,
            sent=len(ids),
            lost=sum(record is None for record in records),
            again=fleet.journal.again(ids),
            doubled=fleet.journal.again(ids) - 2,
            refused=len(frozen.lines("lost its lease")),
            recovery=recovery,
        )
        assert results == heirs, "the stored results must be those of the rightful runs"
        assert not place.dead()
        assert frozen.stop() == 0
        assert rightful.stop() == 0
        assert place.empty()


@scenario(
    "processes",
    fault="a whole worker is stopped beyond its lease, with tasks claimed ahead",
    promise="only what was running may start twice",
)
def test_what_a_frozen_node_had_claimed_ahead_does_not_start_there(place: Place) -> None:
    """Tiny tasks are claimed in batches: those that waited in the frozen node belong to another when it wakes."""
    with place.fleet() as fleet:
        frozen = fleet.start("-c", "1")
        ids = _stopped_with_tasks(place, fleet, frozen)
        began = time.monotonic()
        written = {each for each, record in zip(ids, place.records(ids), strict=True) if record is not None}
        zombies = {run.pid for run in fleet.journal.read().runs}
        fleet.conf["worker_lease"] = HEIRS_LEASE
        fleet.start("-c", "2")
        place.wait_all(fleet, ids, LEASE + 15.0)
        recovery = time.monotonic() - began
        starts = _starts(fleet, zombies, ids)
        frozen.signal_tree(signal.SIGCONT)
        extra = place.send_many("work", [(number, 3) for number in range(len(ids), len(ids) + 100)])
        place.wait_all(fleet, extra, 10.0)
        wait_until(lambda: frozen.lines("lease"), 10.0, fleet.logs)
        numbers = {each: number for number, each in enumerate([*ids, *extra])}
        place.judge(fleet, numbers, allowed=len(starts.keys() - written) + 1, recovery=recovery)
        # Between the look at its lease and its first line lies a moment in which the node may freeze.
        late = _starts(fleet, zombies, ids) - starts
        assert late.total() <= 1, "awake again, the node has started what was no longer its own"
        again = {each for each in ids if len(fleet.journal.started(each)) > 1}
        assert again <= starts.keys() | late.keys(), "only what had started when the node froze may start twice"
        assert not again & written, "what has ended and is written may not start again"
        assert frozen.stop() == 0


def _stopped_with_tasks(place: Place, fleet: Fleet, node: Node) -> list[str]:
    """Send tiny tasks, and stop the node while it holds some of them; returns the ids of all. Who comes to that so late
    that all have ended tries again with others."""
    ids: list[str] = []

    def begun() -> bool:
        return fleet.journal.ended(ids) >= len(ids) - 500

    for _ in range(10):
        ids += place.send_many("work", [(number, 3) for number in range(len(ids), len(ids) + 600)])
        wait_until(begun, 10.0, fleet.logs)
        node.signal_tree(signal.SIGSTOP)
        if place.depth().leased:
            return ids
        node.signal_tree(signal.SIGCONT)
    raise AssertionError("it was never stopped with tasks")


def _starts(fleet: Fleet, pids: set[int], ids: list[str]) -> Counter[str]:
    """How often each of ``ids`` has started in these processes."""
    wanted = set(ids)
    return Counter(
        run.id for run in fleet.journal.read().runs if run.kind == "start" and run.pid in pids and run.id in wanted
    )


@scenario(
    "processes",
    fault="C code holds the interpreter for longer than the lease",
    promise="the lease is kept, nothing runs twice",
)
def test_a_task_that_holds_the_interpreter_keeps_its_lease(place: Place) -> None:
    """No thread of the child can renew while C code runs; the child is alive all the same."""
    with place.fleet(worker_lease=HEIRS_LEASE) as fleet:
        nodes = [fleet.start("-c", "1") for _ in range(2)]
        task = place.send("hold", 7, 1.4 * HEIRS_LEASE)
        wait_until(lambda: fleet.journal.started(task), 10.0, fleet.logs)
        place.wait_state(task, "SUCCESS", 1.4 * HEIRS_LEASE + 10.0)
        report(place=place.kind, sent=1, lost=0, again=fleet.journal.again([task]))
        assert fleet.journal.again([task]) == 0, fleet.logs()
        assert [node.stop() for node in nodes] == [0, 0]
