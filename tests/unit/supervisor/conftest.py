"""Supervisors on a bench."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.unit.supervisor.bench import Bench


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def make(**options: Any) -> Bench:
        benches.append(Bench(monkeypatch, **options))
        return benches[-1]

    yield make
    for each in benches:
        each.close()


@pytest.fixture
def bench(make: Callable[..., Bench]) -> Bench:
    return make()
