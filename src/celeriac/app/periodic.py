"""Entries of ``beat_schedule`` from ``app.add_periodic_task``."""

from __future__ import annotations

from typing import Any

from celeriac.canvas import Signature

__all__ = ["periodic_entry"]


def periodic_entry(
    schedule: Any, sig: Any, args: Any, kwargs: Any, name: str | None, options: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Key and entry for sending ``sig`` (a signature or a task) on ``schedule``, with more arguments and options."""
    sig = sig.clone(args, kwargs) if isinstance(sig, Signature) else Signature(sig.name, args, kwargs)
    entry = {
        "schedule": schedule,
        "task": sig.task,
        "args": sig.args,
        "kwargs": sig.kwargs,
        "options": {**sig.options, **options},
    }
    return name or repr(sig), entry
