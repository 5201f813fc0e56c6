"""The cost of the queue itself: tasks that do nothing, with and without a result, with 1 KiB, with log lines."""

from bench.bars import Bar
from bench.drain import drain, load_of
from bench.peers import CELERY, CELERY_LATE, OURS, SQLITE, Station
from bench.scenario import Sample, Scenario, Size

FULL = {CELERY: 4_000, CELERY_LATE: 4_000, OURS: 100_000, SQLITE: 50_000}
UNITS = {"rate": "tasks/s"}


def noop(station: Station, size: Size) -> Sample:
    return drain(station, load_of("bench.noop", size.count(FULL[station.peer])))


def noop_ignored(station: Station, size: Size) -> Sample:
    return drain(station, load_of("bench.noop_ignored", size.count(FULL[station.peer])), stored=False)


def noop_info(station: Station, size: Size) -> Sample:
    return drain(station, load_of("bench.noop", size.count(FULL[station.peer] // 2)), "-l", "info")


def argument(station: Station, size: Size) -> Sample:
    return drain(station, load_of("bench.noop", size.count(FULL[station.peer]), "x" * 1024))


SCENARIOS = (
    Scenario(
        name="noop",
        about="no-op, result stored",
        units=UNITS,
        peers=(CELERY, OURS, SQLITE),
        measure=noop,
        bars=(
            Bar(metric="rate", at_least=35, of="noop/celery/rate"),
            Bar(metric="rate", variant="sqlite", at_least=10, of="noop/celery/rate"),
        ),
    ),
    Scenario(
        name="noop_late",
        about="no-op, Celery acknowledging late as well",
        units=UNITS,
        peers=(CELERY_LATE, OURS),
        measure=noop,
        bars=(Bar(metric="rate", at_least=35, of="noop_late/celery/rate"),),
    ),
    Scenario(
        name="noop_ignored",
        about="no-op, ignore_result",
        units=UNITS,
        peers=(CELERY, OURS, SQLITE),
        measure=noop_ignored,
    ),
    Scenario(
        name="noop_info",
        about="no-op at --loglevel=info",
        units=UNITS,
        peers=(CELERY, OURS),
        measure=noop_info,
    ),
    Scenario(
        name="argument",
        about="no-op, 1 KiB argument",
        units=UNITS,
        peers=(CELERY, OURS),
        measure=argument,
        bars=(Bar(metric="rate", at_least=0.75, of="noop/ours/rate"),),
    ),
)
