"""The bars to reach (issue 2), and whether a measurement clears them. Pure; knows nothing of how numbers are made."""

from collections.abc import Mapping
from dataclasses import dataclass

Values = Mapping[str, float]  # "scenario/variant/metric" → median

# Celery's usual numbers on the machine of the issue: used only where it was not measured in the same run.
REFERENCE: Values = {"noop/celery/rate": 900.0, "delay/celery/rate": 1_800.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """`at_least`/`at_most` is absolute, or a multiple of the value called `of`."""

    metric: str
    variant: str = "ours"
    at_least: float | None = None
    at_most: float | None = None
    of: str | None = None

    def limit(self, values: Values) -> float | None:
        """None when what it is a multiple of is unknown."""
        bound = self.at_least if self.at_least is not None else self.at_most
        assert bound is not None, "a bar has a bound"
        if self.of is None:
            return bound
        base = values.get(self.of, REFERENCE.get(self.of))
        return None if base is None else bound * base

    def verdict(self, value: float, values: Values) -> str:
        limit = self.limit(values)
        if limit is None:
            return "?"
        return "PASS" if (value >= limit if self.at_least is not None else value <= limit) else "MISS"

    def text(self, values: Values) -> str:
        sign, bound = ("≥", self.at_least) if self.at_least is not None else ("≤", self.at_most)
        if self.of is None:
            return f"{self.variant} {sign} {bound:,g}"
        scenario, variant, _ = self.of.split("/")
        assumed = " (assumed)" if self.of in REFERENCE and self.of not in values else ""
        return f"{self.variant} {sign} {bound:g} × {scenario}/{variant}{assumed}"
