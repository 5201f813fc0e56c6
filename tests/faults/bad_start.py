"""Included by workers whose children are not to come up: what they do instead is in a file beside the journal."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celeriac.signals import worker_process_init
from tests.faults.project import JOURNAL

__all__ = ["how_to_start"]


def how_to_start(folder: Path) -> Path:
    """``hang`` or ``exit``; without that file children start as ever."""
    return folder / "start"


def _start(**kwargs: Any) -> None:
    path = how_to_start(Path(os.environ[JOURNAL]).parent)
    how = path.read_text() if path.exists() else ""
    if how == "hang":
        time.sleep(1000)
    elif how == "exit":
        os._exit(7)


if JOURNAL in os.environ:
    worker_process_init.connect(_start, weak=False)
