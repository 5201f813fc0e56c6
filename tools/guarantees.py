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


def table(found: Sequence[Summary]) -> str:
    """The counted part of the page."""
    from tests.faults.scenario import SECTIONS

    parts = []
    for section, title in SECTIONS.items():
        mine = [each for each in found if each.section == section]
        if mine:
            parts.append(f"### {title}\n\n" + "\n".join(_markdown(mine)) + "\n")
    return "\n".join(parts)


def _markdown(found: Sequence[Summary]) -> Iterator[str]:
    yield "| " + " | ".join(_HEAD) + " |"
    yield "|" + "---|" * len(_HEAD)
    last = ""
    for each in found:
        cells = each.cells()
        if each.fault == last:
            cells = ("", "", *cells[2:])
        last = each.fault
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def console(rows: Iterable[Row]) -> Iterator[str]:
    """The same for a terminal, with what failed."""
    lines: list[tuple[str, ...]] = [(*_HEAD[:1], *_HEAD[2:], "failed")]
    for each in summaries(rows):
        cells = each.cells()
        lines.append((cells[0][:70], *cells[2:], str(each.failed or "")))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def update(rows: Iterable[Row]) -> None:
    """Put the table into the page."""
    text = PAGE.read_text("utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(summaries(rows))}\n{END}{after}", "utf-8")


def on_page() -> list[tuple[str, str]]:
    """Fault and promise of every scenario that the page shows."""
    counted = PAGE.read_text("utf-8").partition(BEGIN)[2].partition(END)[0]
    rows = [re.split(r"(?<!\\)\|", line)[1:3] for line in counted.splitlines() if line.startswith("| ")]
    found = [(fault.strip(), promise.strip()) for fault, promise in rows]
    return [each for each in found if each[0] and each[0] != _HEAD[0]]
