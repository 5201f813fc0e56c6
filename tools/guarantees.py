"""The part of docs/reference/guarantees.md that is counted, not claimed: ``./dev faults --write`` makes it.

The prose of the page is written by hand; what lies between the two marks is a table of the rows that the scenarios of
tests/faults left. A test compares the names on the page with the scenarios in the code, not the numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.scenario import Row

__all__ = ["PAGE", "Summary", "console", "on_page", "summaries", "update"]

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "guarantees.md"
BEGIN, END = "<!-- counted by ./dev faults --write: do not edit -->", "<!-- end of what was counted -->"

#: Title of its section, and a line's cells.
Line = tuple[str, tuple[str, ...]]
_HEAD = ("fault", "what must hold", "server", "runs", "tasks", "lost", "stuck", "again", "doubled", "early", "recovery")


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """All runs of one scenario on one server."""

    section: str
    fault: str
    promise: str
    server: str
    runs: int
    failed: int
    #: Sums by name of the count; None where nobody counted.
    counts: Mapping[str, int | None]
    recoveries: Sequence[float]

    def cells(self) -> tuple[str, ...]:
        """As a row of the table."""
        counted = ("accepted", "lost", "stuck", "again", "doubled", "early")
        shown = ["" if (count := self.counts[name]) is None else str(count) for name in counted]
        return (self.fault, self.promise, self.server, str(self.runs), *shown, self._recovery())

    def _recovery(self) -> str:
        found = self.recoveries
        if not found:
            return ""
        return _seconds(found[0]) if len(found) == 1 else f"{_seconds(median(found))} / {_seconds(max(found))}"


def _seconds(value: float) -> str:
    return f"{value:.2f} s"


def summaries(rows: Iterable[Row]) -> list[Summary]:
    """One for each scenario and server, in the order of the sections."""
    from tests.faults.scenario import SECTIONS

    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.fault, row.server), []).append(row)
    found = []
    for (fault, server), group in groups.items():
        counts = {name: _sum(group, name) for name in ("accepted", "lost", "stuck", "again", "doubled", "early")}
        found.append(
            Summary(
                section=group[0].section,
                fault=fault,
                promise=group[0].promise,
                server=server,
                runs=len(group),
                failed=sum(not row.passed for row in group),
                counts=counts,
                recoveries=[row.recovery for row in group if row.recovery is not None],
            )
        )
    order = list(SECTIONS)
    return sorted(found, key=lambda each: order.index(each.section))


def _sum(group: Sequence[Row], name: str) -> int | None:
    values = [value for row in group if (value := getattr(row, name)) is not None]
    return sum(values) if values else None


def table(found: Sequence[Summary], kept: Sequence[Line] = ()) -> str:
    """The counted part of the page; ``kept`` are lines of before, but for those that were counted anew."""
    from tests.faults.scenario import SECTIONS

    new = [(SECTIONS[each.section], each.cells()) for each in found]
    anew = {(cells[0], cells[2]) for _, cells in new}
    lines = [line for line in kept if (line[1][0], line[1][2]) not in anew] + new
    parts = []
    for title in SECTIONS.values():
        mine = [cells for section, cells in lines if section == title]
        if mine:
            faults = list(dict.fromkeys(cells[0] for cells in mine))
            mine.sort(key=lambda cells: faults.index(cells[0]))
            parts.append(f"### {title}\n\n" + "\n".join(_markdown(mine)) + "\n")
    return "\n".join(parts)


def _markdown(lines: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(_HEAD) + " |"
    yield "|" + "---|" * len(_HEAD)
    last = ""
    for cells in lines:
        shown = ("", "", *cells[2:]) if cells[0] == last else cells
        last = cells[0]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in shown) + " |"


def console(rows: Iterable[Row]) -> Iterator[str]:
    """The same for a terminal, with what failed."""
    lines: list[tuple[str, ...]] = [(*_HEAD[:1], *_HEAD[2:], "failed")]
    for each in summaries(rows):
        cells = each.cells()
        lines.append((cells[0][:70], *cells[2:], str(each.failed or "")))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def update(rows: Iterable[Row], *, partly: bool = False) -> None:
    """Put the table into the page; where only some scenarios have run, the others' lines stay."""
    text = PAGE.read_text("utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(summaries(rows), _lines() if partly else ())}\n{END}{after}", "utf-8")


def _lines() -> list[Line]:
    """What the page shows: title of the section, and the cells as ``Summary.cells`` has them."""
    found: list[Line] = []
    title, names = "", ["", ""]
    for line in PAGE.read_text("utf-8").partition(BEGIN)[2].partition(END)[0].splitlines():
        if line.startswith("### "):
            title = line.removeprefix("### ")
        elif line.startswith("| ") and not line.startswith(f"| {_HEAD[0]} |"):
            cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            names = cells[:2] if cells[0] else names
            found.append((title, (*names, *cells[2:])))
    return found


def on_page() -> list[tuple[str, str]]:
    """Fault and promise of every scenario that the page shows."""
    return list(dict.fromkeys((cells[0], cells[1]) for _, cells in _lines()))
