"""Who tells whom among the parts of a child: what is settled, lost, or did not run."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from celeriac.executors import Executor
from celeriac.model.settle import Release
from celeriac.worker.options import NodeOptions
from celeriac.worker.rules import RuleBook
from celeriac.worker.runner import Runner
from celeriac.worker.services import Services
from tests.unit.worker.fakes import FakeBroker, delivery, done, tokens


class Idle:
    """An executor that is fed nothing."""

    limit = 1

    def recall(self) -> list[Any]:
        return []

    def active(self) -> list[Any]:
        return []

    def waiting(self) -> int:
        return 0


@pytest.fixture
def services(runner: Runner, node: NodeOptions) -> Services:
    executor: Executor = Idle()  # type: ignore[assignment]
    return Services(
        FakeBroker(),
        None,
        runner,
        node,
        sync=executor,
        coroutines=lambda: executor,
        rules=RuleBook(),
    )


def test_lost_leases(services: Services, caplog: pytest.LogCaptureFixture) -> None:
    running, early, over = delivery(id="gone"), delivery(), delivery()
    services.fetcher.held.update({each.token: each for each in (running, early)})
    services.completer.early.add(early.token)
    services._lost([running, early, over])
    assert list(services.fetcher.held) == tokens([early])
    assert [record.getMessage() for record in caplog.records] == ["The lease of task t[gone] is gone"]


def test_settled_ones_are_held_no_more(services: Services) -> None:
    one, two = delivery(), delivery()
    services.fetcher.held.update({each.token: each for each in (one, two)})
    services.completer.early.update({one.token, two.token})
    services._settled([one, delivery()])
    assert (list(services.fetcher.held), services.completer.early) == ([two.token], {two.token})


def test_what_did_not_run_goes_back_and_leases_are_renewed_at_once(services: Services) -> None:
    stale, ended = delivery(), done(delivery())
    services.take([stale, ended])
    assert list(services.completer._queue) == [services.completer._queue[0], ended]
    released = services.completer._queue[0].settlement  # type: ignore[union-attr]
    assert isinstance(released, Release)
    assert released.delivery is stale
    assert services.leases._hurry.is_set()


def test_what_ends_while_others_are_written_is_written_too(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = done(delivery()), done(delivery())
    held, completer = services.fetcher.held, services.completer
    held.update({each.settlement.delivery.token: each.settlement.delivery for each in (one, two)})
    written: list[Any] = []

    class Clock:
        async def sleep(self, seconds: float) -> None:
            services.take([two])

    async def write() -> None:
        for completion in completer._queue:
            written.append(completion)
            held.pop(completion.settlement.delivery.token)  # type: ignore[union-attr]
        completer._queue.clear()
        completer._idle.set()

    async def main() -> None:
        services.take([one])
        fetching = asyncio.get_running_loop().create_future()
        fetching.set_result(None)
        await services.shut_down(fetching, busy=lambda: False, drain=lambda: None, left=lambda: math.inf)

    services.clock = Clock()  # type: ignore[assignment]
    monkeypatch.setattr(completer, "drain", write)
    asyncio.run(main())
    assert (written, held) == ([one, two], {})
