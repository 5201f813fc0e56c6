"""The wall clock of a worker's machine jumps by an hour: due times count by the server's clock, leases by none."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.faults.place import LEASE, Place
from tests.faults.project import CLOCK
from tests.faults.scenario import scenario
from tests.servers import wait_until


@pytest.mark.parametrize("hours", [1, -1])
@scenario(
    "time",
    fault="the clock of a worker's machine jumps by an hour, forward or back, while it works",
    promise="nothing early or late by the server's clock, no lease is lost",
)
def test_a_clock_jumps(redis_place: Place, hours: int) -> None:
    place = redis_place
    clock = Path(place.folder, "clock")
    with place.fleet(worker_lease=2 * LEASE) as fleet:
        node = fleet.start("-c", "2", environment={CLOCK: str(clock)})
        place.wait_state(place.send("work", 1, 1), "SUCCESS")
        dues = _scheduled(place, 0, 20)
        held = place.send("gated", str(place.folder))
        wait_until(lambda: fleet.journal.started(held), 10.0, fleet.logs)
        clock.write_text(str(hours * 3600), "ascii")
        jumped = time.monotonic()
        dues |= _scheduled(place, 20, 40)
        plain = place.send_many("work", [(number, 1) for number in range(40, 60)])
        retried = place.send("again_at", 60, 1.0)
        wait_until(lambda: time.monotonic() - jumped > 2 * LEASE * 1.25, 30.0)
        Path(place.folder, "all").touch()
        place.wait_all(fleet, [*dues, *plain, retried, held], 10.0)
        late = fleet.journal.waited(dues)
        second = fleet.journal.started(retried)
        numbers = {**{each: number for number, each in enumerate([*dues, *plain])}, retried: 60}
        gap = second[1].at - second[0].at
        place.judge(fleet, numbers, allowed=0, early=sum(each < 0 for each in late), late_max=late[-1], retry=gap)
        assert late[0] >= 0
        assert late[-1] < 10.0  # of an hour
        assert 1.0 <= gap < 10.0
        assert len(fleet.journal.started(held)) == 1, "its lease must outlive the jump"
        assert not node.lines("lease of task"), node.log()
        assert node.stop() == 0


def _scheduled(place: Place, first: int, last: int) -> dict[str, float]:
    """Tasks due in half a second to two; id → when."""
    dues = {}
    for number in range(first, last):
        countdown = 0.5 + 1.5 * (number - first) / (last - first)
        sent = time.time()
        dues[place.send("work", number, 1, countdown=countdown)] = sent + countdown
    return dues
