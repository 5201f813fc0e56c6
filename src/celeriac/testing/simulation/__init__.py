"""The real services of workers under virtual time, with faults between them: for Celeriac's tests, and for users'."""

from __future__ import annotations

from celeriac.testing.simulation.simulation import Simulation

__all__ = ["Simulation"]
