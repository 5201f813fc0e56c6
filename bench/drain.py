"""How fast a worker drains a queue that was filled before it started.

The rate is the slope of the marks between the first fifth and the end: start-up and warm-up are not in it.
"""

from bench.messages import Load
from bench.peers import BenchError, Station

POINTS = 200
WARM_UP = 0.2


def load_of(task: str, count: int, argument: str | int | None = None) -> Load:
    return Load(task=task, count=count, argument=argument, mark_every=max(1, count // POINTS))


def drain(station: Station, load: Load, *arguments: str, stored: bool = True) -> dict[str, float]:
    """Tasks a second; `stored` says that each must leave a result."""
    station.fill(load)
    with station.worker(*arguments) as worker:
        station.wait_for_marks(load.marks, worker)
        station.wait_until_empty(worker)
    if stored:
        results = station.field.results()
        if results is not None and results < load.count:
            raise BenchError(f"{load.count - results} of {load.count} results are missing")
    return {"rate": slope(sorted(station.marks().values()), load.mark_every)}


def slope(times: list[float], step: int) -> float:
    first = int(len(times) * WARM_UP)
    return (len(times) - 1 - first) * step / (times[-1] - times[first])
