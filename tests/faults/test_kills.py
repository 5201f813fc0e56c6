"""Children and whole nodes die without a word: nothing is lost, every result can be read."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time

import pytest

from tests.faults.fleet import ROOT
from tests.faults.hurting import hurt, pace
from tests.faults.journal import report
from tests.faults.place import Place, in_steps
from tests.faults.project import CONF
from tests.faults.scenario import scenario
from tests.servers import wait_until

TASKS = 960


def _held(kills: dict[str, int]) -> int:
    """What the killed processes may have held: a batch is a few tasks of 25 ms, a node has four children."""
    return 4 * (kills["child"] + 4 * kills["node"])


@pytest.mark.slow
@scenario(
    "processes",
    fault="a child, an agent or a whole worker is killed every second",
    promise="all done and readable",
)
def test_kills_every_second_lose_nothing(place: Place, rng: random.Random, fault_scale: float) -> None:
    arguments = [(number, rng.uniform(5, 50)) for number in range(round(TASKS * fault_scale))]
    numbers: dict[str, int] = {}
    kills = {"child": 0, "node": 0}
    began = time.monotonic()
    with place.fleet() as fleet:
        for _ in range(2):
            fleet.start("-c", "4", wait=False)
        for part in in_steps(arguments, round(4 * fault_scale)):
            sent = place.send_many("work", part)
            numbers.update(zip(sent, (number for number, _ in part), strict=True))
            pace(fleet, list(numbers), rng.uniform(0.7, 1.0))
            kills[hurt(fleet, rng)] += 1
        while not pace(fleet, list(numbers), rng.uniform(0.9, 1.1)) and kills["node"] < 8 * fault_scale:
            kills[hurt(fleet, rng)] += 1
        last = time.monotonic()
        place.wait_all(fleet, list(numbers), 40.0)
        recovery = time.monotonic() - last
        place.judge(fleet, numbers, allowed=_held(kills), **kills, recovery=recovery, seconds=time.monotonic() - began)


@pytest.mark.slow
@scenario(
    "processes",
    fault="such kills, under retries, chains and coroutines",
    promise="every step runs, in order",
)
def test_retries_chains_and_coroutines_under_kills(place: Place, rng: random.Random, fault_scale: float) -> None:
    numbers: dict[str, int] = {}
    kills = {"child": 0, "node": 0}
    with place.fleet() as fleet:
        for _ in range(2):
            fleet.start("-c", "2")
        for number in range(round(45 * fault_scale)):
            numbers[place.send("again", number)] = number
            numbers[place.send("waits", number, rng.uniform(5, 300))] = number
            first = place.app.tasks["faults.step"]
            chain = first.s(number) | first.s() | first.s()
            numbers[str(chain.apply_async().id)] = number + 3
            if number % 15 == 14:
                kills[hurt(fleet, rng)] += 1
                pace(fleet, list(numbers), 0.3)
        place.wait_all(fleet, list(numbers), 30.0)
        # A coroutine beside a hundred others is held until its own end.
        place.judge(fleet, numbers, allowed=100 * sum(kills.values()), **kills)


@pytest.mark.parametrize("what", ["group", "chord"])
@scenario(
    "producers",
    fault="a producer is killed while it sends groups and chords of 1,000",
    promise="all members or none",
)
def test_a_producer_killed_in_the_middle_sends_all_or_nothing(place: Place, rng: random.Random, what: str) -> None:
    size = 1000
    send = {
        "group": "group(task.s(1, 1) for _ in range(size)).apply_async()",
        "chord": "chord(task.s(1, 1) for _ in range(size))(app.tasks['faults.collect'].s())",
    }[what]
    script = (
        "import sys; from celeriac import chord, group; from tests.faults.project import app\n"
        f"task, size = app.tasks['faults.work'], int(sys.argv[1])\nwhile True: {send}"
    )
    environment = {CONF: json.dumps(place.conf), "PYTHONPATH": str(ROOT / "src")}
    batches = []
    for _ in range(3):
        before = place.depth().ready
        command = [sys.executable, "-c", script, str(size)]
        producer = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment})
        wait_until(lambda was=before: place.depth().ready > was, 10.0)  # type: ignore[misc]
        try:
            producer.wait(rng.uniform(0, 0.2))
        except subprocess.TimeoutExpired:
            producer.kill()
        producer.wait(30)
        batches.append(place.depth().ready)
    torn = sum(ready % size != 0 for ready in batches)
    report(place=place.kind, sent=batches[-1], lost=torn, torn=torn)
    assert all(ready % size == 0 for ready in batches), batches


@scenario(
    "processes",
    fault="kills, under tasks with `acks_late=False`",
    promise="never started twice; lost with the process, as asked",
)
def test_early_acknowledged_tasks_never_start_twice(place: Place, rng: random.Random, fault_scale: float) -> None:
    with place.fleet() as fleet:
        for _ in range(2):
            fleet.start("-c", "2")
        ids = place.send_many("once", [(number, rng.uniform(5, 50)) for number in range(round(200 * fault_scale))])
        kills = {"child": 0, "node": 0}
        while not pace(fleet, ids, 0.5) and sum(kills.values()) < 5 * fault_scale:
            kills[hurt(fleet, rng)] += 1
        place.wait_empty(20.0)
        lost = len(ids) - fleet.journal.ended(ids)
        again = fleet.journal.again(ids)
        report(place=place.kind, sent=len(ids), lost=lost, again=again, doubled=again, **kills)
        assert again == 0
        assert lost <= _held(kills), "early acknowledgement gives up what a dead process held, no more"


@scenario(
    "time",
    fault="kills, under tasks with a `countdown`",
    promise="never early",
)
def test_scheduled_tasks_survive_kills_and_are_never_early(
    place: Place, rng: random.Random, fault_scale: float
) -> None:
    dues: dict[str, float] = {}
    with place.fleet() as fleet:
        for _ in range(2):
            fleet.start("-c", "2")
        for number in range(round(200 * fault_scale)):
            countdown = rng.uniform(0.2, 2.0 * fault_scale)
            sent = time.time()
            dues[place.send("work", number, 1, countdown=countdown)] = sent + countdown
        kills = {"child": 0, "node": 0}
        while not pace(fleet, list(dues), rng.uniform(0.7, 1.0)) and sum(kills.values()) < 5 * fault_scale:
            kills[hurt(fleet, rng)] += 1
        place.wait_all(fleet, list(dues), 20.0)
        firsts = {each: fleet.journal.started(each)[0].at for each in dues}
        early = [each for each, due in dues.items() if firsts[each] < due]
        late = sorted(firsts[each] - due for each, due in dues.items())
        place.judge(
            fleet,
            dict(zip(dues, range(len(dues)), strict=True)),
            allowed=_held(kills),
            early=len(early),
            late_p50=late[len(late) // 2],
            late_max=late[-1],
            **kills,
        )
        assert not early


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["group", "chord"])
def test_a_producer_killed_in_the_middle_of_a_large_group_sends_all_or_nothing(
    place: Place, rng: random.Random, fault_scale: float, kind: str
) -> None:
    size = 3_000
    script = (
        "import sys; from celeriac import chord, group; from tests.faults.project import app\n"
        "work, collect = app.tasks['faults.work'], app.tasks['faults.collect']\n"
        "tasks = group(work.s(1, 1) for _ in range(int(sys.argv[1])))\n"
        "while True:\n"
        "    print('sending', flush=True)\n"
        "    chord(tasks)(collect.s()) if sys.argv[2] == 'chord' else tasks.apply_async()\n"
    )
    environment = {CONF: json.dumps(place.conf), "PYTHONPATH": str(ROOT / "src")}
    sent = []
    for _ in range(round(3 * fault_scale)):
        before = place.depth().ready
        producer = subprocess.Popen(
            [sys.executable, "-c", script, str(size), kind],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
        )
        assert producer.stdout is not None
        producer.stdout.readline()
        try:
            producer.wait(rng.uniform(0.02, 0.8))
        except subprocess.TimeoutExpired:
            producer.kill()
            producer.wait()
        producer.stdout.close()
        sent.append(place.depth().ready - before)
    report(place=place.kind, kind=kind, kills=len(sent), whole=sum(sent) // size, parts=sum(n % size > 0 for n in sent))
    assert all(number % size == 0 for number in sent), sent
