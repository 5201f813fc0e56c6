"""Limits across workers: two nodes keep one pace and share their seats, also when holders die."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from celeriac.model.limits import SLACK
from tests.faults.fleet import Fleet
from tests.faults.journal import report
from tests.faults.place import LEASE, Place
from tests.servers import wait_until

RATE = 30

BESIDE = True


def at_once(fleet: Fleet, ids: Iterable[str], deaths: Mapping[int, float] | None = None) -> int:
    """Most of these that ran at the same time; ``deaths`` are moments at which processes were killed, by pid."""
    wanted, running, most = set(ids), dict[str, int](), 0
    runs = [(run.at, run.kind, run.id, run.pid) for run in fleet.journal.read().runs if run.id in wanted]
    for _, kind, name, pid in sorted([*runs, *((at, "death", "", pid) for pid, at in (deaths or {}).items())]):
        if kind == "start":
            running[name] = pid
        elif kind == "end":
            running.pop(name, None)
        else:
            running = {each: of for each, of in running.items() if of != pid}
        most = max(most, len(running))
    return most


def in_a_second(starts: Sequence[float]) -> int:
    """Most starts in any window of one second."""
    return max(sum(first <= each < first + 1 for each in starts) for first in starts)


@pytest.mark.parametrize(
    "node",
    [("-c", "4"), pytest.param(("-c", "4", "-P", "threads"), marks=pytest.mark.extended)],
    ids=["prefork", "threads"],
)
def test_a_rate_holds_in_the_whole_fleet(place: Place, node: tuple[str, ...]) -> None:
    with place.fleet(worker_lease=30) as fleet:
        for _ in range(2):
            fleet.start(*node)
        began, sent = time.monotonic(), time.time()
        numbers = dict(zip(place.send_many("paced", [(n, 0) for n in range(90)]), range(90), strict=True))
        others = dict(zip(place.send_many("work", [(n, 0) for n in range(200)]), range(200), strict=True))
        wait_until(lambda: fleet.journal.ended(others) == len(others), 20.0, lambda: f"the others\n{fleet.logs()}")
        others_took = time.monotonic() - began
        place.wait_all(fleet, list(numbers), 20.0)
        place.judge(fleet, {**numbers, **others})
        starts = [run.at for run in fleet.journal.runs if run.id in numbers and run.kind == "start"]
        most, took = in_a_second(starts), max(starts) - min(starts)
        report(place=place.kind, most=most, took=took, others_took=others_took)
        # Counted from before the first permit: a machine that is late bunches starts, but has never more of them.
        for number, start in enumerate(sorted(starts), 1):
            assert number <= RATE * (start - sent + SLACK) + 2, f"the {number}th after {start - sent:.2f} s"
        # But for the two longest pauses: those of a machine that stood still.
        pauses = sorted(later - earlier for earlier, later in pairwise(sorted(starts)))
        assert sum(pauses[:-2]) < 2 * len(starts) / RATE
        assert others_took < took, "what is not limited does not wait"
        assert fleet.journal.again(numbers) == 0


def test_a_rate_set_by_remote_control_holds_for_children_of_later_too(place: Place) -> None:
    with place.fleet() as fleet:
        node = fleet.start("-c", "2", name="w@limits")
        control = place.app.control
        wait_until(lambda: control.ping(timeout=0.5, limit=1), 10.0, "the agent listens")
        answers = control.rate_limit("faults.work", f"{RATE}/s", reply=True, timeout=5, limit=1)
        assert answers == [{"w@limits": {"ok": "new rate limit set successfully"}}]
        first = place.send("gated", str(place.folder))
        wait_until(lambda: fleet.journal.read().started(first), 10.0, lambda: fleet.logs())
        os.kill(fleet.journal.started(first)[0].pid, signal.SIGKILL)
        wait_until(lambda: len(fleet.journal.read().started(first)) == 2, 10.0, lambda: node.log())
        (place.folder / "all").touch()
        ids = place.send_many("work", [(n, 0) for n in range(40)])
        place.wait_all(fleet, [first, *ids], 15.0)
        starts = [run.at for run in fleet.journal.runs if run.id in ids and run.kind == "start"]
        assert max(starts) - min(starts) >= 39 / RATE - 2 * SLACK


@pytest.mark.parametrize("task", ["seated", "seated_waits"])
def test_seats_hold_in_the_whole_fleet(place: Place, task: str) -> None:
    with place.fleet(worker_lease=30) as fleet:
        for _ in range(2):
            fleet.start("-c", "4")
        numbers = dict(zip(place.send_many(task, [(n, 40) for n in range(60)]), range(60), strict=True))
        others = dict(zip(place.send_many("work", [(n, 0) for n in range(100)]), range(100), strict=True))
        began = time.monotonic()
        wait_until(lambda: fleet.journal.ended(others) == len(others), 20.0, lambda: f"the others\n{fleet.logs()}")
        others_took = time.monotonic() - began
        place.wait_all(fleet, list(numbers), 20.0)
        took = time.monotonic() - began
        place.judge(fleet, {**numbers, **others}, most=at_once(fleet, numbers), took=took, others_took=others_took)
        assert at_once(fleet, numbers) == 2
        assert others_took < took, "what is not limited does not wait"
        assert fleet.journal.again(numbers) == 0


def test_what_is_not_limited_passes_thousands_that_wait(place: Place) -> None:
    with place.fleet(worker_lease=30) as fleet:
        fleet.start("-c", "4")
        place.wait_all(fleet, place.send_many("seated", [(n, 60) for n in range(8)]), 10.0)  # long, as is known now
        place.send_many("seated", [(n, 60) for n in range(2000)])
        ids = place.send_many("work", [(n, 0) for n in range(10)])
        began = time.monotonic()
        wait_until(lambda: fleet.journal.ended(ids) == len(ids), 30.0, lambda: f"the others\n{fleet.logs()}")
        took = time.monotonic() - began
        waiting = place.depth().scheduled
        report(place=place.kind, took=took, waiting=waiting)
        assert took < 20.0  # one after the other the seated ones take a minute
        assert place.ask(lambda broker: broker.purge("celery")) >= waiting - 200


def test_each_key_has_seats_of_its_own(place: Place) -> None:
    with place.fleet(worker_lease=30) as fleet:
        fleet.start("-c", "6")
        ids = place.send_many("tenants", [(n, 60) for n in range(18)])
        place.wait_all(fleet, ids, 20.0)
        for tenant in range(3):
            assert at_once(fleet, ids[tenant::3]) == 1
        assert at_once(fleet, ids) == 3


def test_the_seat_of_a_killed_child_is_free_at_once(place: Place, tmp_path: Path) -> None:
    with place.fleet(worker_lease=30) as fleet:
        fleet.start("-c", "3")
        ids = place.send_many("seated_gate", [(str(tmp_path),)] * 3)
        wait_until(lambda: len(started(fleet, ids)) == 2, 10.0, lambda: fleet.logs())
        wait_until(lambda: place.depth().scheduled == 1, 10.0, lambda: f"one waits {place.depth()}")
        victim, other = started(fleet, ids)
        (third,) = set(ids) - {victim, other}
        os.kill(fleet.journal.started(victim)[0].pid, signal.SIGKILL)
        began = time.monotonic()
        # The victim comes back too: there is one seat for the two.
        wait_until(
            lambda: third in started(fleet, ids) or len(fleet.journal.started(victim)) == 2,
            20.0,
            lambda: f"the seat is free\n{fleet.logs()}",
        )
        assert time.monotonic() - began < 10.0, "it waited for the lease"
        (tmp_path / "all").touch()
        place.wait_all(fleet, ids, 15.0)


def test_the_seats_of_a_killed_node_are_free_after_its_lease(place: Place, tmp_path: Path) -> None:
    with place.fleet() as fleet:
        doomed = fleet.start("-c", "2")
        ids = place.send_many("seated_gate", [(str(tmp_path),)] * 4)
        wait_until(lambda: len(started(fleet, ids)) == 2, 10.0, lambda: fleet.logs())
        fleet.start("-c", "4")
        wait_until(lambda: place.depth().scheduled == 2, 15.0, lambda: f"two wait {place.depth()}")
        doomed.signal_tree(signal.SIGKILL)
        began = time.monotonic()
        (tmp_path / "all").touch()
        wait_until(lambda: fleet.journal.ended(ids) >= 1, LEASE + 10, lambda: f"a seat is free\n{fleet.logs()}")
        assert time.monotonic() - began < LEASE + 8
        place.wait_all(fleet, ids, 15.0)


@pytest.mark.slow
def test_kills_under_limits_lose_nothing(place: Place, rng: random.Random, fault_scale: float) -> None:
    count = round(120 * fault_scale)
    with place.fleet(worker_lease=10) as fleet:
        nodes = [fleet.start("-c", "4"), fleet.start("-c", "4")]
        seated = place.send_many("seated", [(n, 20) for n in range(count)])
        numbers = dict(zip(seated, range(count), strict=True))
        numbers |= zip(place.send_many("paced", [(n, 20) for n in range(count)]), range(count), strict=True)
        deaths: dict[int, float] = {}
        until = time.monotonic() + 4 * fault_scale
        while time.monotonic() < until and fleet.journal.ended(numbers) < len(numbers):
            rng.choice(nodes).kill_one(rng, deaths)
            time.sleep(rng.uniform(0.2, 0.6))
        place.wait_all(fleet, list(numbers), 60.0)
        most = at_once(fleet, seated, deaths)
        place.judge(fleet, numbers, kills=len(deaths), most=most)
        assert most <= 2


def started(fleet: Fleet, ids: Sequence[str]) -> list[str]:
    """Those that have started, in that order."""
    return list(dict.fromkeys(run.id for run in fleet.journal.read().runs if run.id in ids and run.kind == "start"))
