"""`delay()` from 16 threads of one process, as a web server calls it."""

from bench.bars import Bar
from bench.peers import CELERY, CELERY_RABBIT, OURS, POSTGRES, POTATOQ, PROCRASTINATE, RABBIT, SQLITE, Peer, Station
from bench.scenario import Sample, Scenario, Size

THREADS = 16


def threads(station: Station, size: Size) -> Sample:
    full = 10_000 if station.peer.name in ("ours", "sqlite") else 4_000
    return dict(station.produce("delay", count=size.count(full), threads=THREADS))


def _of(name: str, about: str, peers: tuple[Peer, ...], *bars: Bar) -> Scenario:
    return Scenario(name=name, about=about, units={"rate": "calls/s"}, peers=peers, measure=threads, bars=bars)


SCENARIOS = (
    _of("threads", "delay() from 16 threads", (CELERY, OURS, SQLITE)),
    _of(
        "rabbit_threads",
        "RabbitMQ: delay() from 16 threads, ours confirmed",
        (CELERY_RABBIT, RABBIT),
        Bar(metric="rate", at_least=5, of="rabbit_threads/celery/rate"),
    ),
    _of("postgres_threads", "PostgreSQL: delay() from 16 threads", (PROCRASTINATE, POTATOQ, POSTGRES)),
)
