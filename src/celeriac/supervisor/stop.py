"""What a signal to a node means: warm or cold."""

from __future__ import annotations

import os
import signal

__all__ = ["means_cold"]


def means_cold(signum: int) -> bool:
    """SIGQUIT, and SIGTERM where ``REMAP_SIGTERM=SIGQUIT`` is in the environment, as in Celery."""
    remapped = os.environ.get("REMAP_SIGTERM", "").upper() == "SIGQUIT"
    return signum == signal.SIGQUIT or (remapped and signum == signal.SIGTERM)
