"""Machines that lose each other: a host is cut off and comes back, vanishes, or cannot reach the broker's."""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from celeriac import chord
from celeriac.exceptions import OperationalError
from tests.conftest import missing
from tests.faults.fleet import Fleet, Node
from tests.faults.journal import report
from tests.faults.machines import Machines, wrong_clock
from tests.faults.place import HEIRS_LEASE, LEASE, Place
from tests.faults.relay import Line
from tests.faults.scenario import scenario
from tests.servers import wait_until

#: A partition: whether the host's packets still leave it, and whether others' still reach it.
CUTS = {"both ways": (False, False), "hears nothing": (True, False), "is not heard": (False, True)}
#: What a worker believes to be the broker's time is behind it by the way of its answer, in seconds.
_LAG = 0.02


class Held:
    """Four tasks that wait for a gate of their process, and what follows two kinds of them."""

    def __init__(self, place: Place, folder: Path) -> None:
        folder.mkdir()
        self.place = place
        self.folder = folder
        tasks = place.app.tasks
        gated = tasks["faults.gated"]
        plain, linked = gated.s(str(folder)), gated.s(str(folder))
        joined = chord([gated.s(str(folder)) for _ in range(2)], tasks["faults.collect"].s())
        self.plain = plain.apply_async()
        self.follower = tasks["faults.step"].s().set(task_id=f"follower-{self.plain.id}")
        self.linked = linked.apply_async(link=self.follower)
        self.body: Any = joined.apply_async()
        self.ids = [str(each.id) for each in (self.plain, self.linked, *self.body.parent.results)]

    def runs(self, fleet: Fleet) -> list[int]:
        """The processes that have started them."""
        wanted = set(self.ids)
        return [run.pid for run in fleet.journal.read().runs if run.kind == "start" and run.id in wanted]

    def let_go(self, fleet: Fleet, pids: Collection[int]) -> None:
        """Open the gates of these, and wait until their bodies have ended."""
        for pid in pids:
            Path(self.folder, str(pid)).touch()
        wait_until(lambda: self._ended(fleet, pids) == len(pids), 10.0, lambda: f"they end\n{fleet.logs()}")

    def _ended(self, fleet: Fleet, pids: Collection[int]) -> int:
        wanted = set(self.ids)
        return sum(run.kind == "end" and run.id in wanted and run.pid in pids for run in fleet.journal.read().runs)

    def judge(self, fleet: Fleet, heirs: Sequence[int]) -> None:
        """Everything that is stored is of the heirs, and what follows was done once."""
        body, follower = str(self.body.id), str(self.follower.id)
        assert sorted(self.place.wait_state(body, "SUCCESS")["result"]) == sorted(
            self.place.wait_state(each, "SUCCESS")["result"] for each in self.ids[2:]
        )
        linked = self.place.wait_state(self.ids[1], "SUCCESS")["result"]
        assert self.place.wait_state(follower, "SUCCESS")["result"] == linked + 1
        results = {self.place.wait_state(each, "SUCCESS")["result"] for each in self.ids}
        assert results == set(heirs), "the stored results must be those of the rightful runs"
        for each in (body, follower):
            assert len(fleet.journal.started(each)) == 1, fleet.logs()


def _below(node: Node) -> list[int]:
    return sorted(node.below())


def _started_by(fleet: Fleet, pids: set[int]) -> set[str]:
    return {run.id for run in fleet.journal.read().runs if run.kind == "start" and run.pid in pids}


def _written(place: Place, ids: Sequence[str]) -> set[str]:
    return {each for each, record in zip(ids, place.records(ids), strict=True) if record is not None}


@pytest.mark.parametrize(
    "cut", ["both ways", "hears nothing", pytest.param("is not heard", marks=pytest.mark.extended)]
)
@scenario(
    "hosts",
    fault="a worker's host is cut off, in both directions or in one, and comes back",
    promise="taken over within lease + 5 s; what it writes is refused: results, follow-ups, parts of chords",
)
def test_a_workers_host_is_cut_off(machines: Machines, rng: random.Random, cut: str, fault_scale: float) -> None:
    place, (lonely, other) = machines.place, machines.workers
    sends, hears = CUTS[cut]
    with place.fleet() as fleet:
        zombie = machines.start(fleet, lonely, "-c", "5")
        below = set(zombie.below())
        held = Held(place, place.folder / "gates")
        wait_until(lambda: len(held.runs(fleet)) == 4, 10.0, fleet.logs)
        zombies = held.runs(fleet)
        fleet.conf["worker_lease"] = HEIRS_LEASE
        heir = machines.start(fleet, other, "-c", "5")
        with machines.load(rng, rate=30) as load:
            load.until(40)
            machines.network.cut(lonely, sends=sends, hears=hears)
            began = time.monotonic()
            written = _written(place, list(load.numbers))
            wait_until(lambda: len(held.runs(fleet)) == 8, LEASE + 10.0, fleet.logs)
            recovery = time.monotonic() - began
            held.let_go(fleet, zombies)
            machines.network.heal()
            wait_until(lambda: len(zombie.lines("lost its lease")) >= 4, 20.0, zombie.log)
            assert place.records(held.ids) == [None] * 4, "the host that was cut off has stored a result"
            load.until(20)
        heirs = held.runs(fleet)[4:]
        held.let_go(fleet, heirs)
        place.wait_all(fleet, list(load.numbers), 20.0)
        held.judge(fleet, heirs)
        unwritten = (_started_by(fleet, below) & load.numbers.keys()) - written
        place.judge(fleet, load.numbers, allowed=len(unwritten), refused=load.refused, recovery=recovery)
        report(sent=4, again=len(zombies), lost=0)
        assert recovery < machines.takeover + (0.0 if fault_scale > 1 else 3.0)
        assert load.refused == 0, load.errors
        assert not place.dead()
        assert sorted(below) == sorted(zombie.below()), "a process ended"
        assert [node.stop() for node in (zombie, heir)] == [0, 0]


@scenario(
    "hosts",
    fault="a worker's host vanishes: no cable, no process",
    promise="taken over within lease + 5 s, nothing lost, the chord's body once",
)
def test_a_workers_host_vanishes(machines: Machines, rng: random.Random, fault_scale: float) -> None:
    place, (doomed, other) = machines.place, machines.workers
    with place.fleet() as fleet:
        gone = machines.start(fleet, doomed, "-c", "5")
        below = set(gone.below())
        held = Held(place, place.folder / "gates")
        wait_until(lambda: len(held.runs(fleet)) == 4, 10.0, fleet.logs)
        fleet.conf["worker_lease"] = HEIRS_LEASE
        heir = machines.start(fleet, other, "-c", "5")
        with machines.load(rng, rate=30) as load:
            load.until(40)
            machines.network.vanish(doomed)
            began = time.monotonic()
            written = _written(place, list(load.numbers))
            wait_until(lambda: len(held.runs(fleet)) == 8, LEASE + 10.0, fleet.logs)
            recovery = time.monotonic() - began
            load.until(20)
        heirs = held.runs(fleet)[4:]
        held.let_go(fleet, heirs)
        place.wait_all(fleet, list(load.numbers), 20.0)
        held.judge(fleet, heirs)
        unwritten = (_started_by(fleet, below) & load.numbers.keys()) - written
        place.judge(fleet, load.numbers, allowed=len(unwritten), refused=load.refused, recovery=recovery)
        report(sent=4, again=4, lost=0)
        assert recovery < machines.takeover + (0.0 if fault_scale > 1 else 3.0)
        assert not place.dead(), "no task is to blame"
        assert heir.stop() == 0


@scenario(
    "hosts",
    fault="the producer's host cannot reach the broker's, and then can again",
    promise="the caller is told within its timeout; workers do not notice",
)
def test_a_producer_is_cut_off(machines: Machines, rng: random.Random) -> None:
    place = machines.place
    place.conf["broker_publish_timeout"] = 2.0  # of `through`, which senders on other hosts are made by
    with place.fleet(worker_lease=30) as fleet:
        nodes = [machines.start(fleet, host, "-c", "2") for host in machines.workers]
        with machines.load(rng, rate=30) as load:
            load.until(30)
            machines.network.cut(machines.producer)
            with machines.producer.visit():
                newcomer, error = _told(place.through())
            wait_until(lambda: load.refused > 0, 15.0)
            while_cut = place.send_many("work", [(number, 5) for number in range(40)])
            wait_until(lambda: fleet.journal.ended(while_cut) == 40, 15.0, fleet.logs)
            machines.network.heal()
            healed = time.monotonic()
            load.until(10, 15.0)
            recovery = time.monotonic() - healed
            load.until(20)
        place.wait_all(fleet, list(load.numbers), 20.0)
        place.judge(
            fleet,
            load.numbers,
            allowed=0,
            refused=load.refused,
            uncertain=load.uncertain,
            slowest=max(load.slowest, newcomer),
            recovery=recovery,
        )
        assert not error.uncertain, "it has never been connected, so nothing was sent"
        assert max(load.slowest, newcomer) < 12.0
        assert not [line for node in nodes for line in node.lines("ERROR/")], fleet.logs()
        assert [node.stop() for node in nodes] == [0, 0]


def _told(place: Place) -> tuple[float, OperationalError]:
    """Seconds until a sender without a connection is told, and what."""
    began = time.monotonic()
    with pytest.raises(OperationalError) as told:
        place.send("work", 1, 1)
    return time.monotonic() - began, told.value


@pytest.mark.extended
@scenario(
    "hosts",
    fault="the broker's host is cut off from everybody, and comes back",
    promise="no process ends, callers are told, work goes on within 5 s of its return",
)
def test_the_brokers_host_is_cut_off(machines: Machines, rng: random.Random, fault_scale: float) -> None:
    place = machines.place
    with place.fleet() as fleet:
        nodes = [machines.start(fleet, host, "-c", "2") for host in machines.workers]
        below = [_below(node) for node in nodes]
        with machines.load(rng, rate=30) as load:
            load.until(40)
            machines.network.cut(machines.broker)
            wait_until(lambda: load.refused > round(1 + fault_scale), 60.0)
            machines.network.heal()
            healed = time.time()
            load.until(20, 15.0)
        place.wait_all(fleet, list(load.numbers), 20.0)
        recovery = min(run.at for run in fleet.journal.runs if run.at > healed) - healed
        place.judge(
            fleet,
            load.numbers,
            allowed=8,
            refused=load.refused,
            uncertain=load.uncertain,
            slowest=load.slowest,
            recovery=recovery,
        )
        assert recovery < 15.0
        assert load.slowest < 12.0
        assert [_below(node) for node in nodes] == below, "a process ended"
        assert [node.stop() for node in nodes] == [0, 0]


@pytest.mark.extended
@scenario(
    "hosts",
    fault="a worker behind a far, bad line: packets are 150 ms late each way, 2 % of them are lost",
    promise="less a second, nothing else",
)
def test_a_far_and_lossy_line(machines: Machines, rng: random.Random) -> None:
    if not Path("/dev/net/tun").exists():
        pytest.skip("a line that loses packets needs /dev/net/tun")
    place = machines.place
    far = machines.far(Line(delay=0.15, loss=0.02, seed=rng.randrange(2**32)))
    with place.fleet(worker_lease=30) as fleet:
        node = machines.start(fleet, far, "-c", "2")
        below = _below(node)
        with machines.load(rng, rate=20) as load:
            load.until(60)
            numbers = {
                each: number for number, each in enumerate(place.send_many("step", [(n,) for n in range(24)]), 1)
            }
        place.wait_all(fleet, [*load.numbers, *numbers], 60.0)
        waited = fleet.journal.waited(load.sent)
        place.judge(fleet, load.numbers | numbers, allowed=0, refused=load.refused, waited=waited[-1])
        assert load.refused == 0, load.errors
        assert not node.lines("lost its lease"), node.log()
        assert _below(node) == below
        assert node.stop() == 0


@scenario(
    "hosts",
    fault="two workers' hosts whose wall clocks are an hour ahead and an hour behind",
    promise="nothing early, nothing late by a second or more, nothing expires or is renewed wrongly",
)
def test_wall_clocks_differ(machines: Machines, rng: random.Random) -> None:
    place = machines.place
    if place.kind == "amqp":
        pytest.skip("RabbitMQ has no clock that can be asked: the workers' count")
    ahead, behind = wrong_clock(3600), wrong_clock(-3600)
    if ahead is None or behind is None:
        missing("libfaketime")
    with place.fleet() as fleet:
        nodes = [
            machines.start(fleet, host, "-c", "2", environment=clock)
            for host, clock in zip(machines.workers, (ahead, behind), strict=True)
        ]
        numbers: dict[str, int] = {}
        dues: dict[str, float] = {}
        for number in range(80):
            countdown = rng.uniform(0.5, 3.0)
            dues[name := place.send("work", number, 1, countdown=countdown)] = time.time() + countdown
            numbers[name] = number
        numbers |= {place.send("work", number, 1, expires=30): number for number in range(100, 140)}
        numbers |= {place.send("later", number, 1.0): number for number in range(200, 220)}
        held = place.send_many("work", [(number, 1.6 * LEASE * 1000) for number in range(300, 302)])
        numbers |= {name: number for number, name in enumerate(held, 300)}
        place.wait_all(fleet, list(numbers), 20.0)
        late = fleet.journal.waited(dues)
        gaps = [second.at - first.at for first, second in map(fleet.journal.started, _of_kind(numbers, 200, 220))]
        place.judge(
            fleet,
            numbers,
            allowed=0,
            early=sum(each < -_LAG for each in late) + sum(gap < 1.0 - _LAG for gap in gaps),
            late_max=late[-1],
            gap_max=max(gaps),
        )
        assert late[0] > -_LAG, "early"
        assert min(gaps) > 1.0 - _LAG, "a retry was early"
        assert late[-1] < 10.0  # of an hour
        assert max(gaps) < 10.0
        assert {run.pid for run in fleet.journal.runs} & set(nodes[0].below()), "the one ahead has run nothing"
        assert {run.pid for run in fleet.journal.runs} & set(nodes[1].below()), "the one behind has run nothing"
        assert [node.stop() for node in nodes] == [0, 0]


def _of_kind(numbers: dict[str, int], first: int, last: int) -> list[str]:
    return [name for name, number in numbers.items() if first <= number < last]
