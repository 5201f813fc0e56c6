"""Random workflows, random crashes: the same values as by plain recursion, each body sent once.

`./dev test tests/workflows --workflows 100000` runs any number; a failure prints the smallest workflow and the random
seed that Hypothesis found.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from celeriac import states
from tests.workflows.simulator import Simulation
from tests.workflows.trees import FAILED, NOTHING, Leaf, Tree, workflows


def value_of(result: Any, silent: bool) -> Any:
    """What a result brought, with what failed marked. `silent`: a task that ignores itself stores nothing."""
    if hasattr(result, "results"):
        return [value_of(member, silent) for member in result.results]
    assert silent or result.state in states.READY_STATES, f"{result} is {result.state}"
    return result.result if result.state == states.SUCCESS else FAILED


def check(tree: Tree, seed: int, *, apart: bool, deadly: float = 0.02) -> None:
    simulation = Simulation(random.Random(seed), apart=apart, deadly=deadly)
    try:
        simulation.immortal = True
        result = tree.sig(simulation.app).apply_async()
        simulation.immortal = False
        simulation.run()
        note(f"{tree}, {simulation.deaths} deaths")
        silent = "ignores" in str(tree)
        assert value_of(result, silent) == tree.run(NOTHING), str(tree)
        node = result.parent
        while node is not None:
            value_of(node, silent)
            node = node.parent
        twice = {key: count for key, count in simulation.published.items() if count > 1}
        assert (apart and deadly) or not twice, f"{tree}: published more than once: {twice}"
    finally:
        simulation.close()


@pytest.fixture(scope="module")
def examples(request: pytest.FixtureRequest) -> int:
    count: int = request.config.getoption("--workflows")
    return count


@pytest.mark.parametrize(("deadly", "share"), [(0.02, 3), (0.0, 2)], ids=["crashes", "calm"])
@pytest.mark.parametrize("apart", [False, True], ids=["one server", "two servers"])
def test_random_workflows(examples: int, apart: bool, deadly: float, share: int) -> None:
    @settings(
        max_examples=examples * share // 10,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),  # not `explain`, which traces every line
    )
    @given(tree=workflows(), seed=st.integers(0, 2**32))
    def test(tree: Tree, seed: int) -> None:
        check(tree, seed, apart=apart, deadly=deadly)

    test()


def test_the_recursion_itself() -> None:
    """A wrong oracle would agree with nothing; this one is easy to see through."""
    assert Leaf("plain", 1).run(NOTHING) == [1]
    assert Leaf("plain", 1).run([2]) == [1, [2]]
