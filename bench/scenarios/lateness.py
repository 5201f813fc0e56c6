"""How late scheduled tasks start: 1,000 a second over ten seconds, and 10,000 due at one instant.

The messages lie on the list with their `eta` before they are due; Celery gets longer to take them all in.
"""

import time

from bench.bars import Bar
from bench.messages import Load
from bench.peers import CELERY, OURS, SQLITE, Station
from bench.scenario import Sample, Scenario, Size
from bench.scenarios.latency import percentile

LEAD = {CELERY: 10.0, OURS: 4.0, SQLITE: 4.0}
COUNT = 10_000


def spread(station: Station, size: Size) -> Sample:
    late = lateness(station, size.count(COUNT), 0.001)
    return {
        "p50": percentile(late, 50) * 1000,
        "p99": percentile(late, 99) * 1000,
        "earliest": min(late) * 1000,
    }


def instant(station: Station, size: Size) -> Sample:
    late = lateness(station, size.count(COUNT), 0)
    return {"p50": percentile(late, 50), "p99": percentile(late, 99), "last": max(late), "earliest": min(late)}


def lateness(station: Station, count: int, step: float) -> list[float]:
    """Seconds between due and start of each task; negative is early."""
    with station.worker() as worker:
        station.warm_up(worker)
        due = time.time() + LEAD[station.peer]
        station.fill(Load(task="bench.noop", count=count, mark_every=1, due=due, due_step=step))
        time.sleep(max(0, due - time.time() - 0.5))
        station.wait_for_marks(count, worker)
        station.wait_until_empty(worker)
    return [moment - (due + index * step) for index, moment in station.marks().items()]


SCENARIOS = (
    Scenario(
        name="spread",
        about="scheduled, 1,000/s: late by",
        units={"p50": "ms", "p99": "ms", "earliest": "ms"},
        peers=(CELERY, OURS, SQLITE),
        measure=spread,
        bars=(Bar(metric="p99", at_most=50), Bar(metric="earliest", at_least=0)),
    ),
    Scenario(
        name="instant",
        about="10,000 due at one instant: late by",
        units={"p50": "s", "p99": "s", "last": "s", "earliest": "s"},
        peers=(CELERY, OURS, SQLITE),
        measure=instant,
        bars=(Bar(metric="last", at_most=0.7), Bar(metric="earliest", at_least=0)),
    ),
)
