"""The suite itself: a stranger's adapter is tested by a few lines, and nothing of it is lost on the way."""

from __future__ import annotations

import itertools

import pytest

from celeriac.testing.conformance import Conformance

STRANGER = """
import pytest

from celeriac.brokers import memory
from celeriac.testing.conformance import Conformance, Harness


class StrangersHarness(Harness):
    adapter = memory
    url = "memory://stranger"
    lease = 0.1
    between_processes = False


class TestStranger(Conformance):
    @pytest.fixture
    def harness(self):
        yield StrangersHarness()
        memory.drop(StrangersHarness.url)
"""


def test_a_stranger_runs_it_in_a_few_lines(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_stranger=STRANGER)
    result = pytester.runpytest_subprocess("-p", "no:hypothesispytest", "-p", "no:celeriac", "-k", "lease or declare")
    outcomes = result.parseoutcomes()
    assert outcomes.get("passed", 0) >= 10, str(result.stdout)
    assert set(outcomes) <= {"passed", "deselected", "skipped"}, str(result.stdout)


def test_no_test_hides_another() -> None:
    tests = [test for theme in Conformance.__mro__ for name, test in vars(theme).items() if name.startswith("test_")]
    assert len(tests) >= 130
    names = [test.__name__ for test in tests]
    assert [name for name, group in itertools.groupby(sorted(names)) if len(list(group)) > 1] == []
