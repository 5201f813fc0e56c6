"""Signals by name, as orders to end a task have them: read by those who give one, and by those who obey."""

from __future__ import annotations

import signal

__all__ = ["signal_number"]


def signal_number(name: object) -> int:
    """The number of a signal given by number or name, with or without SIG. Raises ``ValueError``."""
    text = str(name).upper()
    found = signal.Signals.__members__.get(text if text.startswith("SIG") else f"SIG{text}")
    number = int(text) if found is None and text.isascii() and text.isdigit() else found
    if number is None or number not in signal.valid_signals():
        raise ValueError(f"there is no signal {name!r}: write a name such as SIGTERM, or its number")
    return int(number)
