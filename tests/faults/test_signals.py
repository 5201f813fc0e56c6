"""Each signal to each process: a child, the supervisor, all of a worker. What nobody foresaw must not cost a task."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.fleet import alive, send_signal
from tests.faults.journal import report
from tests.faults.place import HEIRS_LEASE, LEASE, Place
from tests.faults.scenario import scenario
from tests.servers import wait_until


@scenario(
    "processes",
    fault="a whole worker is killed (SIGKILL)",
    promise="its tasks start elsewhere within lease + 1 s",
)
def test_a_whole_worker_is_killed(place: Place, rng: random.Random, fault_scale: float) -> None:
    """Counted from the death; the lease began up to a third of itself earlier. In long runs it is 5 s."""
    lease = 5.0 if fault_scale > 1 else LEASE
    with place.fleet(worker_lease=lease) as fleet:
        victim = fleet.start("-c", "2", wait=False)
        fleet.conf["worker_lease"] = max(lease, HEIRS_LEASE)
        heir = fleet.start("-c", "3", wait=False)
        victim.ready()
        heir.ready()
        ids = place.send_many("gated", [(str(place.folder),)] * 5)
        wait_until(lambda: fleet.journal.read().starts.total() == 5, 10.0, fleet.logs)
        below = set(victim.below())
        lost = [run.id for run in fleet.journal.runs if run.pid in below]
        moment = time.monotonic() + rng.uniform(0, lease / 3)  # anywhere between two renewals
        wait_until(lambda: time.monotonic() > moment, 15.0)
        victim.signal_tree(signal.SIGKILL)
        death = time.time()
        for pid in {run.pid for run in fleet.journal.runs} - below:
            Path(place.folder, str(pid)).touch()  # a place for each of the lost ones is free by then
        wait_until(lambda: all(len(fleet.journal.started(each)) == 2 for each in lost), lease + 10.0, fleet.logs)
        recovery = max(fleet.journal.started(each)[1].at for each in lost) - death
        Path(place.folder, "all").touch()
        place.wait_all(fleet, ids, 10.0)
        again = fleet.journal.again(ids)
        report(place=place.kind, sent=5, lost=0, again=again, doubled=again - len(lost), recovery=recovery)
        assert again == len(lost) == 2
        assert recovery < lease + (1.5 if fault_scale > 1 else 8.0)
        assert heir.stop() == 0


@scenario(
    "processes",
    fault="SIGTERM to a child alone",
    promise="it ends what it runs, and is replaced",
)
def test_sigterm_to_a_child(place: Place) -> None:
    with place.fleet(worker_lease=30) as fleet:
        node = fleet.start("-c", "1")
        first = place.send("gated", str(place.folder))
        wait_until(lambda: fleet.journal.started(first), 10.0, fleet.logs)
        child = fleet.journal.started(first)[0].pid
        others = place.send_many("work", [(number, 1) for number in range(20)])
        send_signal([child], signal.SIGTERM)
        Path(place.folder, "all").touch()
        began = time.monotonic()
        place.wait_all(fleet, [first, *others], 10.0)
        recovery = time.monotonic() - began
        numbers = {first: child, **{each: number for number, each in enumerate(others)}}
        place.judge(fleet, numbers, allowed=0, recovery=recovery)
        wait_until(lambda: not alive(child), 15.0, node.log)
        assert node.stop() == 0


@scenario(
    "processes",
    fault="a child is stopped (SIGSTOP) while it runs a task",
    promise="its lease ends, the task runs elsewhere, what the stopped child writes is refused",
)
def test_a_stopped_child(place: Place, fault_scale: float) -> None:
    with place.fleet() as fleet:
        node = fleet.start("-c", "2")
        task = place.send("gated", str(place.folder))
        wait_until(lambda: fleet.journal.started(task), 10.0, fleet.logs)
        stopped = fleet.journal.started(task)[0].pid
        with _stopped([stopped]):
            began = time.monotonic()
            wait_until(lambda: len(fleet.journal.started(task)) == 2, LEASE + 10.0, fleet.logs)
            recovery = time.monotonic() - began
            heir = fleet.journal.started(task)[1].pid
            Path(place.folder, str(heir)).touch()
            place.wait_state(task, "SUCCESS")
        Path(place.folder, "all").touch()
        node.logged("lost its lease")
        place.wait_empty()
        place.judge(fleet, {task: heir}, allowed=1, recovery=recovery)
        # Runs of minutes have the machine for themselves.
        assert recovery < LEASE * 4 / 3 + (2.0 if fault_scale > 1 else 7.0)
        assert node.stop() == 0


@scenario(
    "processes",
    fault="the supervisor is stopped (SIGSTOP), then a child dies, then it goes on",
    promise="the others go on meanwhile, the dead child's task runs again",
)
def test_a_stopped_supervisor(place: Place) -> None:
    with place.fleet() as fleet:
        node = fleet.start("-c", "2")
        task = place.send("gated", str(place.folder))
        wait_until(lambda: fleet.journal.started(task), 10.0, fleet.logs)
        with _stopped([node.pid]):
            send_signal([fleet.journal.started(task)[0].pid], signal.SIGKILL)
            began = time.monotonic()
            ids = place.send_many("work", [(number, 1) for number in range(20)])
            wait_until(lambda: fleet.journal.ended(ids) == 20, 10.0, fleet.logs)
            wait_until(lambda: len(fleet.journal.started(task)) == 2, LEASE + 10.0, fleet.logs)
            recovery = time.monotonic() - began
            Path(place.folder, "all").touch()
            wait_until(lambda: fleet.journal.ended([task]), 10.0, fleet.logs)
        place.wait_all(fleet, ids, 10.0)
        numbers = {each: number for number, each in enumerate(ids)}
        place.judge(fleet, {**numbers, task: fleet.journal.started(task)[1].pid}, allowed=1, recovery=recovery)
        wait_until(lambda: len(node.below()) == 3, 10.0, node.log)
        assert node.stop() == 0


@scenario(
    "processes",
    fault="the agent is killed, then a child",
    promise="a new agent settles what the child held, at once",
)
def test_the_agent_dies_and_a_child_after_it(place: Place) -> None:
    with place.fleet(worker_lease=30) as fleet:
        node = fleet.start("-c", "2")
        task = place.send("gated", str(place.folder))
        wait_until(lambda: fleet.journal.started(task), 10.0, fleet.logs)
        child = fleet.journal.started(task)[0].pid
        other = place.send("gated", str(place.folder))
        wait_until(lambda: fleet.journal.started(other), 10.0, fleet.logs)
        children = {child, fleet.journal.started(other)[0].pid}
        began = time.monotonic()
        send_signal([pid for pid in node.below() if pid not in children], signal.SIGKILL)
        send_signal([child], signal.SIGKILL)
        wait_until(lambda: len(fleet.journal.started(task)) == 2, 20.0, fleet.logs)
        recovery = time.monotonic() - began
        Path(place.folder, "all").touch()
        place.wait_all(fleet, [task, other], 10.0)
        again = fleet.journal.again([task, other])
        report(place=place.kind, sent=2, lost=0, again=again, doubled=again - 1, recovery=recovery)
        assert recovery < 10.0  # of a lease of 30 s
        assert again == 1
        assert node.stop() == 0


@contextmanager
def _stopped(pids: list[int]) -> Iterator[None]:
    send_signal(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        send_signal(pids, signal.SIGCONT)
