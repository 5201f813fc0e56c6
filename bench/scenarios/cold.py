"""From the worker's command line to the first line of a task that was waiting in the queue."""

from bench.bars import Bar
from bench.messages import Load
from bench.peers import CELERY, OURS, SQLITE, Station
from bench.scenario import Sample, Scenario, Size


def cold(station: Station, size: Size) -> Sample:
    station.fill(Load(task="bench.noop", count=1, mark_every=1))
    with station.worker() as worker:
        station.wait_for_marks(1, worker)
        station.wait_until_empty(worker)
    return {"start": station.marks()[0] - worker.spawned}


SCENARIOS = (
    Scenario(
        name="cold",
        about="cold start to the first task",
        units={"start": "s"},
        peers=(CELERY, OURS, SQLITE),
        measure=cold,
        bars=(Bar(metric="start", at_most=0.4),),
    ),
)
