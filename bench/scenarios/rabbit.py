"""RabbitMQ with results in Redis. Celery acknowledges late too, and publishes without confirms, its default."""

from bench.bars import Bar
from bench.drain import drain, load_of
from bench.peers import CELERY_RABBIT, RABBIT, Station
from bench.scenario import Sample, Scenario, Size

FULL = {CELERY_RABBIT: 4_000, RABBIT: 50_000}


def noop(station: Station, size: Size) -> Sample:
    return drain(station, load_of("bench.noop", size.count(FULL[station.peer])))


def delay(station: Station, size: Size) -> Sample:
    return dict(station.produce("delay", count=size.count(5_000)))


def bulk(station: Station, size: Size) -> Sample:
    return dict(station.produce("bulk", count=size.count(100_000)))


SCENARIOS = (
    Scenario(
        name="rabbit_noop",
        about="RabbitMQ: no-op, late ack, results in Redis",
        units={"rate": "tasks/s"},
        peers=(CELERY_RABBIT, RABBIT),
        measure=noop,
        bars=(Bar(metric="rate", at_least=10, of="rabbit_noop/celery/rate"),),
    ),
    Scenario(
        name="rabbit_delay",
        about="RabbitMQ: delay(), ours confirmed",
        units={"rate": "calls/s"},
        peers=(CELERY_RABBIT, RABBIT),
        measure=delay,
        bars=(Bar(metric="rate", at_least=0.7, of="rabbit_delay/celery/rate"),),
    ),
    Scenario(
        name="rabbit_bulk",
        about="RabbitMQ: bulk calls, confirmed",
        units={"rate": "calls/s"},
        peers=(RABBIT,),
        measure=bulk,
        bars=(Bar(metric="rate", at_least=20_000),),
    ),
)
