"""Deliberate bugs in the features: as ``tests.simulation.mutants``, with the theme and the faults that show each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

from celeriac.app.once import Steps
from celeriac.brokers.memory import blocking_ports
from celeriac.brokers.memory.blocking_ports import MemoryPublisher
from celeriac.brokers.memory.broker_port import publish
from celeriac.brokers.memory.dead_port import MemoryDeadLetters
from celeriac.brokers.memory.ledger_table import LedgerTable
from celeriac.brokers.memory.limits import Limits as ServerLimits
from celeriac.exceptions import OperationalError
from celeriac.model import plan as planning
from celeriac.model.limits import Pace
from celeriac.worker import fetcher, sorting
from celeriac.worker.completer import Completer
from celeriac.worker.enforcer import Enforcer
from celeriac.worker.fetcher import Fetcher
from celeriac.worker.limits import Limits, Permitted
from celeriac.worker.rules import RuleBook
from tests.simulation.mutants import Mutant

__all__ = ["FAULTS", "MUTANTS", "THEME"]


def _patched(owner: Any, name: str, value: Any, **more: Any) -> Mutant:
    return lambda: mock.patch.object(owner, name, value, **more)


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


async def _no_answer(*args: Any, **kwargs: Any) -> None:
    return None


# -- rules -----------------------------------------------------------------------------------------------------------

_never_paused = property(lambda self: frozenset(), _nothing)

# -- limits ----------------------------------------------------------------------------------------------------------


async def _may_all_run(self: Limits, deliveries: Sequence[Any]) -> Permitted:
    return Permitted(list(deliveries), [], [])


@contextmanager
def _nobody_is_woken() -> Iterator[None]:
    with mock.patch.object(ServerLimits, "_wake", _nothing):
        yield


def _seats_of_the_dead(self: ServerLimits, row: Any, now: float) -> int:
    return len(row.holders) + sum(until > now for until in row.promised.values())


def _at_once(self: Pace, interval: float, now: float, *, reserved: bool) -> tuple[Pace, None]:
    return self, None


# -- keys ------------------------------------------------------------------------------------------------------------


@contextmanager
def _locks_stay() -> Iterator[None]:
    with mock.patch.object(LedgerTable, "free", _nothing), mock.patch.object(Completer, "_free", _no_answer):
        yield


async def _nobody_is_replaced(broker: Any, deliveries: Any, *args: Any) -> Mapping[str, Any]:
    return {}


def _makes_all(self: LedgerTable, changes: Sequence[Any], tick: float) -> None:
    for change in changes:
        self.make(change, tick)


def _forgets(self: Steps, key: str, local: Any, body: bytes) -> bytes:
    return body


# -- dead letters, stages ----------------------------------------------------------------------------------------------


def _drops_first(self: MemoryDeadLetters, replays: Sequence[Any], *, timeout: float) -> Sequence[str]:
    self.drop([replay.key for replay in replays], timeout=timeout)
    raise OperationalError("killed between two steps")


@contextmanager
def _at_once_and_again() -> Iterator[None]:
    def stage(self: MemoryPublisher, messages: Any, *, stage: str, timeout: float) -> None:
        publish(self._server, messages)

    with (
        mock.patch.object(MemoryPublisher, "stage", stage),
        mock.patch.object(blocking_ports, "launch", _nothing),
    ):
        yield


_CALM: frozenset[str] = frozenset()
_LOSSES = frozenset({"early restores", "node kills"})
_KILLS = frozenset({"child kills", "step kills", "node kills"})

#: Name → theme, what breaks, and the faults that bring it to light (None: whatever a seed chooses).
_ALL: Mapping[str, tuple[str, Mutant, frozenset[str] | None]] = {
    "the fetcher ignores the epoch": ("rules", _patched(Fetcher, "_obey", _no_answer), None),
    "revoked tasks run": ("rules", _patched(RuleBook, "refusal", _nothing), None),
    "paused queues are claimed": ("rules", _patched(RuleBook, "paused", _never_paused, create=True), None),
    "nobody looks for revoked tasks that wait": ("rules", _patched(Enforcer, "_search", _no_answer), _CALM),
    "running tasks are not terminated": ("rules", _patched(Enforcer, "_end", _nothing), _CALM),
    "limits are not asked": ("limits", _patched(Limits, "permit", _may_all_run), None),
    "seats are not counted": ("limits", _patched(ServerLimits, "_used", lambda self, row, now: 0), None),
    "the pace is not kept": ("limits", _patched(Pace, "take", _at_once), None),
    "nobody is woken for a free seat": ("limits", _nobody_is_woken, None),
    "the dead keep their seats": ("limits", _patched(ServerLimits, "_used", _seats_of_the_dead), _KILLS),
    "locks stay when their tasks end": ("keys", _locks_stay, None),
    "locks are free at a retry": ("keys", _patched(planning, "_is_over", lambda *args: True), None),
    "replaced tasks run": ("keys", _patched(fetcher, "begin_locked", _nobody_is_replaced), None),
    "messages are sent whatever holds their key": ("keys", _patched(LedgerTable, "change_all", _makes_all), None),
    "steps are not recorded": ("keys", _patched(Steps, "_record", _forgets), None),
    "a replay drops before it publishes": ("dead letters", _patched(MemoryDeadLetters, "replay", _drops_first), None),
    "lost leases are not counted": ("dead letters", _patched(sorting, "exhausted", lambda *args: False), _LOSSES),
    "a stage is sent piece by piece": ("staged", _at_once_and_again, None),
}
MUTANTS: Mapping[str, Mutant] = {name: mutant for name, (_, mutant, _) in _ALL.items()}
THEME: Mapping[str, frozenset[str]] = {name: frozenset({theme}) for name, (theme, _, _) in _ALL.items()}
FAULTS: Mapping[str, frozenset[str]] = {name: faults for name, (_, _, faults) in _ALL.items() if faults is not None}
