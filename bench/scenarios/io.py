"""Tasks that wait 10 ms, 100 of them at once: 10,000/s would be ideal."""

from bench.bars import Bar
from bench.drain import drain, load_of
from bench.peers import CELERY, OURS, Station
from bench.scenario import Sample, Scenario, Size

FULL = {CELERY: 4_000, OURS: 30_000}


def io_async(station: Station, size: Size) -> Sample:
    """One child, whose `worker_async_concurrency` is 100."""
    return drain(station, load_of("bench.async_wait", size.count(FULL[station.peer])), "-c", "1")


def io_threads(station: Station, size: Size) -> Sample:
    return drain(station, load_of("bench.wait", size.count(FULL[station.peer])), "-P", "threads", "-c", "100")


SCENARIOS = (
    Scenario(
        name="io_async",
        about="10 ms I/O, async, 100 in flight",
        units={"rate": "tasks/s"},
        peers=(OURS,),
        measure=io_async,
        bars=(Bar(metric="rate", at_least=9_400),),
    ),
    Scenario(
        name="io_threads",
        about="10 ms I/O, 100 threads",
        units={"rate": "tasks/s"},
        peers=(CELERY, OURS),
        measure=io_threads,
        bars=(Bar(metric="rate", at_least=8_500),),
    ),
)
