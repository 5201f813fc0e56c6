"""The table and the JSON of a run. Pure, but for writing the file."""

import json
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from bench.bars import Bar
from bench.scenario import Sample, Scenario

BUSY = 10.0
VARIANTS = ("bare", "celery", "procrastinate", "potatoq", "ours", "sqlite", "cluster")
USUAL = {"celery", "ours"}


@dataclass(slots=True)
class Report:
    """Samples and errors as they come in: `samples[scenario][variant]` is one per round."""

    scenarios: Sequence[Scenario]
    busy: float  # percent of the CPUs that others used before the run
    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    errors: dict[str, list[str]] = field(default_factory=dict)

    def add(self, scenario: str, variant: str, sample: Sample) -> None:
        self.samples.setdefault(scenario, {}).setdefault(variant, []).append(sample)

    def fail(self, scenario: str, variant: str, reason: str) -> None:
        self.errors.setdefault(f"{scenario}/{variant}", []).append(reason)

    def values(self) -> dict[str, float]:
        """Medians by "scenario/variant/metric"."""
        found: dict[str, float] = {}
        for scenario, variants in self.samples.items():
            for variant, rounds in variants.items():
                for metric in rounds[0]:
                    found[f"{scenario}/{variant}/{metric}"] = median(sample[metric] for sample in rounds)
        return found

    def table(self) -> str:
        header = ("scenario", "metric", *self._variants(), "ours/celery", "bar", "")
        rows = [header, *(row for scenario in self.scenarios for row in self._rows(scenario))]
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        left = {0, 1, len(header) - 2, len(header) - 1}
        lines = [
            "  ".join(
                cell.ljust(width) if column in left else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:], *self._endings()])

    def _variants(self) -> list[str]:
        """Those that were measured have a column."""
        measured = {variant for variants in self.samples.values() for variant in variants} | USUAL
        return [variant for variant in VARIANTS if variant in measured]

    def _rows(self, scenario: Scenario) -> Iterator[tuple[str, ...]]:
        values = self.values()
        about = scenario.about
        for metric, unit in scenario.units.items():
            keys = {variant: f"{scenario.name}/{variant}/{metric}" for variant in self._variants()}
            cells = [number(values[key]) if key in values else "" for key in keys.values()]
            ours, theirs = values.get(keys["ours"]), values.get(keys["celery"])
            ratio = f"{ours / theirs:.3g} ×" if ours is not None and theirs else ""
            bars: list[Bar | None] = [bar for bar in scenario.bars if bar.metric == metric]
            for bar in bars or [None]:
                text, verdict = self._judged(scenario, bar)
                yield (about, f"{metric} {unit}".strip(), *cells, ratio, text, verdict)
                about, cells, ratio = "", [""] * len(cells), ""

    def _judged(self, scenario: Scenario, bar: Bar | None) -> tuple[str, str]:
        if bar is None:
            return "", ""
        values = self.values()
        value = values.get(f"{scenario.name}/{bar.variant}/{bar.metric}")
        return bar.text(values), "-" if value is None else bar.verdict(value, values)

    def _endings(self) -> Iterator[str]:
        for where, reasons in self.errors.items():
            yield f"error in {where}: {reasons[0]}" + (f" (and {len(reasons) - 1} more)" if reasons[1:] else "")
        verdicts = [self._judged(scenario, bar)[1] for scenario in self.scenarios for bar in scenario.bars]
        if self.busy > BUSY:
            yield f"others used {self.busy:.0f} % of the CPUs before the run: these numbers say little"
        yield ", ".join(f"{verdicts.count(kind)} {name}" for kind, name in KINDS.items() if kind in verdicts)

    def write(self, path: Path) -> None:
        values = self.values()
        judged = [
            {**asdict(bar), "scenario": scenario.name, "verdict": self._judged(scenario, bar)[1]}
            for scenario in self.scenarios
            for bar in scenario.bars
        ]
        content = {
            "machine": {
                "busy": self.busy,
                "cpus": os.cpu_count(),
                "python": platform.python_version(),
                "system": platform.system(),
            },
            "medians": values,
            "bars": judged,
            "samples": self.samples,
            "errors": self.errors,
        }
        path.write_text(json.dumps(content, indent=1) + "\n")


KINDS = {"PASS": "passed", "MISS": "missed", "?": "without a base to compare with", "-": "not measured"}


def number(value: float) -> str:
    """Three significant digits, or whole with thousands separators."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else ("0" if value == 0 else f"{value:.1g}")
