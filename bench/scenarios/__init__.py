"""All scenarios, in the order of the table. To add one: write its file and name it here."""

from bench.scenario import Scenario
from bench.scenarios import (
    beat,
    cluster,
    cold,
    cpu,
    footprint,
    imports,
    io,
    latency,
    lateness,
    memory,
    noop,
    postgres,
    producer,
    rabbit,
    threads,
    workflows,
)

ALL: tuple[Scenario, ...] = (
    *noop.SCENARIOS,
    *io.SCENARIOS,
    *cpu.SCENARIOS,
    *producer.SCENARIOS,
    *threads.SCENARIOS,
    *workflows.SCENARIOS,
    *latency.SCENARIOS,
    *lateness.SCENARIOS,
    *footprint.SCENARIOS,
    *cold.SCENARIOS,
    *imports.SCENARIOS,
    *memory.SCENARIOS,
    *rabbit.SCENARIOS,
    *postgres.SCENARIOS,
    *cluster.SCENARIOS,
    *beat.SCENARIOS,
)
