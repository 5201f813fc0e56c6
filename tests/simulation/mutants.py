"""Deliberate bugs, each a patch of the worker or of the memory broker: the simulation has to find every one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

from celeriac.brokers.memory.broker_port import MemoryBroker
from celeriac.brokers.memory.chords import Chords
from celeriac.brokers.memory.queues import Queues
from celeriac.model import plan as planning
from celeriac.model.settle import Accept, Completion
from celeriac.worker.completer import Completer
from celeriac.worker.early import EarlyAcks
from celeriac.worker.fetcher import Fetcher
from celeriac.worker.leases import Leases
from celeriac.worker.refusals import Refusals
from celeriac.worker.runner import Runner

__all__ = ["FAULTS", "MUTANTS", "Mutant"]

Mutant = Callable[[], Any]


def _patched(owner: Any, name: str, value: Any) -> Mutant:
    return lambda: mock.patch.object(owner, name, value)


def _wrapped(owner: Any, name: str, wrap: Callable[..., Any]) -> Mutant:
    real = getattr(owner, name)
    return lambda: mock.patch.object(owner, name, lambda *args, **kwargs: wrap(real, *args, **kwargs))


# -- the worker ----------------------------------------------------------------------------------------------------


async def _settle_first(self: Completer, left: Any) -> None:
    """Step by step in the wrong order."""
    todo, left.steps = left.steps, []
    held = [c.ending for c in todo if c.ending.delivery.token not in self.early]
    await self._broker.settle(held)
    self._settled([c.ending.delivery for c in todo])
    messages = [message for c in todo for message in c.publish]
    if messages:
        await self._broker.publish(messages)
    records = [record for c in todo for record in (c.result, *c.others) if record is not None]
    if records and self._store is not None:
        await self._store.put(records)


def _write_what_was_fenced(self: Completer, fenced: Any) -> None:
    """As if they had been acknowledged before they ran."""

    def again() -> None:
        self.early.update(c.ending.delivery.token for c in fenced)
        self.put(fenced)

    asyncio.get_running_loop().call_soon(again)


async def _never_renew(self: Leases) -> None:
    self._certain(self._clock.monotonic() + self._lease)


async def _not_early(self: EarlyAcks, deliveries: Any) -> Any:
    return deliveries


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


@contextmanager
def _due_ignored() -> Iterator[None]:
    real = Queues.promote
    with (
        mock.patch.object(Queues, "promote", lambda self, queue, now: real(self, queue, now + 1e9)),
        mock.patch.object(Refusals, "_is_early", return_value=False),
    ):
        yield


@contextmanager
def _no_token_check() -> Iterator[None]:
    real = MemoryBroker._end
    with (
        mock.patch.object(MemoryBroker, "_is_fenced", return_value=False),
        mock.patch.object(MemoryBroker, "_end", lambda *args: real(*args) or True),
    ):
        yield


def _forgetting_retries(context: Any, outcome: Any) -> Any:
    return planning.Plan(settlement=planning.Accept(context.delivery), event="retried")


@contextmanager
def _retries_are_lost() -> Iterator[None]:
    with mock.patch.dict(planning._DECIDE, {planning.o.RetryAsked: _forgetting_retries}):
        yield


@contextmanager
def _runs_without_a_lease() -> Iterator[None]:
    always = property(lambda self: math.inf, _nothing)
    with mock.patch.object(Runner, "valid_until", always, create=True):
        yield


def _joins_of_successes_only(real: Any, self: Any, state: str, exc: BaseException) -> Any:
    return real(self, state, exc)[0], ()


def _no_chain(real: Any, delivery: Any, value: Any, embed: Any) -> Any:
    return real(delivery, value, embed)[:-1]


def _loses_what_was_recalled(self: Fetcher, deliveries: Any) -> None:
    for delivery in deliveries:
        self.held.pop(delivery.token, None)
        self._conclude([Completion(settlement=Accept(delivery))])


async def _keeps_lost(self: Leases) -> None:
    """Renews, and does not listen to which were lost."""
    before = self._clock.monotonic()
    await self._broker.extend(list(self._held.values()))
    self._certain(before + 1e9)


#: By name: what is broken.
MUTANTS: Mapping[str, Mutant] = {
    "a step-by-step end settles before it publishes": _patched(Completer, "_step_by_step", _settle_first),
    "what was fenced is written all the same": _patched(Completer, "_report", _write_what_was_fenced),
    "leases are never renewed": _patched(Leases, "renew", _never_renew),
    "at most once is acknowledged after the run": _patched(EarlyAcks, "settle", _not_early),
    "what is given back is accepted": _patched(Fetcher, "give_back", _loses_what_was_recalled),
    "tasks start without a certain lease": _runs_without_a_lease,
    "lost leases are not listened to": _patched(Leases, "renew", _keeps_lost),
    "retries are never sent": _retries_are_lost,
    "the next step of a chain is never sent": _wrapped(planning, "_follow_ups", _no_chain),
    "failures do not join their chords": _wrapped(planning._Context, "ends_workflow", _joins_of_successes_only),
    "due times are ignored": _due_ignored,
    "the broker checks no tokens": _no_token_check,
    "expired leases are never restored": _patched(Queues, "restore", _nothing),
    "closed chords stay open": _patched(Chords, "close", lambda self, closing, tick: True),
}

#: The faults that bring it to light, where chance would take long.
FAULTS: Mapping[str, frozenset[str]] = {
    "what was fenced is written all the same": frozenset({"step pauses", "pauses"}),
    "at most once is acknowledged after the run": frozenset({"step kills", "child kills"}),
    "tasks start without a certain lease": frozenset({"step pauses", "pauses"}),
    "lost leases are not listened to": frozenset({"step pauses", "pauses"}),
}
