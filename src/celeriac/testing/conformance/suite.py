"""All themes of the suite in one class, for those who want everything by one line."""

from __future__ import annotations

import pytest

from celeriac.testing.conformance.chords import Chords
from celeriac.testing.conformance.dead import Dead
from celeriac.testing.conformance.each import EachOfMany
from celeriac.testing.conformance.faults import Faults
from celeriac.testing.conformance.finishing import Finishing
from celeriac.testing.conformance.harness import Harness
from celeriac.testing.conformance.histories import Histories
from celeriac.testing.conformance.joining import Joining
from celeriac.testing.conformance.leases import Leases
from celeriac.testing.conformance.ledger import Ledgers
from celeriac.testing.conformance.lifecycle import LifeCycle
from celeriac.testing.conformance.limits import Limits
from celeriac.testing.conformance.order import Order
from celeriac.testing.conformance.payloads import Payloads
from celeriac.testing.conformance.producers import Producers
from celeriac.testing.conformance.putting_off import PuttingOff
from celeriac.testing.conformance.remote import Remote
from celeriac.testing.conformance.results import Results
from celeriac.testing.conformance.rules import RulesTheme
from celeriac.testing.conformance.schedule import Schedule
from celeriac.testing.conformance.settling import Settling
from celeriac.testing.conformance.waiting import Waiting
from celeriac.testing.conformance.withdrawing import Withdrawing

__all__ = ["Conformance"]


class _Themes(LifeCycle, Order, Schedule, Leases, Settling, Dead, Payloads, Waiting, Limits, PuttingOff):
    """What a broker does."""


class Conformance(
    _Themes,
    Finishing,
    Results,
    Chords,
    Joining,
    Ledgers,
    EachOfMany,
    Producers,
    Faults,
    Remote,
    Histories,
    RulesTheme,
    Withdrawing,
):
    """Subclass it with a fixture ``harness`` (see the package)."""

    @pytest.fixture(autouse=True)
    def exempt(self, request: pytest.FixtureRequest, harness: Harness) -> None:
        """Skip what the server cannot do."""
        name = request.node.name
        reason = harness.exempt.get(name) or harness.exempt.get(name.partition("[")[0])
        if reason is not None:
            pytest.skip(reason)


def _no_test_hides_another() -> None:
    names = [name for theme in Conformance.__mro__ for name in vars(theme) if name.startswith("test_")]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TypeError(f"two themes have a test of the same name, so one of them would never run: {', '.join(twice)}")


_no_test_hides_another()
