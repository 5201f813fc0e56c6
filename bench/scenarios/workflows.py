"""What workflows cost: a chord from its sending to the result of its body, a step of a chain, a member of a group."""

from bench.bars import Bar
from bench.peers import CELERY, OURS, SQLITE, Station
from bench.scenario import Sample, Scenario, Size

MEMBERS = 1_000
STEPS = 100
TIMES = 10
GROUP = 100_000


def chord(station: Station, size: Size) -> Sample:
    """Seconds: the median of some chords on an idle worker."""
    times = 3 if station.peer is CELERY or size.quick else TIMES
    with station.worker() as worker:
        station.warm_up(worker)
        return dict(station.produce("chord", members=size.count(MEMBERS), times=times))


def chain(station: Station, size: Size) -> Sample:
    """Milliseconds a step, with one process, so that each step waits for the one before."""
    times = 3 if size.quick else TIMES
    with station.worker("-c", "1") as worker:
        station.warm_up(worker)
        return dict(station.produce("chain", steps=STEPS, times=times))


def group(station: Station, size: Size) -> Sample:
    """Members a second while no worker runs, the signatures included; and what the producer takes for it."""
    return dict(station.produce("group", members=size.count(GROUP)))


SCENARIOS = (
    Scenario(
        name="chord",
        about="chord of 1,000 no-ops, sending → result of the body",
        units={"time": "s"},
        peers=(CELERY, OURS, SQLITE),
        measure=chord,
        bars=(Bar(metric="time", at_most=0.1, of="chord/celery/time"),),
    ),
    Scenario(
        name="chain",
        about="chain of 100 no-ops, worker -c 1",
        units={"step": "ms"},
        peers=(CELERY, OURS, SQLITE),
        measure=chain,
        bars=(Bar(metric="step", at_most=1.5),),
    ),
    Scenario(
        name="group",
        about="group of 100,000, enqueued",
        units={"rate": "members/s", "rss": "MB"},
        peers=(OURS, SQLITE),
        measure=group,
        bars=(Bar(metric="rate", at_least=40_000),),
    ),
)
