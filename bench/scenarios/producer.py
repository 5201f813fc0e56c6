"""How fast calls are accepted, one by one and in bulk, while no worker runs. Celery has no bulk call."""

from bench.bars import Bar
from bench.peers import CELERY, OURS, SQLITE, Station
from bench.scenario import Sample, Scenario, Size


def delay(station: Station, size: Size) -> Sample:
    full = {CELERY: 5_000, OURS: 30_000, SQLITE: 10_000}[station.peer]
    return dict(station.produce("delay", count=size.count(full)))


def bulk(station: Station, size: Size) -> Sample:
    return dict(station.produce("bulk", count=size.count(200_000)))


SCENARIOS = (
    Scenario(
        name="delay",
        about="delay(), one by one",
        units={"rate": "calls/s"},
        peers=(CELERY, OURS, SQLITE),
        measure=delay,
        bars=(Bar(metric="rate", at_least=7, of="delay/celery/rate"),),
    ),
    Scenario(
        name="bulk",
        about="bulk calls, 1,000 at a time",
        units={"rate": "calls/s"},
        peers=(OURS, SQLITE),
        measure=bulk,
        bars=(Bar(metric="rate", at_least=40, of="delay/celery/rate"),),
    ),
)
