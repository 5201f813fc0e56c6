"""Fixtures of the tests of results."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.result.app import App


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def later() -> Iterator[Any]:
    threads: list[threading.Thread] = []

    def start(work: Any, *args: Any, **kwargs: Any) -> None:
        thread = threading.Timer(0.02, work, args, kwargs)
        thread.start()
        threads.append(thread)

    yield start
    for thread in threads:
        thread.join()
