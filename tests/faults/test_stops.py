"""Deploys: SIGTERM under load, grace longer and shorter than the tasks, and the impatient second signal."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import time
from contextlib import closing

import pytest

from tests.faults.fleet import Node
from tests.faults.journal import report
from tests.faults.place import QUEUE, Place
from tests.faults.scenario import scenario
from tests.servers import wait_until


@scenario(
    "deploys",
    fault="SIGTERM under load",
    promise="what runs ends, what has not started goes back, nothing runs twice",
)
def test_sigterm_under_load(place: Place, rng: random.Random) -> None:
    _stop_under_load(place, rng, "prefork")


@pytest.mark.parametrize("pool", ["threads", "solo"])
@scenario(
    "deploys",
    fault="SIGTERM under load, in the other pools",
    promise="as with prefork",
)
def test_sigterm_under_load_in_other_pools(redis_place: Place, rng: random.Random, pool: str) -> None:
    _stop_under_load(redis_place, rng, pool)


def _stop_under_load(place: Place, rng: random.Random, pool: str) -> None:
    with place.fleet(worker_lease=30) as fleet:
        first = fleet.start("-c", "2", "-P", pool)
        ids = place.send_many("work", [(number, rng.uniform(5, 50)) for number in range(200)])
        wait_until(lambda: fleet.journal.ended(ids) >= 40, 20.0, fleet.logs)
        began = time.monotonic()
        code = first.stop()
        took = time.monotonic() - began
        ended, depth = fleet.journal.ended(ids), place.depth()
        assert code == 0, first.log()
        assert depth.leased == 0
        assert depth.ready == len(ids) - ended, "unfinished work must be back in the queue"
        fleet.start("-c", "4")
        place.wait_all(fleet, ids, 20.0)
        # Every task is shorter than the grace: none may start twice.
        place.judge(fleet, {each: number for number, each in enumerate(ids)}, allowed=0, took=took, back=depth.ready)
        assert took < 10.0


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
@scenario(
    "deploys",
    fault="SIGTERM, and a task is longer than the grace",
    promise="it goes back at the end of the grace and runs elsewhere",
)
def test_tasks_longer_than_the_grace_go_back(place: Place, pool: str) -> None:
    with place.fleet(worker_grace=1.0, worker_lease=30) as fleet:
        first = fleet.start("-c", "1", "-P", pool)
        long = place.send("gated", str(place.folder), 60)
        wait_until(lambda: fleet.journal.started(long), 10.0, fleet.logs)
        others = place.send_many("work", [(number, 1) for number in range(20)])
        began = time.monotonic()
        first.process.send_signal(signal.SIGTERM)
        second = fleet.start("-c", "2", wait=False)
        code = first.exit_code(20.0)
        took = time.monotonic() - began
        second.ready()
        wait_until(lambda: fleet.journal.ended(others) == 20, 15.0, fleet.logs)
        wait_until(lambda: len(fleet.journal.started(long)) == 2, 15.0, fleet.logs)
        (place.folder / "all").touch()
        place.wait_all(fleet, [long], 10.0)
        again = fleet.journal.again([long, *others])
        report(place=place.kind, pool=pool, sent=21, lost=0, again=again, doubled=again - 1, took=took)
        assert code == 0, first.log()
        assert took < 1.0 + 9.0  # of the minute that the task takes
        assert fleet.journal.again(others) == 0
        assert not place.dead()
        assert second.stop() == 0


def _until_said(node: Node, count: int) -> None:
    wait_until(lambda: len(node.lines("shutdown (MainProcess)")) >= count, 15.0, node.log)


def _marks(place: Place) -> dict[str, object]:
    """The marks in the header of the one message that is ready."""
    if place.server is not None:
        raw = place.server.command("LINDEX", QUEUE, 0)
    elif place.database is not None:
        raw = place.database.execute(f"SELECT envelope FROM {place.schema}.message")[0][0]
    else:
        with closing(sqlite3.connect(place.path)) as file:
            raw = file.execute("SELECT envelope FROM message").fetchone()[0]
    marks: dict[str, object] = json.loads(raw)["headers"].get("celeriac") or {}
    return marks


@pytest.mark.parametrize("pool", ["prefork", "solo"])
@pytest.mark.parametrize("signals", [(signal.SIGQUIT,), (signal.SIGTERM, signal.SIGTERM)])
@scenario(
    "deploys",
    fault="SIGQUIT, or SIGTERM twice",
    promise="what runs goes back at once, without blame",
)
def test_a_cold_stop_gives_back_without_blame(place: Place, pool: str, signals: tuple[signal.Signals, ...]) -> None:
    with place.fleet(worker_lease=30) as fleet:
        node = fleet.start("-c", "1", "-P", pool)
        task = place.send("gated", str(place.folder), 60)
        wait_until(lambda: fleet.journal.started(task), 10.0, fleet.logs)
        began = time.monotonic()
        for count, number in enumerate(signals, 1):
            node.process.send_signal(number)
            _until_said(node, count)
        code = node.exit_code(20.0)
        took = time.monotonic() - began
        depth = place.depth()
        report(place=place.kind, pool=pool, sent=1, lost=1 - depth.ready, took=took)
        assert code == 1
        assert (depth.ready, depth.leased) == (1, 0), node.log()
        assert took < 10.0
        assert not _marks(place).get("crashes"), "the operator ended it, the task is not to blame"
