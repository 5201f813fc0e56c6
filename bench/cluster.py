"""`python -m bench.cluster`: no-op tasks of one queue on a Redis Cluster of three nodes, against one Redis.

A queue lies on one node, so this is the rate of a shard; results are spread over all three. Rounds are interleaved, the
medians count. CPU is that of the worker's processes: the rate of a machine that has other things to do says little.
"""

import argparse
import statistics
import sys
from collections import defaultdict
from dataclasses import replace

from bench.drain import load_of, slope
from bench.messages import Load
from bench.peers import OURS, Station
from bench.process import cpu_seconds
from bench.servers import Server, private_redis
from tests.servers import RedisCluster

CLUSTER = replace(OURS, name="cluster", broker="cluster")


class ClusterStation(Station):
    """Our worker on a cluster."""

    def __init__(self, server: Server, cluster: RedisCluster) -> None:
        super().__init__(CLUSTER, server)
        self._url = cluster.url()
        cluster.flush()


def drained(station: Station, load: Load) -> tuple[float, float]:
    """Tasks a second, and microseconds of the worker's CPU a task."""
    station.fill(load)
    with station.worker() as worker:
        station.wait_for_marks(1, worker)
        began = cpu_seconds(worker.pids())
        station.wait_for_marks(load.marks, worker)
        cpu = cpu_seconds(worker.pids()) - began
        marks = station.marks()
    return slope(sorted(marks.values()), load.mark_every), 1e6 * cpu / load.count


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description="A shard of a cluster, and one Redis.")
    parser.add_argument("--count", type=int, default=50_000, help="tasks of a round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for task in ("bench.noop", "bench.noop_ignored"):
        rates, cpus = defaultdict(list), defaultdict(list)
        with private_redis() as server, RedisCluster() as cluster:
            for turn in range(options.rounds):
                for station in (Station(OURS, server), ClusterStation(server, cluster)):
                    name = station.peer.broker
                    with station:
                        rate, cpu = drained(station, load_of(task, options.count))
                    rates[name].append(rate)
                    cpus[name].append(cpu)
                    print(f"{task} {turn + 1}/{options.rounds} {name}: {rate:,.0f}/s {cpu:.1f} us", file=sys.stderr)
        one, many = (statistics.median(rates[name]) for name in ("redis", "cluster"))
        own, other = (statistics.median(cpus[name]) for name in ("redis", "cluster"))
        print(f"{task}: {one:,.0f} tasks/s on one server, {many:,.0f} on a shard: {many / one:.0%}")
        print(f"{task}: {own:.1f} us CPU of the worker a task, {other:.1f} on a cluster: {own / other:.0%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
