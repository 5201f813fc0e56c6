"""Workflows of a size that nobody should need, on the real servers."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celery, chain, chord, group
from celeriac.contrib.testing.worker import start_worker
from celeriac.exceptions import EncodeError
from celeriac.model.message import Message


@pytest.fixture(
    params=[
        "redis",
        pytest.param("sqlite", marks=pytest.mark.extended),
        pytest.param("postgres", marks=pytest.mark.extended),
    ]
)
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Celery]:
    urls = {"sqlite": f"sqlite:///{tmp_path / 'large.db'}"}
    url = urls.get(request.param) or request.getfixturevalue(f"{request.param}_url")
    app = Celery("large", broker=url, backend=url, set_as_current=False)
    app.task(lambda x=0: x + 1, name="large.step", shared=False)
    app.task(lambda values: [len(values), sum(values)], name="large.count", shared=False)
    yield app
    app.close()


class Sizes:
    """A producer that keeps the sizes of messages."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def collect(self, message: Message) -> None:
        self.sizes.append(len(message.body))

    def open_chord(self, chord: Any) -> None:
        """Nothing is kept of it."""


@pytest.mark.slow
def test_a_chord_of_ten_thousand_and_a_chain_of_a_thousand(app: Celery) -> None:
    step, count = app.tasks["large.step"], app.tasks["large.count"]
    with start_worker(app, perform_ping_check=False):
        assert chord(step.s(n) for n in range(10_000))(count.s()).get(timeout=300) == [10_000, 50_005_000]
        last = chain(step.s() for _ in range(1_000))()
        assert last.get(timeout=300) == 1_000
        parents = 0
        while last.parent is not None:
            last, parents = last.parent, parents + 1
        assert (parents, last.get(timeout=1)) == (999, 1)


@pytest.mark.slow
def test_a_group_of_a_hundred_thousand_in_bounded_memory(app: Celery) -> None:
    step = app.tasks["large.step"]
    tasks = group(step.s(n) for n in range(100_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = tasks.apply_async()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert len(result) == 100_000
    assert app.sender.publisher.depth(["celery"], timeout=60)["celery"].ready == 100_000
    assert grown < 150, "MiB: results and a thousand messages at a time, not all of them"


def test_messages_grow_with_the_length_and_not_with_its_square(app: Celery) -> None:
    step = app.tasks["large.step"]
    shapes = {
        "chain": lambda n: chain(step.s() for _ in range(2 * n)),
        "groups": lambda n: chain([group(step.s(), step.s()), step.s()] * n),
        "chords": lambda n: chain([step.s(), chord([step.s(), step.s()], step.s())] * n),
    }
    for name, shape in shapes.items():
        largest = []
        for length in (10, 20, 40):
            sizes = Sizes()
            shape(length).apply_async(producer=sizes)
            largest.append(max(sizes.sizes))
        assert largest[2] - largest[1] < 2.2 * (largest[1] - largest[0]), (name, largest)


def test_what_is_nested_too_deep_is_refused_by_the_sender(app: Celery) -> None:
    step = app.tasks["large.step"]
    deep: Any = step.s()
    for _ in range(60):
        deep = group(step.s(), chain(step.s(), deep, app=app))
    with pytest.raises(EncodeError, match=r"large\.step.*deeper"):
        (step.s() | deep).apply_async(producer=Sizes())
