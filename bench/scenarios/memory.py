"""Whether a worker grows: the memory of each process after 200,000 no-op tasks and after 1,000,000."""

import os

from bench import process
from bench.bars import Bar
from bench.messages import Load
from bench.peers import OURS, Station, Worker
from bench.scenario import Sample, Scenario, Size

BATCH = 100_000
FIRST, LAST = 2, 10  # batches


def memory(station: Station, size: Size) -> Sample:
    batch = size.count(BATCH)
    with station.worker() as worker:
        station.warm_up(worker)
        for _ in range(FIRST):
            run_batch(station, worker, batch)
        before = {pid: process.pss_megabytes(pid) for pid in worker.pids()}
        for _ in range(FIRST, LAST):
            run_batch(station, worker, batch)
        after = {pid: process.pss_megabytes(pid) for pid in worker.pids()}
    drifts = [after[pid] - before.get(pid, 0.0) for pid in after]
    return {"drift": max(drifts), "pss": sum(after.values())}


def run_batch(station: Station, worker: Worker, count: int) -> None:
    station.fill(Load(task="bench.noop", count=count, mark_every=count // 10))
    station.wait_for_marks(10, worker)
    station.wait_until_empty(worker)
    os.truncate(station.marks_file, 0)


SCENARIOS = (
    Scenario(
        name="memory",
        about="after 1,000,000 no-op tasks: growth since 200,000, by process",
        units={"drift": "MB", "pss": "MB"},
        peers=(OURS,),
        measure=memory,
        bars=(Bar(metric="drift", at_most=5),),
        once=True,
    ),
)
