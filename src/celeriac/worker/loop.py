"""The event loop of a worker process: uvloop where it is installed (the extra ``fast``), else asyncio's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from importlib import import_module
from importlib.util import find_spec
from typing import Any

__all__ = ["new_loop", "run"]


def new_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the loop, None for asyncio's default. Imports nothing when uvloop is not installed."""
    if find_spec("uvloop") is None:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = import_module("uvloop").new_event_loop
    return factory


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run ``main`` to its end on a new loop of this thread."""
    with asyncio.Runner(loop_factory=new_loop()) as runner:
        runner.run(main)
