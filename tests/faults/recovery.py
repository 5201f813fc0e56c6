"""How soon work goes on after a fault."""

from __future__ import annotations

from tests.faults.fleet import Fleet
from tests.servers import wait_until

__all__ = ["first_end_after"]


def first_end_after(fleet: Fleet, moment: float) -> float:
    """Seconds from then until the next task ended."""

    def ended() -> list[float]:
        return [run.at for run in fleet.journal.read().runs if run.kind == "end" and run.at > moment]

    return float(min(wait_until(ended, 10.0, fleet.logs))) - moment
