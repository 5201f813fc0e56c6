"""Tasks of 2 ms of CPU on two processes, against two processes that run the same function in a bare loop."""

import functools
import subprocess
import sys
from subprocess import PIPE

from bench.bars import Bar
from bench.drain import drain, load_of
from bench.peers import BARE, CELERY, OURS, ROOT, Station
from bench.scenario import Sample, Scenario, Size
from bench.spin import timed

SECONDS = 0.002
COUNT = 3_000


def cpu(station: Station, size: Size) -> Sample:
    turns, count = turns_of_two_milliseconds(), size.count(COUNT)
    if station.peer is BARE:
        return {"rate": bare_rate(turns, count // 2)}
    return drain(station, load_of("bench.spin", count, turns))


@functools.cache
def turns_of_two_milliseconds() -> int:
    """By the best of some tries, for a try may be disturbed."""
    turns = 20_000
    return int(turns * SECONDS / min(timed(turns, 1) for _ in range(50)))


def bare_rate(turns: int, count: int) -> float:
    """Calls a second of two processes side by side."""
    command = [sys.executable, "-m", "bench.spin", str(turns), str(count)]
    both = [subprocess.Popen(command, cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True) for _ in range(2)]
    for process in both:
        if process.stdout is not None:
            process.stdout.readline()
    for process in both:
        if process.stdin is not None:
            process.stdin.write("go\n")
            process.stdin.flush()
    return sum(float(process.communicate()[0]) for process in both)


SCENARIOS = (
    Scenario(
        name="cpu",
        about="2 ms CPU on 2 processes",
        units={"rate": "tasks/s"},
        peers=(BARE, CELERY, OURS),
        measure=cpu,
        bars=(Bar(metric="rate", at_least=0.92, of="cpu/bare/rate"),),
    ),
)
