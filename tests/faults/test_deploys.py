"""A new version goes out while work comes in: workers are replaced one after the other, nobody waits for it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.load import Load
from tests.faults.place import Place
from tests.faults.project import FUTURE
from tests.faults.scenario import scenario
from tests.servers import wait_until


@pytest.mark.slow
@scenario(
    "deploys",
    fault="four workers are restarted in turn (SIGTERM) under load",
    promise="nothing lost or doubled, 99 of 100 tasks wait less than a second",
)
def test_a_rolling_deploy(place: Place, rng: random.Random, fault_scale: float) -> None:
    with place.fleet(worker_lease=30) as fleet:
        nodes = [fleet.start("-c", "1", wait=False) for _ in range(4)]
        for node in nodes:
            node.ready()
        with Load(place, rng, rate=60) as load:
            load.until(40)
            for turn in range(4 * round(fault_scale)):
                node = nodes[turn % 4]
                assert node.stop() == 0, node.log()
                nodes[turn % 4] = fleet.start("-c", "1")
                load.until(15)
        place.wait_all(fleet, list(load.numbers), 20.0)  # less than a lease
        waited = fleet.journal.waited(load.sent)
        p99 = waited[len(waited) * 99 // 100]
        place.judge(
            fleet, load.numbers, allowed=0, refused=load.refused, p50=waited[len(waited) // 2], p99=p99, recovery=p99
        )
        assert load.refused == 0, load.errors
        assert p99 < (1.0 if fault_scale > 1 else 5.0), fleet.logs()


@scenario(
    "deploys",
    fault="two workers are started with one pidfile",
    promise="the second one refuses, the first goes on",
)
def test_a_second_start_is_refused(place: Place) -> None:
    pidfile = str(Path(place.folder, "worker.pid"))
    with place.fleet(worker_lease=30) as fleet:
        first = fleet.start("-c", "1", "--pidfile", pidfile)
        second = fleet.start("-c", "1", "--pidfile", pidfile, wait=False)
        assert second.exit_code(20.0) != 0
        assert pidfile in second.text()
        assert "Traceback" not in second.text()
        ids = place.send_many("work", [(number, 1) for number in range(20)])
        place.wait_all(fleet, ids, 10.0)
        place.judge(fleet, {each: number for number, each in enumerate(ids)}, allowed=0)
        assert first.stop() == 0


@scenario(
    "producers",
    fault="tasks are sent before any worker ever ran",
    promise="the first worker runs them all",
)
def test_sent_before_any_worker(place: Place) -> None:
    ids = place.send_many("work", [(number, 1) for number in range(100)])
    late = place.send("work", 100, 1, countdown=0.1)
    place.app.close()
    with place.fleet(worker_lease=30) as fleet:
        fleet.start("-c", "2")
        place.wait_all(fleet, [*ids, late], 10.0)
        place.judge(fleet, {each: number for number, each in enumerate([*ids, late])}, allowed=0)


@scenario(
    "deploys",
    fault="an old worker meets tasks and headers that only newer ones know",
    promise="unknown fields are ignored, unknown tasks wait for a worker that knows them",
)
def test_two_versions_side_by_side(place: Place) -> None:
    with place.fleet(worker_unknown_task_park=60.0, worker_lease=30) as fleet:  # long enough for any start
        old = fleet.start("-c", "1")
        new_field = {"headers": {"x-from-the-future": {"deep": [1, None]}, "stamps": {"v": 2}}}
        ids = [place.send("work", number, 1, **new_field) for number in range(10)]
        strange = [place.app.send_task("faults.future", (number,)).id for number in range(5)]
        wait_until(lambda: fleet.journal.ended(ids) == len(ids), 10.0, fleet.logs)
        wait_until(lambda: old.has_logged("faults.future"), 10.0, old.log)
        new = fleet.start("-c", "1", environment={FUTURE: "1"})
        assert old.stop() == 0
        place.wait_all(fleet, [*ids, *strange], 20.0)
        numbers = {each: number for number, each in enumerate(ids)}
        place.judge(fleet, {**numbers, **{each: number for number, each in enumerate(strange)}}, allowed=0)
        assert not place.dead()
        assert new.stop() == 0
