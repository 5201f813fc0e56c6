"""How long one task takes on an idle worker: until it starts, and until `delay().get()` returns."""

from statistics import quantiles

from bench.bars import Bar
from bench.peers import CELERY, OURS, SQLITE, Station
from bench.scenario import Sample, Scenario, Size


def latency(station: Station, size: Size) -> Sample:
    with station.worker() as worker:
        station.warm_up(worker)
        times = station.produce("latency", count=size.count(300))
    return {
        f"{what}_{label}": value
        for what, values in times.items()
        for label, value in (("p50", percentile(values, 50)), ("p99", percentile(values, 99)))
    }


def percentile(values: list[float], rank: int) -> float:
    return quantiles(values, n=100, method="inclusive")[rank - 1]


SCENARIOS = (
    Scenario(
        name="latency",
        about="one task at idle: enqueue → start, delay().get()",
        units={"start_p50": "ms", "start_p99": "ms", "get_p50": "ms", "get_p99": "ms"},
        peers=(CELERY, OURS, SQLITE),
        measure=latency,
        bars=(Bar(metric="start_p50", at_most=0.5), Bar(metric="get_p50", at_most=1.1)),
    ),
)
