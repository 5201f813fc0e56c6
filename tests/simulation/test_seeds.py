"""What must always hold, under thousands of seeds; and that a seed says everything about its run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.simulation.many import simulate_many
from tests.simulation.simulate import run

#: The seeds are run in so many parts: a slow machine is not taken for one that hangs.
PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_random_work_under_random_faults(request: pytest.FixtureRequest, part: int) -> None:
    """`--seeds N` in all; `./dev simulate` runs others than these."""
    seeds: int = request.config.getoption("--seeds")
    found, _ = simulate_many(range(part, seeds, PARTS), jobs=2)
    assert not found, "\n\n".join(found)


def test_with_the_ledger_on_a_server_of_its_own(request: pytest.FixtureRequest) -> None:
    """A tenth of the seeds: others than those above."""
    seeds: int = request.config.getoption("--seeds")
    found, _ = simulate_many(range(seeds, seeds + seeds // 10), jobs=2, beside=True)
    assert not found, "\n\n".join(found)


def test_a_seed_always_takes_the_same_course() -> None:
    first = [run(seed).trace for seed in range(20)]
    assert [run(seed).trace for seed in range(20)] == first
    assert len(set(first)) == 20


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_the_order_of_sets_does_not_matter(hash_seed: str) -> None:
    program = "from tests.simulation.simulate import run; print(*(run(seed).trace for seed in range(20, 30)))"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == [run(seed).trace for seed in range(20, 30)]
