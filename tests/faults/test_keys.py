"""Keys, locks and steps while processes die: one run a key, no lock left behind, no recorded step run again."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from celeriac.client import resolver
from tests.faults.fleet import ROOT
from tests.faults.hurting import hurt, pace
from tests.faults.journal import report
from tests.faults.place import LEASE, Place
from tests.faults.project import CONF
from tests.servers import wait_until

BESIDE = True


def _stands(place: Place, keys: list[str]) -> list[bytes | None]:
    url = resolver.ledger_url(place.app.conf, place.url)
    assert url is not None
    ledger = resolver.ledger(url, resolver.adapter_options(place.app.conf))
    try:
        return list(ledger.read(keys, timeout=10.0))
    finally:
        ledger.close()


def _open(place: Place, name: str) -> None:
    (place.folder / name).touch()


@pytest.mark.parametrize("dies", ["child", "node"])
def test_a_killed_holder_keeps_its_lock_until_it_ends(place: Place, dies: str) -> None:
    gate, lock = str(place.folder), ["lock:faults.unique_gated:"]
    with place.fleet() as fleet:
        first = fleet.start("-c", "1")
        held = place.send("unique_gated", gate)
        wait_until(lambda: len(fleet.journal.started(held)) == 1, 10.0)
        assert place.send("unique_gated", gate) == held
        if dies == "node":
            fleet.start("-c", "1")
            first.signal_tree(signal.SIGKILL)
        else:
            os.kill(fleet.journal.started(held)[0].pid, signal.SIGKILL)
        assert place.send("unique_gated", gate) == held, "whoever dies, the lock is the task's"
        wait_until(lambda: len(fleet.journal.started(held)) == 2, LEASE + 10.0, fleet.logs)
        assert place.send("unique_gated", gate) == held
        assert _stands(place, lock) != [None]
        _open(place, "all")
        place.wait_state(held, "SUCCESS")
        wait_until(lambda: _stands(place, lock) == [None], 15.0)
        again = place.send("unique_gated", gate)
        assert again != held
        place.wait_state(again, "SUCCESS")


def test_a_task_that_kills_its_worker_frees_its_lock_in_the_end(place: Place) -> None:
    place.app.tasks["faults.die"].unique = True
    with place.fleet() as fleet:
        fleet.start("-c", "1")
        killer = place.send("die", "SIGKILL")
        assert place.send("die", "SIGKILL") == killer
        place.wait_state(killer, "FAILURE", 30.0)
        wait_until(lambda: _stands(place, ["lock:faults.die:"]) == [None], 15.0, fleet.logs)


_PRODUCERS = """
import os, sys
from tests.faults.project import app
task = app.tasks["faults.work"]
sys.stdin.readline()
for number in range(8):
    if not os.fork():
        ids = {task.apply_async((1, 1), idempotency_key="order-17").id for _ in range(int(sys.argv[1]))}
        os.write(1, " ".join([*ids, ""]).encode())
        os._exit(0)
for number in range(8):
    assert os.wait()[1] == 0
"""


def test_eight_processes_that_send_one_key(place: Place) -> None:
    environment = {**os.environ, CONF: json.dumps(place.conf), "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", _PRODUCERS, "125"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    producers = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
    with place.fleet() as fleet:
        fleet.start("-c", "2")
        answers = producers.communicate("go\n", timeout=60)[0].split()
        assert producers.returncode == 0
        ids = set(answers)
        place.wait_all(fleet, list(ids), 20.0)
        report(place=place.kind, calls=1000, tasks=len(ids), runs=sum(fleet.journal.read().ends.values()))
        assert len(answers) == 8
        assert len(ids) == 1
        assert sum(fleet.journal.read().ends.values()) == 1


def test_a_producer_killed_while_it_sends_keys(place: Place, rng: random.Random) -> None:
    """What it had not told yet can be sent again: a key is set if and only if its message is stored. On two servers the
    one that was about to be sent is set too, until the time of a sending is over."""
    script = (
        "from tests.faults.project import app; task = app.tasks['faults.work']\n"
        "for number in range(100000): task.apply_async((number, 0), idempotency_key=str(number))"
    )
    environment = {**os.environ, CONF: json.dumps(place.conf), "PYTHONPATH": str(ROOT / "src")}
    producer = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=environment)
    wait_until(lambda: place.depth().ready > 20, 20.0)
    time.sleep(rng.uniform(0, 0.1))
    producer.kill()
    producer.wait(30)
    stored = place.depth().ready
    names = [f"key:faults.work:{number}" for number in range(stored + 10)]
    found = [key is not None for key in _stands(place, names)]
    report(place=place.kind, stored=stored, keys=sum(found))
    expected = [True] * stored + [False] * 10
    if place.kind in {"amqp", "queues+redis"} and found != expected:
        assert found == [True] * (stored + 1) + [False] * 9
        wait_until(lambda: [key is not None for key in _stands(place, names)] == expected, 15.0, "its key lapses")
    else:
        assert found == expected


@pytest.mark.slow
def test_locks_under_kills(place: Place, rng: random.Random, fault_scale: float) -> None:
    """Equal tasks are sent all the time while workers die: never two at a time, and no lock is left."""
    numbers: dict[str, int] = {}
    kinds = 12
    kills = {"child": 0, "node": 0}
    with place.fleet() as fleet:
        for _ in range(2):
            fleet.start("-c", "2")
        for _ in range(round(5 * fault_scale)):
            for _ in range(60):
                number = rng.randrange(kinds)
                numbers[place.send("unique", number, rng.uniform(5, 60))] = number
                time.sleep(0.005)
            kills[hurt(fleet, rng)] += 1
            pace(fleet, list(numbers), 0.2)
        place.wait_all(fleet, list(numbers), LEASE + 30.0)
        locks = [f"lock:faults.unique:{number}" for number in range(kinds)]
        wait_until(lambda: not any(_stands(place, locks)), 15.0, lambda: f"{_stands(place, locks)}\n{fleet.logs()}")
        place.judge(fleet, numbers, **kills)
        # A task's time is from its first start to its last end.
        spans: dict[int, list[tuple[float, float]]] = {}
        for each, number in numbers.items():
            began, over = fleet.journal.started(each)[0].at, fleet.journal.finished(each)[-1].at
            spans.setdefault(number, []).append((began, over))
        for of_number in spans.values():
            of_number.sort()
        overlaps = sum(later[0] < earlier[1] for some in spans.values() for earlier, later in itertools.pairwise(some))
        report(place=place.kind, tasks=len(numbers), overlaps=overlaps)
        assert overlaps == 0


@pytest.mark.slow
def test_steps_under_kills(place: Place, rng: random.Random, fault_scale: float) -> None:
    """A step runs again only when its process died before it was recorded, so never after its task went on."""
    count, ids = 6, []
    kills = {"child": 0, "node": 0}
    with place.fleet() as fleet:
        for _ in range(2):
            fleet.start("-c", "2")
        for _ in range(round(4 * fault_scale)):
            ids += [place.send("steps", number, count, 30) for number in range(6)]
            pace(fleet, ids, 0.35)
            kills[hurt(fleet, rng)] += 1
        place.wait_all(fleet, ids, LEASE + 40.0)
        journal = fleet.journal.read()
        names = [f"{each}:{index}" for each in ids for index in range(count)]
        killed = sum(len(journal.started(each)) - 1 for each in ids)
        doubled = sum(len(journal.started(name)) - 1 for name in names)
        effects = sum(len(journal.finished(name)) - 1 for name in names)
        report(
            place=place.kind, tasks=len(ids), killed=killed, steps=len(names), again=doubled, effects=effects, **kills
        )
        assert all(journal.ends[name] >= 1 for name in names)
        # Each death may cost the step that ran, and no other.
        assert doubled <= killed
        for each in ids:
            order = [run.id for run in journal.runs if run.kind == "start" and run.id.startswith(f"{each}:")]
            assert order == sorted(order, key=lambda name: int(name.rpartition(":")[2])), "none before the newest"
        assert [record and record["result"] for record in place.records(ids)] == [
            [number + index for index in range(count)] for number in [*range(6)] * (len(ids) // 6)
        ]
