"""All scenarios, in the order of the table. To add one: write its file and name it here."""

from bench.scenario import Scenario
from bench.scenarios import cold, cpu, footprint, imports, io, latency, lateness, memory, noop, producer, workflows

ALL: tuple[Scenario, ...] = (
    *noop.SCENARIOS,
    *io.SCENARIOS,
    *cpu.SCENARIOS,
    *producer.SCENARIOS,
    *workflows.SCENARIOS,
    *latency.SCENARIOS,
    *lateness.SCENARIOS,
    *footprint.SCENARIOS,
    *cold.SCENARIOS,
    *imports.SCENARIOS,
    *memory.SCENARIOS,
)
