"""What a worker takes that has run some tasks and has nothing to do: CPU, broker commands, memory."""

import time

from bench import process
from bench.bars import Bar
from bench.peers import CELERY, OURS, SQLITE, Station
from bench.scenario import Sample, Scenario, Size

SETTLE = 3.0


def idle(station: Station, size: Size) -> Sample:
    with station.worker() as worker:
        station.warm_up(worker, count=1_000)
        time.sleep(SETTLE)
        pids = worker.pids()
        commands, cpu, started = commands_so_far(station), process.cpu_seconds(pids), time.monotonic()
        time.sleep(size.seconds(15))
        elapsed = time.monotonic() - started
        cpu, commands = process.cpu_seconds(pids) - cpu, commands_so_far(station) - commands - 1
        worker.check()
        found = {
            "cpu": 100 * cpu / elapsed,
            "pss": sum(map(process.pss_megabytes, pids)),
            "processes": float(len(pids)),
        }
    return found | ({"commands": commands / elapsed} if station.peer.broker == "redis" else {})


def commands_so_far(station: Station) -> int:
    """Those inside scripts included; each call adds itself."""
    lines = station.redis.call("INFO", "stats").decode().splitlines()
    return int(next(line.split(":")[1] for line in lines if line.startswith("total_commands_processed:")))


SCENARIOS = (
    Scenario(
        name="idle",
        about="idle worker -c 2",
        units={"cpu": "%", "commands": "per s", "pss": "MB", "processes": ""},
        peers=(CELERY, OURS, SQLITE),
        measure=idle,
        bars=(
            Bar(metric="cpu", at_most=0.3),
            Bar(metric="commands", at_most=5),
            Bar(metric="pss", at_most=60),
        ),
    ),
)
