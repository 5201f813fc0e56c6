"""What a signal to a node means, warm or cold, and what is said about it."""

from __future__ import annotations

import os
import signal

__all__ = ["means_cold", "say"]


def means_cold(signum: int) -> bool:
    """SIGQUIT, and SIGTERM where ``REMAP_SIGTERM=SIGQUIT`` is in the environment, as in Celery."""
    remapped = os.environ.get("REMAP_SIGTERM", "").upper() == "SIGQUIT"
    return signum == signal.SIGQUIT or (remapped and signum == signal.SIGTERM)


def say(*, cold: bool, signum: int) -> None:
    """Tell whoever watches, as Celery does; from a signal handler, so by one plain write."""
    text = f"worker: {'Cold' if cold else 'Warm'} shutdown (MainProcess)\n"
    if signum == signal.SIGINT and not cold:
        text = f"\nworker: Hitting Ctrl+C again will stop all running tasks!\n{text}"
    try:
        os.write(1, text.encode())
    except OSError:
        pass  # nobody watches
