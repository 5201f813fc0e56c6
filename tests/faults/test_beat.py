"""Schedulers of periodic tasks die, freeze, come back, and have wrong clocks: each slot is sent once."""

from __future__ import annotations

import random
import re
import signal
import time
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.faults.fleet import Fleet, Node, send_signal
from tests.faults.journal import report
from tests.faults.place import Place
from tests.faults.project import CLOCK
from tests.faults.scenario import scenario
from tests.servers import RedisServer, wait_until

#: On a Redis Cluster, too.
CLUSTER = True
#: Seconds of harm, in CI; ``./dev faults`` goes on for longer.
SECONDS = 20.0
#: Nobody is hurt while the last slot that has run is so many seconds old.
_BUSY = 3.0
#: Entries of one second: what is missed meanwhile is sent in any case, or as a short delay.
EVERY = {
    "all": {"task": "faults.slot", "schedule": 1.0, "catch_up": "all"},
    "plain": {"task": "faults.slot", "schedule": 1.0},
    "skip": {"task": "faults.slot", "schedule": 1.0, "overlap": "skip", "args": [5]},
}


class Beats:
    """Two beats and a worker with ``-B`` that runs nothing; one is hurt at a time."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._kinds = ["beat", "beat", "worker"]
        self.nodes = [self._start(kind) for kind in self._kinds]
        self._frozen: list[tuple[float, Node]] = []
        self.counts: dict[str, int] = {"killed": 0, "stopped": 0, "frozen": 0}

    def _start(self, kind: str) -> Node:
        if kind == "beat":
            return self._fleet.start(what="beat", wait=False)
        return self._fleet.start("-B", "-c", "1", "-Q", "nothing", wait=False)

    def hurt(self, rng: random.Random) -> None:
        """Kill, end or freeze one; those whose time is over go on."""
        self.thaw(time.monotonic())
        number = rng.randrange(len(self.nodes))
        node = self.nodes[number]
        if any(node is frozen for _, frozen in self._frozen):
            return
        how = rng.choice(["killed", "killed", "stopped", "frozen"])
        self.counts[how] += 1
        if how == "frozen":
            send_signal(node.tree(), signal.SIGSTOP)
            self._frozen.append((time.monotonic() + rng.uniform(0.3, 4.0), node))
            return
        if how == "killed":
            node.signal_tree(signal.SIGKILL)
        else:
            assert node.stop() in (0, -signal.SIGTERM), node.log()  # the latter: it had hardly begun
        self.nodes[number] = self._start(self._kinds[number])

    def thawed(self) -> bool:
        """Let those go on whose time is over."""
        self.thaw(time.monotonic())
        return True

    def thaw(self, until: float) -> None:
        """Let those go on that have been frozen for long enough by then."""
        for each in [each for each in self._frozen if each[0] <= until]:
            send_signal(each[1].tree(), signal.SIGCONT)
            self._frozen.remove(each)


def slots(fleet: Fleet) -> dict[str, dict[float, list[str]]]:
    """Entry → slot → ids of the tasks that ran for it."""
    found: dict[str, dict[float, list[str]]] = defaultdict(lambda: defaultdict(list))
    for line in fleet.journal.read().starts:
        if "|" in line:
            entry, slot, task_id = line.split("|")
            found[entry][datetime.fromisoformat(slot).timestamp()].append(task_id)
    return found


def missing(ran: Mapping[float, Any], every: float = 1.0) -> list[float]:
    """Slots of an interval that nobody ran between the first and the last."""
    first, last = min(ran), max(ran)
    known = {round(slot, 3) for slot in ran}
    wanted = [round(first + every * number, 3) for number in range(round((last - first) / every) + 1)]
    return [slot for slot in wanted if slot not in known]


def judge(place: Place, fleet: Fleet, *entries: str, **further: Any) -> dict[str, dict[float, list[str]]]:
    """No slot is missing, and none ran as two tasks."""
    found = slots(fleet)
    lost = {entry: missing(found[entry]) for entry in entries}
    doubled = {entry: [(slot, ids) for slot, ids in found[entry].items() if len(set(ids)) > 1] for entry in found}
    sent = sum(len(found[entry]) for entry in found)
    counts = {"lost": sum(map(len, lost.values())), "doubled": sum(map(len, doubled.values()))}
    report(place=place.kind, sent=sent, again=counts["doubled"], **counts, **further)
    assert not counts["lost"], f"lost {lost}\n{fleet.logs()}"
    assert not counts["doubled"], f"doubled {doubled}\n{fleet.logs()}"
    return found


@pytest.mark.slow
@scenario(
    "processes",
    fault="of three schedulers (two beats, a worker with `-B`) one is killed, frozen or restarted every half second",
    promise="each slot of entries of one second runs once",
)
def test_beats_are_killed_and_started_at_random(place: Place, rng: random.Random, fault_scale: float) -> None:
    with place.fleet(beat_schedule=EVERY) as fleet:
        fleet.start("-c", "2")
        beats = Beats(fleet)
        wait_until(lambda: slots(fleet)["plain"], 15.0, fleet.logs)
        end = time.monotonic() + SECONDS * fault_scale
        while time.monotonic() < end:
            beats.hurt(rng)
            pause = time.monotonic() + rng.uniform(0.2, 0.8)
            wait_until(lambda until=pause: time.monotonic() >= until, 15.0)  # type: ignore[misc]
            # A machine that is too busy to start one in time has its turn: what nobody sends for ten seconds is missed.
            wait_until(lambda: beats.thawed() and time.time() - max(slots(fleet)["plain"]) < _BUSY, 90.0, fleet.logs)
        beats.thaw(float("inf"))
        for node in beats.nodes:
            node.ready()
        calm = time.time()
        wait_until(lambda: max(slots(fleet)["plain"]) > calm + 2, 20.0, fleet.logs)
        for node in beats.nodes:
            node.process.terminate()
        for node in beats.nodes:
            assert node.exit_code(40.0) == 0, node.log()
        place.wait_empty(10.0)
        found = judge(place, fleet, "all", "plain", **beats.counts)
        first, last = min(found["all"]), max(found["all"])
        assert last - first >= SECONDS * fault_scale
        assert len(found["skip"]) > (last - first) / 2, fleet.logs()


@pytest.mark.parametrize(
    "kind",
    [
        "redis",
        *(pytest.param(each, marks=pytest.mark.extended) for each in ("postgres", "sqlite", "rabbitmq", "cluster")),
    ],
)
def test_runs_that_last_longer_than_their_interval(kind: str, request: pytest.FixtureRequest) -> None:
    place: Place = request.getfixturevalue(f"{kind}_place")
    every = {
        "queue": {"task": "faults.slot", "schedule": 0.2, "overlap": "queue", "args": [300]},
        "skip": {"task": "faults.slot", "schedule": 0.2, "overlap": "skip", "args": [300]},
    }
    with place.fleet(beat_schedule=every, worker_lease=30) as fleet:
        fleet.start("-c", "4")
        beat = fleet.start(what="beat")
        wait_until(lambda: all(len(slots(fleet)[name]) > 3 for name in every), 30.0, fleet.logs)
        assert beat.stop() == 0, beat.log()
        sent = {name: len(beat.lines(f"Sending due task {name} ")) for name in every}
        wait_until(
            lambda: sum(run.kind == "end" for run in fleet.journal.read().runs) >= sum(sent.values()), 30.0, fleet.logs
        )
        found = judge(place, fleet)
        assert missing(found["queue"], 0.2) == [], fleet.logs()
        assert {name: len(found[name]) for name in every} == sent
        runs: dict[str, dict[str, float]] = {"start": {}, "end": {}}
        for run in fleet.journal.runs:
            runs[run.kind][run.id] = run.at
        assert runs["start"].keys() == runs["end"].keys()
        for name in every:
            times = sorted((at, runs["end"][line]) for line, at in runs["start"].items() if line.startswith(name))
            gaps = [start - end for (_, end), (start, _) in pairwise(times)]
            assert min(gaps) >= 0, f"runs of {name} overlap: {times}\n{fleet.logs()}"
        left_out = missing(found["skip"], 0.2)
        assert len(left_out) >= len(found["skip"]) - 1, found["skip"]


@pytest.mark.parametrize(
    ("kind", "hours"),
    [
        ("redis", 1),
        ("postgres", -1),
        pytest.param("redis", -1, marks=pytest.mark.extended),
        pytest.param("postgres", 1, marks=pytest.mark.extended),
    ],
)
@scenario(
    "time",
    fault="the clock of one of two schedulers is off by an hour",
    promise="no slot early or twice by the server's clock",
)
def test_a_scheduler_with_a_wrong_clock(kind: str, hours: int, request: pytest.FixtureRequest) -> None:
    place: Place = request.getfixturevalue(f"{kind}_place")
    clock = Path(place.folder, "clock")
    clock.write_text(str(hours * 3600), "ascii")
    with place.fleet(beat_schedule=EVERY, worker_lease=30) as fleet:
        fleet.start("-c", "2")
        wrong = fleet.start(what="beat", environment={CLOCK: str(clock)})
        wait_until(lambda: len(slots(fleet)["plain"]) > 1, 15.0, fleet.logs)
        right = fleet.start(what="beat")
        wait_until(lambda: len(slots(fleet)["plain"]) > 4, 15.0, fleet.logs)
        wrong.signal_tree(signal.SIGKILL)
        wait_until(lambda: len(slots(fleet)["plain"]) > 6, 15.0, fleet.logs)
        assert right.stop() == 0
        place.wait_empty(10.0)
        starts = {run.id: run.at for run in fleet.journal.runs if run.kind == "start" and "|" in run.id}
        late = [at - datetime.fromisoformat(line.split("|")[1]).timestamp() for line, at in starts.items()]
        early = sum(each < 0 for each in late)
        judge(place, fleet, "all", "plain", early=early, late_max=max(late))
        assert early == 0, late
        assert max(late) < 10.0, late  # of an hour; the rest is for a busy machine
        told = re.search(r"This machine's clock is ([\d.]+) s", wrong.text())
        assert told is not None, wrong.log()
        assert float(told[1]) == pytest.approx(3600, abs=10), "by as much as an answer takes on a busy machine"
        assert not right.lines("This machine's clock")


@pytest.mark.slow
@scenario(
    "broker",
    fault="a Redis with AOF is killed and restarted under two schedulers",
    promise="no slot lost or doubled; they go on within seconds",
)
def test_the_broker_is_restarted_under_schedulers(make_redis: Any, tmp_path: Path, fault_scale: float) -> None:
    server: RedisServer = make_redis(appendonly=True)
    place = Place(server.url(), tmp_path, server)
    with place.fleet(beat_schedule=EVERY) as fleet:
        fleet.start("-c", "2")
        beats = [fleet.start(what="beat") for _ in range(2)]
        wait_until(lambda: len(slots(fleet)["plain"]) > 1, 15.0, fleet.logs)
        for _ in range(round(2 * fault_scale)):
            server.kill()
            down = time.monotonic()
            wait_until(lambda since=down: time.monotonic() - since > 1.5, 15.0)  # type: ignore[misc]
            server.start()
            back = time.time()
            wait_until(lambda since=back: max(slots(fleet)["plain"]) > since + 1, 15.0, fleet.logs)  # type: ignore[misc]
        for beat in beats:
            assert beat.stop() == 0, beat.log()
        place.wait_empty(10.0)
        after = [run.at for run in fleet.journal.runs if run.at > back]
        judge(place, fleet, "all", "plain", recovery=min(after) - back)
        assert min(after) - back < 10.0
        for beat in beats:
            assert 1 <= len(beat.lines("Cannot send what is due")) <= 15 * round(2 * fault_scale)
