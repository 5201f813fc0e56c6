"""Many seeds on several processes."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.simulate import run, smallest

__all__ = ["simulate_many"]

#: Seeds that a process takes at a time, and reports that are kept.
_CHUNK = 50
_MOST = 5


def simulate_many(
    seeds: range,
    *,
    jobs: int,
    kinds: frozenset[str] | None = None,
    themes: frozenset[str] | None = None,
    beside: bool = False,
) -> tuple[list[str], int]:
    """What went wrong, as text, the first few; and the number of steps taken. ``kinds``: faults, ``themes``:
    features, instead of those that each seed chooses; ``beside``: the ledger is on a server of its own."""
    chunks = [seeds[at : at + _CHUNK] for at in range(0, len(seeds), _CHUNK)]
    if jobs <= 1:
        return _merged([_chunk(chunk, kinds, themes, beside) for chunk in chunks])
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        return _merged(list(pool.map(_chunk, chunks, *map(itertools.repeat, (kinds, themes, beside)))))


def _chunk(
    seeds: Sequence[int], kinds: frozenset[str] | None, themes: frozenset[str] | None, beside: bool
) -> tuple[list[str], int]:
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)  # a world is one heap of cycles, dropped as a whole
    found: list[str] = []
    steps = 0
    for seed in seeds:
        report = run(seed, kinds, themes, beside=beside)
        steps += report.steps
        if report.problems and len(found) < _MOST:
            found.append(str(smallest(report)))
    return found, steps


def _merged(parts: list[tuple[list[str], int]]) -> tuple[list[str], int]:
    return [text for found, _ in parts for text in found][:_MOST], sum(steps for _, steps in parts)
