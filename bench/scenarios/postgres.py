"""PostgreSQL, queue and results; the peers are Python libraries that use nothing else. The server syncs its log."""

from bench.bars import Bar
from bench.drain import drain, load_of
from bench.peers import POSTGRES, POTATOQ, PROCRASTINATE, Station
from bench.scenario import Sample, Scenario, Size

PEERS = (PROCRASTINATE, POTATOQ, POSTGRES)
FULL = {POSTGRES: 50_000, POTATOQ: 4_000, PROCRASTINATE: 4_000}


def noop(station: Station, size: Size) -> Sample:
    return drain(station, load_of("bench.noop", size.count(FULL[station.peer])))


def delay(station: Station, size: Size) -> Sample:
    return dict(station.produce("delay", count=size.count(4_000)))


def bulk(station: Station, size: Size) -> Sample:
    return dict(station.produce("bulk", count=size.count(100_000)))


def claim(station: Station, size: Size) -> Sample:
    """Of 100 messages, with a thousand and with a million waiting: as the server counts it."""
    return dict(station.produce("claim", few=1_000, many=size.count(1_000_000), limit=100, times=200))


SCENARIOS = (
    Scenario(
        name="postgres_noop",
        about="PostgreSQL: no-op, result stored",
        units={"rate": "tasks/s"},
        peers=PEERS,
        measure=noop,
        bars=(
            Bar(metric="rate", at_least=8_000),
            Bar(metric="rate", at_least=8, of="postgres_noop/procrastinate/rate"),
            Bar(metric="rate", at_least=8, of="postgres_noop/potatoq/rate"),
        ),
    ),
    Scenario(
        name="postgres_delay",
        about="PostgreSQL: delay(), one by one",
        units={"rate": "calls/s"},
        peers=PEERS,
        measure=delay,
    ),
    Scenario(
        name="postgres_bulk",
        about="PostgreSQL: bulk calls, 1,000 at a time",
        units={"rate": "calls/s"},
        peers=(PROCRASTINATE, POSTGRES),
        measure=bulk,
    ),
    Scenario(
        name="postgres_claim",
        about="PostgreSQL: claim of 100, with 1,000 and 1,000,000 waiting",
        units={"few": "ms", "many": "ms", "ratio": "", "few_pages": "", "many_pages": "", "pages_ratio": ""},
        peers=(POSTGRES,),
        measure=claim,
        bars=(Bar(metric="ratio", at_most=1.2), Bar(metric="pages_ratio", at_most=1.2)),
    ),
)
