"""The guarantees page shows every fault scenario, and none that is gone. Its numbers are those of the last long run."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from tests.faults import scenario
from tests.faults.scenario import scenarios_of
from tools import guarantees
from tools.guarantees import on_page

FAULTS = Path(__file__).parents[1] / "faults"


def test_it_shows_every_scenario_and_no_other() -> None:
    modules = [import_module(f"tests.faults.{path.stem}") for path in sorted(FAULTS.glob("test_*.py"))]
    in_code = {(said["fault"], said["promise"]) for _, said in scenarios_of(modules)}
    assert set(on_page()) == in_code, "run: ./dev faults --write"


def test_no_two_scenarios_have_one_name() -> None:
    modules = [import_module(f"tests.faults.{path.stem}") for path in sorted(FAULTS.glob("test_*.py"))]
    names = [said["fault"] for _, said in scenarios_of(modules)]
    assert sorted(names) == sorted(set(names))


def _row(number: int, *, recovery: float | None, server: str = "redis", passed: bool = True) -> scenario.Row:
    said = {"section": "time", "fault": "a | b", "promise": "holds"}
    counted = {"place": server, "sent": 10, "lost": 0, "again": number, "doubled": 0, "recovery": recovery}
    return scenario.row(said, counted, test="test_x", seed=number, passed=passed)


def test_runs_of_one_scenario_are_one_line() -> None:
    rows = [
        _row(1, recovery=0.5),
        _row(2, recovery=2.0),
        _row(3, recovery=1.0),
        _row(4, recovery=None, server="sqlite"),
    ]
    first, second = guarantees.summaries(rows)
    assert (first.runs, first.counts["accepted"], first.counts["again"], first.counts["early"]) == (3, 30, 6, None)
    assert first.cells()[-1] == "1.00 s / 2.00 s"
    assert (second.server, second.cells()[-1]) == ("sqlite", "")


def test_a_failed_run_is_counted_and_a_pipe_does_not_break_the_table() -> None:
    rows = [_row(1, recovery=0.5, passed=False)]
    assert guarantees.summaries(rows)[0].failed == 1
    line = guarantees.table(guarantees.summaries(rows)).splitlines()[-1]
    assert line.startswith("| a \\| b | holds | redis | 1 | 10 |")


def test_lines_that_were_not_counted_anew_stay() -> None:
    rows = [_row(1, recovery=0.5), _row(2, recovery=None, server="sqlite")]
    title = scenario.SECTIONS["time"]
    kept = [(title, ("a | b", "holds", server, *"3" * 8)) for server in ("redis", "rabbitmq")]
    text = guarantees.table(guarantees.summaries(rows), kept)
    lines = [re.split(r"(?<!\\)\|", line) for line in text.splitlines()[4:]]
    assert [(line[1].strip(), line[3].strip(), line[4].strip()) for line in lines] == [
        ("a \\| b", "rabbitmq", "3"),
        ("", "redis", "1"),
        ("", "sqlite", "1"),
    ]


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert scenario.read(path) == []
    for number in range(3):
        scenario.write(path, _row(number, recovery=0.1))
    assert scenario.read(path) == [_row(number, recovery=0.1) for number in range(3)]
