"""The rule of lost leases, the same in every adapter."""

from __future__ import annotations

from celeriac.model.leases import after_lost_lease
from celeriac.model.message import Marks


def test_a_first_loss_makes_suspect_and_counts_no_crash() -> None:
    assert after_lost_lease(Marks(), alone=True) == Marks(suspect=True, expired_leases=1)


def test_a_suspect_that_was_alone_is_the_culprit() -> None:
    suspect = Marks(suspect=True, expired_leases=1, parked_until=5.0)
    assert after_lost_lease(suspect, alone=False) == Marks(suspect=True, expired_leases=2, parked_until=5.0)
    assert after_lost_lease(suspect, alone=True) == Marks(crashes=1, suspect=True, expired_leases=2, parked_until=5.0)
