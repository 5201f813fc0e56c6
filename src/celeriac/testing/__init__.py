"""The test kit that is shipped: simulations of an app's own tasks, a virtual clock, and the conformance suite for those
who write adapters."""

from __future__ import annotations

from celeriac.testing.simulation import Simulation

__all__ = ["Simulation"]
