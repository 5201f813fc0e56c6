"""The conformance suite catches broken brokers: each mutant of the memory adapter breaks a sentence of the ports."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from celeriac.brokers.memory import broker_port
from celeriac.brokers.memory import queues as queues_module
from celeriac.brokers.memory.blocking_ports import MemoryPublisher
from celeriac.brokers.memory.broker_port import MemoryBroker
from celeriac.brokers.memory.dead import Dead
from celeriac.brokers.memory.ledger_table import LedgerTable
from celeriac.brokers.memory.queues import Queues
from celeriac.brokers.memory.results import Results
from celeriac.model.dead import DeadFilter, DeadPage
from celeriac.model.message import Malformed, Marks
from celeriac.model.settle import Accept, Release
from celeriac.testing.conformance import (
    dead,
    finishing,
    histories,
    leases,
    ledger,
    lifecycle,
    order,
    payloads,
    producers,
    results,
    schedule,
    settling,
    waiting,
)
from celeriac.testing.conformance.each import EachOfMany
from tests.conformance.test_memory import MemoryHarness

Patch = pytest.MonkeyPatch
Mutate = Callable[[Patch], None]

#: These wait in real time or move megabytes, and no mutant needs them.
SLOW = ("huge", "reader", "wake", "5 MB", "thousand", "large", "threads", "forks")


def settles_late(patch: Patch) -> None:
    settle = MemoryBroker.settle

    async def mutant(self: MemoryBroker, settlements: Any) -> Any:
        await settle(self, settlements)
        return []

    patch.setattr(MemoryBroker, "settle", mutant)


def loses_on_release(patch: Patch) -> None:
    patch.setattr(Queues, "to_front", lambda self, leases: None)


def reverses_releases(patch: Patch) -> None:
    to_front = Queues.to_front
    patch.setattr(Queues, "to_front", lambda self, leases: to_front(self, leases[::-1]))


def delivers_early(patch: Patch) -> None:
    promote = Queues.promote
    patch.setattr(Queues, "promote", lambda self, queue, now: promote(self, queue, now + 0.02))


def forgets_what_is_due(patch: Patch) -> None:
    patch.setattr(Queues, "next_due", lambda self, names: None)


def leases_twice(patch: Patch) -> None:
    take = Queues.take

    def mutant(self: Queues, names: Any, limit: int, **fields: Any) -> Any:
        taken = take(self, names, limit, **fields)
        if len(taken) > 2:
            lease = self.leases[taken[-1][0]]
            self.declare(lease.queue).ready[lease.item.step].appendleft(lease.item)
        return taken

    patch.setattr(Queues, "take", mutant)


def takes_more_than_asked(patch: Patch) -> None:
    take = Queues.take
    patch.setattr(Queues, "take", lambda self, names, limit, **fields: take(self, names, limit + 1, **fields))


def hides_success(patch: Patch) -> None:
    patch.setattr(Results, "_has_succeeded", lambda self, task_id, tick: False)


def guards_every_terminal_record(patch: Patch) -> None:
    patch.setattr(Results, "_has_succeeded", lambda self, task_id, tick: task_id in self._records)


def never_expires(patch: Patch) -> None:
    patch.setattr(Results, "_find", lambda self, task_id, tick: self._records.get(task_id))


def stores_though_fenced(patch: Patch) -> None:
    finish = MemoryBroker.finish

    async def mutant(self: MemoryBroker, completions: Any) -> Any:
        for each in completions:
            if each.result is not None:
                self._server.results.put(each.result, self._server.clock.monotonic())
        return await finish(self, completions)

    patch.setattr(MemoryBroker, "finish", mutant)


def publishes_though_fenced(patch: Patch) -> None:
    finish = MemoryBroker.finish

    async def mutant(self: MemoryBroker, completions: Any) -> Any:
        verdicts = await finish(self, completions)
        for each, verdict in zip(completions, verdicts, strict=True):
            if verdict == "fenced":
                await self.publish(each.publish)
        return verdicts

    patch.setattr(MemoryBroker, "finish", mutant)


def wakes_nobody(patch: Patch) -> None:
    patch.setattr(queues_module, "_wake", lambda queue: None)


def wakes_for_the_first_queue_only(patch: Patch) -> None:
    watch = Queues.watch
    patch.setattr(Queues, "watch", lambda self, names, waiter: watch(self, names[:1], waiter))


def restores_nothing(patch: Patch) -> None:
    patch.setattr(Queues, "restore", lambda self, **fields: None)


def restores_too_soon(patch: Patch) -> None:
    restore = Queues.restore
    patch.setattr(Queues, "restore", lambda self, *, now, tick: restore(self, now=now, tick=tick + 29.0))


def restores_unmarked(patch: Patch) -> None:
    patch.setattr(queues_module, "_advanced", lambda raw, *, alone: raw)


def blames_everybody(patch: Patch) -> None:
    advanced = queues_module._advanced
    patch.setattr(queues_module, "_advanced", lambda raw, *, alone: advanced(raw, alone=True))


def extends_nothing(patch: Patch) -> None:
    async def mutant(self: MemoryBroker, deliveries: Any) -> Any:
        return [each for each in deliveries if each.token not in self._server.queues.leases]

    patch.setattr(MemoryBroker, "extend", mutant)


def loses_silently(patch: Patch) -> None:
    extend = MemoryBroker.extend

    async def mutant(self: MemoryBroker, deliveries: Any) -> Any:
        await extend(self, deliveries)
        return []

    patch.setattr(MemoryBroker, "extend", mutant)


def takes_the_newest(patch: Patch) -> None:
    patch.setattr(Queues, "_back", lambda self, name, item: self._front(name, [item]))


def ignores_priorities(patch: Patch) -> None:
    patch.setattr(broker_port, "step_of", lambda priority: 0)


def turns_priorities_round(patch: Patch) -> None:
    step_of = queues_module.step_of
    patch.setattr(broker_port, "step_of", lambda priority: 3 - step_of(priority))


def forgets_marks(patch: Patch) -> None:
    remark = broker_port.remark
    patch.setattr(broker_port, "remark", lambda delivery, marks: remark(delivery, Marks()))


def ignores_back(patch: Patch) -> None:
    release = Queues.release
    patch.setattr(Queues, "release", lambda self, lease, *, back, **fields: release(self, lease, back=False, **fields))


def accepts_instead_of_burying(patch: Patch) -> None:
    patch.setattr(Dead, "bury", lambda self, record, now: None)


def drops_no_dead_letters(patch: Patch) -> None:
    patch.setattr(Dead, "trim", lambda self, **fields: 0)


def ignores_sizes(patch: Patch) -> None:
    trim = Dead.trim
    patch.setattr(Dead, "trim", lambda self, **fields: trim(self, **{**fields, "max_bytes": 10**9}))


def skips_letters(patch: Patch) -> None:
    page = Dead.page

    def mutant(self: Dead, wanted: DeadFilter, limit: int, after: str) -> DeadPage:
        return page(self, wanted, limit, str(int(after) - 1) if after else after)

    patch.setattr(Dead, "page", mutant)


def replays_what_is_gone(patch: Patch) -> None:
    patch.setattr(Dead, "remove", lambda self, key: self._letters.pop(int(key), None) or True)


def replays_and_keeps(patch: Patch) -> None:
    patch.setattr(Dead, "remove", lambda self, key: True)


def ignores_the_queue(patch: Patch) -> None:
    page = Dead.page
    patch.setattr(Dead, "page", lambda self, wanted, limit, after: page(self, replace(wanted, queue=""), limit, after))


def purges_ready_ones_only(patch: Patch) -> None:
    def mutant(self: Queues, name: str) -> int:
        queue = self.declare(name)
        dropped = sum(map(len, queue.ready))
        for ready in queue.ready:
            ready.clear()
        return dropped

    patch.setattr(Queues, "purge", mutant)


def mixes_owners(patch: Patch) -> None:
    orphans = MemoryBroker.orphans

    async def mutant(self: MemoryBroker, owner: str) -> Any:
        owners = {lease.owner for lease in self._server.queues.leases.values() if lease.owner.startswith(owner)}
        return [each for name in sorted(owners) for each in await orphans(self, name)]

    patch.setattr(MemoryBroker, "orphans", mutant)


def fails_on_malformed(patch: Patch) -> None:
    deliver = MemoryBroker._delivery

    def mutant(self: MemoryBroker, token: str, queue: str, raw: bytes) -> Any:
        delivery = deliver(self, token, queue, raw)
        if isinstance(delivery.message, Malformed):
            raise TypeError(delivery.message.reason)
        return delivery

    patch.setattr(MemoryBroker, "_delivery", mutant)


def publishes_half(patch: Patch) -> None:
    def mutant(self: MemoryPublisher, messages: Any, *, timeout: float) -> None:
        for each in messages:
            broker_port.publish(self._server, [each])

    patch.setattr(MemoryPublisher, "publish", mutant)


def works_when_closed(patch: Patch) -> None:
    async def mutant(self: MemoryBroker) -> None:
        pass

    patch.setattr(MemoryBroker, "close", mutant)


def settles_in_the_background(patch: Patch) -> None:
    settle = MemoryBroker.settle

    async def mutant(self: MemoryBroker, settlements: Any) -> Any:
        late = [each for each in settlements if isinstance(each, Release) and each.due is not None]
        return [*await settle(self, [*(Accept(each.delivery) for each in late)]), *await settle(self, settlements)]

    patch.setattr(MemoryBroker, "settle", mutant)


def changes_half(patch: Patch) -> None:
    def mutant(self: LedgerTable, changes: Any, tick: float) -> Any:
        made = [self.change(change, tick) for change in changes]
        return None if all(made) else [self.read(change.key, tick) for change in changes]

    patch.setattr(LedgerTable, "change_all", mutant)


def publishes_without_asking(patch: Patch) -> None:
    def mutant(self: MemoryPublisher, message: Any, changes: Any, *, timeout: float) -> Any:
        broker_port.publish(self._server, [message])
        return self._server.ledger.change_all(changes, self._server.clock.monotonic())

    patch.setattr(MemoryPublisher, "publish_if", mutant)


def publishes_each_without_asking(patch: Patch) -> None:
    def mutant(self: MemoryPublisher, sendings: Any, *, timeout: float) -> Any:
        broker_port.publish(self._server, [message for message, _ in sendings])
        tick = self._server.clock.monotonic()
        return [self._server.ledger.change_all(changes, tick) for _, changes in sendings]

    patch.setattr(MemoryPublisher, "publish_each_if", mutant)


def publishes_all_or_none(patch: Patch) -> None:
    real = MemoryPublisher.publish_each_if

    def mutant(self: MemoryPublisher, sendings: Any, *, timeout: float) -> Any:
        changes = [change for _, own in sendings for change in own]
        tick = self._server.clock.monotonic()
        there = [self._server.ledger.read(change.key, tick) for change in changes]
        if all(change.expected == value for change, value in zip(changes, there, strict=True)):
            return real(self, sendings, timeout=timeout)
        return [[value] for value in there]

    patch.setattr(MemoryPublisher, "publish_each_if", mutant)


def expects_nothing(patch: Patch) -> None:
    patch.setattr(LedgerTable, "allows", lambda self, change, tick: True)


def keeps_values_for_ever(patch: Patch) -> None:
    patch.setattr(LedgerTable, "read", lambda self, key, tick: self._values.get(key, (None,))[0])


def keeps_the_first_life_time(patch: Patch) -> None:
    make = LedgerTable.make

    def mutant(self: LedgerTable, change: Any, tick: float) -> None:
        before = self._values.get(change.key)
        make(self, change, tick)
        if before is not None and change.value is not None:
            self._values[change.key] = change.value, before[1]

    patch.setattr(LedgerTable, "make", mutant)


def frees_locks_of_others(patch: Patch) -> None:
    patch.setattr(LedgerTable, "free", lambda self, locks, tick: [self._values.pop(each.key, None) for each in locks])


def frees_those_that_wait_only(patch: Patch) -> None:
    patch.setattr(LedgerTable, "free", lambda self, locks, tick: [self.change(each.ends()[0], tick) for each in locks])


def frees_though_fenced(patch: Patch) -> None:
    finish = MemoryBroker.finish

    async def mutant(self: MemoryBroker, completions: Any) -> Any:
        self._server.ledger.free([lock for each in completions for lock in each.frees], 0.0)
        return await finish(self, completions)

    patch.setattr(MemoryBroker, "finish", mutant)


def purges_and_keeps_locks(patch: Patch) -> None:
    patch.setattr(broker_port, "carries_lock", lambda raw: False)


MUTANTS: list[tuple[Mutate, type]] = [
    (ignores_sizes, dead.Dead),
    (skips_letters, dead.Dead),
    (replays_what_is_gone, dead.Dead),
    (replays_and_keeps, dead.Dead),
    (ignores_the_queue, dead.Dead),
    (settles_late, leases.Leases),
    (settles_late, settling.Settling),
    (settles_late, histories.Histories),
    (loses_on_release, settling.Settling),
    (loses_on_release, histories.Histories),
    (reverses_releases, settling.Settling),
    (delivers_early, schedule.Schedule),
    (forgets_what_is_due, schedule.Schedule),
    (leases_twice, leases.Leases),
    (leases_twice, histories.Histories),
    (takes_more_than_asked, order.Order),
    (hides_success, results.Results),
    (hides_success, finishing.Finishing),
    (guards_every_terminal_record, results.Results),
    (never_expires, results.Results),
    (stores_though_fenced, finishing.Finishing),
    (publishes_though_fenced, finishing.Finishing),
    (wakes_nobody, waiting.Waiting),
    (wakes_for_the_first_queue_only, waiting.Waiting),
    (restores_nothing, leases.Leases),
    (restores_too_soon, leases.Leases),
    (restores_unmarked, leases.Leases),
    (blames_everybody, leases.Leases),
    (extends_nothing, leases.Leases),
    (loses_silently, leases.Leases),
    (takes_the_newest, order.Order),
    (ignores_priorities, order.Order),
    (turns_priorities_round, order.Order),
    (forgets_marks, settling.Settling),
    (ignores_back, settling.Settling),
    (accepts_instead_of_burying, settling.Settling),
    (drops_no_dead_letters, settling.Settling),
    (purges_ready_ones_only, order.Order),
    (mixes_owners, leases.Leases),
    (fails_on_malformed, payloads.Payloads),
    (publishes_half, order.Order),
    (works_when_closed, lifecycle.LifeCycle),
    (settles_in_the_background, schedule.Schedule),
    (changes_half, ledger.Ledgers),
    (publishes_without_asking, ledger.Ledgers),
    (publishes_each_without_asking, EachOfMany),
    (publishes_all_or_none, EachOfMany),
    (expects_nothing, ledger.Ledgers),
    (keeps_values_for_ever, ledger.Ledgers),
    (keeps_the_first_life_time, ledger.Ledgers),
    (frees_locks_of_others, ledger.Ledgers),
    (frees_those_that_wait_only, ledger.Ledgers),
    (frees_though_fenced, ledger.Ledgers),
    (purges_and_keeps_locks, ledger.Ledgers),
]


def cases(theme: type) -> Iterator[tuple[str, Callable[[Any], None]]]:
    """The tests of a theme, parametrized ones as often as pytest would run them."""
    for name, test in vars(theme).items():
        if not name.startswith("test_") or any(word in name for word in SLOW):
            continue
        axes = [
            [(mark.args[0], value) for value in mark.args[1]]
            for mark in getattr(test, "pytestmark", ())
            if mark.name == "parametrize"
        ]
        for chosen in itertools.product(*axes):
            arguments = dict(chosen)
            yield name, lambda harness, test=test, arguments=arguments: test(theme(), harness, **arguments)


def first_failure(theme: type) -> tuple[str, BaseException] | None:
    for name, test in cases(theme):
        harness = MemoryHarness()
        try:
            test(harness)
        except pytest.skip.Exception:
            pass
        except BaseException as error:  # noqa: BLE001 - whatever it raises, it has noticed
            return name, error
        finally:
            harness.close()
    return None


@pytest.mark.parametrize(
    ("mutate", "theme"), MUTANTS, ids=[f"{mutate.__name__}-{theme.__name__}" for mutate, theme in MUTANTS]
)
def test_the_suite_catches_a_broker_that(monkeypatch: Patch, mutate: Mutate, theme: type) -> None:
    monkeypatch.setattr(MemoryHarness, "shrinks", False)
    monkeypatch.setattr(MemoryHarness, "late", 0.1)
    monkeypatch.setattr(MemoryHarness, "examples", 1000)  # it stops at the first one that fails
    mutate(monkeypatch)
    failure = first_failure(theme)
    assert failure is not None, f"{theme.__name__} does not notice a broker that {mutate.__name__}"


@pytest.mark.parametrize("theme", [producers.Producers, order.Order], ids=lambda theme: theme.__name__)
def test_the_reference_is_no_mutant(theme: type) -> None:
    assert first_failure(theme) is None
