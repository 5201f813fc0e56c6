"""What a simulation replaces while it lasts: the ``time`` module's clocks, ids, chance, and an app's connections.

All is put back at the end. Other threads keep the real clocks.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from celeriac.client import current
from celeriac.codec import envelope

__all__ = ["current_app", "seeded", "virtual_time"]


@contextmanager
def virtual_time(
    now: Callable[[], float], monotonic: Callable[[], float], sleep: Callable[[float], None]
) -> Iterator[None]:
    """``time.time``, ``time.monotonic`` and ``time.sleep`` of this thread are these."""
    real, thread = (time.time, time.monotonic, time.sleep), threading.get_ident()

    def chosen(real_one: Callable[..., Any], virtual: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            return virtual(*args) if threading.get_ident() == thread else real_one(*args)

        return call

    time.time, time.monotonic, time.sleep = chosen(real[0], now), chosen(real[1], monotonic), chosen(real[2], sleep)
    try:
        yield
    finally:
        time.time, time.monotonic, time.sleep = real


@contextmanager
def current_app(app: Any) -> Iterator[None]:
    """``app`` is the current and the default one: shared tasks are its own."""
    before = (current._thread.app, current._default, current._latest)
    app.set_current()
    app.set_default()
    try:
        yield
    finally:
        current._thread.app, current._default, current._latest = before


@contextmanager
def seeded(seed: int | str) -> Iterator[None]:
    """Ids, and the random numbers of retries, follow from ``seed``."""
    state, source = random.getstate(), envelope.random_bytes
    random.seed(f"{seed}-retries")
    envelope.random_bytes = Random(f"{seed}-ids").randbytes
    try:
        yield
    finally:
        envelope.random_bytes = source
        random.setstate(state)
