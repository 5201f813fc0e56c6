"""The guarantees page shows every fault scenario, and none that is gone. Its numbers are those of the last long run."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from tests.faults.scenario import tests_of
from tools.guarantees import on_page

FAULTS = Path(__file__).parents[1] / "faults"


def test_it_shows_every_scenario_and_no_other() -> None:
    modules = [import_module(f"tests.faults.{path.stem}") for path in sorted(FAULTS.glob("test_*.py"))]
    in_code = {(said["fault"], said["promise"]) for _, said in tests_of(modules)}
    assert set(on_page()) == in_code, "run: ./dev faults --write"


def test_no_two_scenarios_have_one_name() -> None:
    modules = [import_module(f"tests.faults.{path.stem}") for path in sorted(FAULTS.glob("test_*.py"))]
    names = [said["fault"] for _, said in tests_of(modules)]
    assert sorted(names) == sorted(set(names))
