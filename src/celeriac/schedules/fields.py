"""The five fields of a crontab: what each may hold, and how what users write becomes a set of numbers.

Celery's syntax, with errors that name the field, the value and what is allowed. Knows no dates and no clock. Called by
``cron.py``; ``crontab_parser`` and ``ParseException`` are public under Celery's names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

__all__ = [
    "DAY_OF_MONTH",
    "DAY_OF_WEEK",
    "HOUR",
    "MINUTE",
    "MONTH_OF_YEAR",
    "Cronspec",
    "Field",
    "ParseException",
    "crontab_parser",
]

#: What a field may be given as: a number, text such as ``"*/15"`` or ``"mon-fri"``, or numbers.
Cronspec: TypeAlias = int | str | Iterable[int]

_WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_PART = re.compile(r"(?P<begin>\*|[a-z0-9]+)(-(?P<end>[a-z0-9]+))?(?P<slash>/(?P<step>[a-z0-9]*))?", re.IGNORECASE)
_SHORTEST_NAME = 3


class ParseException(ValueError):
    """Text of a crontab field that is no crontab pattern."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its name in messages, its smallest and largest number, and names for its numbers from ``low`` on."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    def expand(self, spec: Cronspec) -> frozenset[int]:
        """The numbers that ``spec`` stands for.

        Raises ``ParseException`` for what is no pattern, ``ValueError`` out of range, ``TypeError`` for other types.
        """
        if isinstance(spec, str):
            numbers = frozenset(self.parse(spec))
        elif isinstance(spec, int):
            numbers = frozenset((self._checked(spec, spec),))
        elif isinstance(spec, Iterable):
            numbers = frozenset(self._checked(number, spec) for number in spec)
        else:
            raise TypeError(f"{self.name}: {spec!r} is no number, no text and no list of numbers")
        if not numbers:
            raise ValueError(f"{self.name}: {spec!r} is empty, so it would never run; '*' means every")
        return numbers

    def says_every(self, spec: Cronspec, numbers: frozenset[int]) -> bool:
        """Whether it means every so many, not just at these: written with ``*`` or a step, or all there are."""
        written = isinstance(spec, str) and ("*" in spec or "/" in spec)
        return written or len(numbers) == self.high - self.low + 1

    def parse(self, text: str) -> Iterator[int]:
        """The numbers of a pattern, in its order; some may come twice."""
        for part in text.split(","):
            yield from self._part(part.strip(), text)

    def _part(self, part: str, text: str) -> Iterable[int]:
        if not part:
            raise ParseException(f"{self.name}: {text!r} has an empty part between its commas")
        if part.startswith("-"):
            raise ParseException(f"{self.name}: {part!r} is negative; {self._allowed}")
        found = _PART.fullmatch(part)
        if found is None:
            raise ParseException(f"{self.name}: {part!r} is no number, name, range or '*'; {self._allowed}")
        numbers = self._range(found["begin"], found["end"], part)
        if not found["slash"]:
            return numbers
        if found["begin"] != "*" and found["end"] is None:
            raise ParseException(
                f"{self.name}: {part!r} has a step but no range: write {part.replace('/', f'-{self.high}/')!r}"
            )
        if not found["step"]:
            raise ParseException(f"{self.name}: {part!r} has no number behind its slash")
        if not found["step"].isdecimal() or int(found["step"]) < 1:
            raise ParseException(f"{self.name}: step {found['step']!r} in {part!r} must be a number from 1 on")
        return numbers[:: int(found["step"])]

    def _range(self, begin: str, end: str | None, part: str) -> list[int]:
        if begin == "*":
            if end is not None:
                raise ParseException(f"{self.name}: {part!r} mixes '*' with a range; {self._allowed}")
            return list(range(self.low, self.high + 1))
        first = self._number(begin, part)
        if end is None:
            return [first]
        last = self._number(end, part)
        if last < first:  # 22-4: past the end of the field, and on from its beginning
            return [*range(first, self.high + 1), *range(self.low, last + 1)]
        return list(range(first, last + 1))

    def _number(self, text: str, part: str) -> int:
        if text.isdecimal():
            return self._checked(int(text), part)
        lower = text.lower()
        for number, name in enumerate(self.names, self.low):
            if len(lower) >= _SHORTEST_NAME and name.startswith(lower):
                return number
        raise ValueError(f"{self.name}: {text!r} is neither a number nor a name; {self._allowed}")

    def _checked(self, number: object, spec: object) -> int:
        if not isinstance(number, int):
            raise TypeError(f"{self.name}: {number!r} in {spec!r} is no whole number; {self._allowed}")
        if not self.low <= number <= self.high:
            raise ValueError(f"{self.name}: {number} is out of range; {self._allowed}")
        return number

    @property
    def _allowed(self) -> str:
        names = f" or {self.names[0][:3]} to {self.names[-1][:3]}" if self.names else ""
        return f"allowed is {self.low} to {self.high}{names}"


MINUTE = Field("minute", 0, 59)
HOUR = Field("hour", 0, 23)
DAY_OF_WEEK = Field("day_of_week", 0, 6, _WEEKDAYS)
DAY_OF_MONTH = Field("day_of_month", 1, 31)
MONTH_OF_YEAR = Field("month_of_year", 1, 12, _MONTHS)

_KNOWN = {
    (each.high - each.low + 1, each.low): each for each in (MINUTE, HOUR, DAY_OF_WEEK, DAY_OF_MONTH, MONTH_OF_YEAR)
}


class crontab_parser:  # noqa: N801 - Celery's name
    """Parses a field of ``max_`` numbers from ``min_`` on: ``crontab_parser(60).parse("*/15") == {0, 15, 30, 45}``."""

    ParseException = ParseException

    def __init__(self, max_: int = 60, min_: int = 0) -> None:
        self.max_ = max_
        self.min_ = min_
        self._field = _KNOWN.get((max_, min_)) or Field("crontab", min_, max_ + min_ - 1)

    def parse(self, spec: str) -> set[int]:
        """The numbers that ``spec`` stands for. Raises ``ParseException`` or ``ValueError``."""
        return set(self._field.parse(spec))
