"""What a fault test is about and what it counted: a row for the table of ``./dev faults`` and the guarantees page.

A test becomes a scenario by ``@scenario("section", fault="…", promise="…")``; what it hands to ``journal.report`` is
its row. conftest.py appends rows to the file that ``--fault-rows`` names; a run may hold several rounds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

__all__ = ["SECTIONS", "Row", "about", "read", "row", "scenario", "scenarios_of", "write"]

#: Order and titles of the sections of the page.
SECTIONS = {
    "processes": "Processes die, hang, or run out of something",
    "deploys": "Deploys",
    "broker": "The broker goes away, comes back, or is full",
    "network": "The network misbehaves",
    "hosts": "Several machines: one is cut off, vanishes, is far away, or has a wrong clock",
    "results": "The result store is a server of its own",
    "file": "The SQLite file and its disk",
    "producers": "Producers and messages",
    "time": "Time",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One run of one scenario on one server. Times in seconds; None: not counted there."""

    section: str
    fault: str
    promise: str
    server: str
    test: str
    seed: int
    passed: bool
    #: Tasks whose sending was confirmed.
    accepted: int | None
    lost: int | None
    #: Starts of a task beyond the first of each attempt, and those that the fault does not account for.
    again: int | None
    doubled: int | None
    stuck: int | None
    early: int | None
    #: From the end of the fault, or from the death, until work went on or the last of it was taken over.
    recovery: float | None


def scenario(section: str, *, fault: str, promise: str) -> Any:
    """The mark of a scenario; the text of ``fault`` is its name."""
    assert section in SECTIONS, section
    return pytest.mark.fault(section=section, fault=fault, promise=promise)


def about(test: Any) -> Mapping[str, str] | None:
    """What a test function says by ``scenario``, or None."""
    marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "fault"]
    return dict(marks[0].kwargs) if marks else None


def row(said: Mapping[str, str], counted: Mapping[str, Any], *, test: str, seed: int, passed: bool) -> Row:
    """A row of what ``report`` was given. A lost task fails its test, so where none was counted none was lost."""
    again = counted.get("again")
    recovery = counted.get("recovery", counted.get("gap_max"))
    return Row(
        **said,
        server=str(counted.get("place", "sqlite" if "sqlite" in test else "redis")),
        test=test,
        seed=seed,
        passed=passed,
        accepted=counted.get("sent"),
        lost=counted.get("lost"),
        again=again,
        doubled=counted.get("doubled", 0 if again == 0 else None),
        stuck=counted.get("stuck", 0 if passed else None),
        early=counted.get("early"),
        recovery=recovery,
    )


def write(path: Path, new: Row) -> None:
    """Append one row, a JSON object in a line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(new)) + "\n")


def read(path: Path) -> list[Row]:
    """All rows of a file; none where there is no file."""
    if not path.exists():
        return []
    return [Row(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def scenarios_of(modules: Iterable[Any]) -> list[tuple[str, Mapping[str, str]]]:
    """Names and words of the scenarios in these modules."""
    found = []
    for module in modules:
        for name, test in vars(module).items():
            said = about(test) if name.startswith("test_") else None
            if said is not None:
                found.append((name, said))
    return found
