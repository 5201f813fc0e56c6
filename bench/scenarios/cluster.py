"""Redis Cluster of three shards. One queue lies on one shard, so it is compared with one Redis."""

from bench.bars import Bar
from bench.drain import drain, load_of
from bench.peers import CLUSTER, Station
from bench.scenario import Sample, Scenario, Size


def noop(station: Station, size: Size) -> Sample:
    return drain(station, load_of("bench.noop", size.count(100_000)))


SCENARIOS = (
    Scenario(
        name="cluster_noop",
        about="Redis Cluster: no-op, one queue",
        units={"rate": "tasks/s"},
        peers=(CLUSTER,),
        measure=noop,
        bars=(Bar(metric="rate", at_least=0.7, of="noop/ours/rate"),),
    ),
)
