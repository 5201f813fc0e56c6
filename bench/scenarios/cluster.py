"""Redis Cluster of three shards. One queue lies on one shard, so it is compared with one Redis, in turn."""

from bench.bars import Bar
from bench.drain import drain, load_of
from bench.peers import CLUSTER, ONE_REDIS, Station
from bench.scenario import Sample, Scenario, Size


def noop(station: Station, size: Size) -> Sample:
    return drain(station, load_of("bench.noop", size.count(100_000)))


SCENARIOS = (
    Scenario(
        name="cluster_noop",
        about="Redis Cluster: no-op, one queue",
        units={"rate": "tasks/s"},
        peers=(ONE_REDIS, CLUSTER),
        measure=noop,
        bars=(Bar(metric="rate", variant="cluster", at_least=0.7, of="cluster_noop/ours/rate"),),
    ),
)
