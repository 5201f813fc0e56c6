"""A task takes all there is: memory, file descriptors, threads, processes. The others do not pay for it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.faults.cgroups import limited
from tests.faults.fleet import Fleet, Node
from tests.faults.place import Place
from tests.faults.scenario import scenario
from tests.servers import wait_until


@scenario(
    "processes",
    fault="the kernel kills a child for its memory (OOM), each time its task runs",
    promise="a dead letter after three crashes, other tasks go on",
)
def test_out_of_memory(place: Place) -> None:
    with limited("memory", 200_000_000) as group, place.fleet(worker_lease=30) as fleet:
        node = fleet.start("-c", "2")
        ids = place.send_many("work", [(number, 5) for number in range(50)])
        task = place.send("hungry", 400, str(group or ""))
        ids += place.send_many("work", [(number, 5) for number in range(50, 100)])
        place.wait_state(task, "FAILURE", 20.0)
        place.wait_all(fleet, ids, 10.0)
        starts = len(fleet.journal.started(task))
        place.judge(fleet, {each: number for number, each in enumerate(ids)}, allowed=3, crashes=starts)
        assert starts == 3
        assert [letter.id for letter in place.dead()] == [task]
        assert node.stop() == 0


def _go_on(place: Place, fleet: Fleet, node: Node, below: Sequence[int], what: str, error: str) -> None:
    """One task takes all, while others wait; afterwards all is as it was."""
    before = place.send_many("work", [(number, 1) for number in range(20)])
    greedy = place.send("exhaust", what)
    after = place.send_many("work", [(number, 1) for number in range(20, 40)])
    ids = [*before, *after]
    record = place.wait_state(greedy, "SUCCESS", 20.0)
    place.wait_all(fleet, ids, 15.0)
    assert record["result"] == error, record
    place.judge(fleet, {each: number for number, each in enumerate(ids)}, allowed=0)
    assert sorted(node.below()) == sorted(below), node.log()
    assert "Traceback" not in node.text(), node.log()


@scenario(
    "processes",
    fault="a task opens files until there are no more descriptors (`ulimit -n`)",
    promise="it sees the error, the worker and other tasks go on",
)
def test_no_more_files(place: Place) -> None:
    with place.fleet(worker_lease=30) as fleet:
        node = fleet.start("-c", "2", guard=["sh", "-c", 'ulimit -n 128; exec "$@"', "sh"])
        _go_on(place, fleet, node, node.below(), "files", "OSError")
        assert node.stop() == 0


@pytest.mark.parametrize("what", ["threads", "processes"])
@scenario(
    "processes",
    fault="a task starts threads or processes until there are no more",
    promise="it sees the error, other tasks go on, a child that dies then is replaced when there is room",
)
def test_no_more_processes(redis_place: Place, what: str) -> None:
    place = redis_place
    with limited("pids", 60) as group, place.fleet(worker_lease=30) as fleet:
        if group is None:
            pytest.skip("making a pids cgroup is not permitted here")
        node = fleet.start("-c", "2", guard=["sh", "-c", f'echo $$ >{group}; exec "$@"', "sh"])
        error = "RuntimeError" if what == "threads" else "BlockingIOError"
        _go_on(place, fleet, node, node.below(), what, error)
        task = place.send("die", "exit")
        place.wait_state(task, "FAILURE", 20.0)
        wait_until(lambda: len(node.below()) == 3, 10.0, node.log)
        assert node.stop() == 0
