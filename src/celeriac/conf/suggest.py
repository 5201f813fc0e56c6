"""Guesses which setting a name was meant to be.

Errs on the side of silence: projects keep keys of their own beside their settings. Called by ``settings.py`` for names
that are no settings.
"""

from __future__ import annotations

from celeriac.conf.table import NEW_NAMES, SETTINGS

__all__ = ["closest"]

# How alike two names have to be, on difflib's scale: one letter in eight, or a plural.
_ALIKE = 0.87

# Upper-case names are Celery's only under these prefixes: a module's own REDIS_HOST or DATABASE_URL is common.
_OLD_PREFIXES = ("CELERY", "BROKER_", "TASK_", "WORKER_", "RESULT_", "BEAT_")


def closest(name: str, prefix: str = "") -> str | None:
    """The name that should have been written instead of ``name``; None: it is probably the project's own.

    ``prefix`` is the namespace with its underscore (``CELERY_``), under which new names are written.
    """
    if prefix:
        if not name.upper().startswith(prefix.upper()):
            return None
        found = _match(name[len(prefix) :].lower(), list(SETTINGS))
        return None if found is None else prefix + (found.upper() if prefix.isupper() else found)
    if name.islower():
        return _match(name, list(SETTINGS))
    if not name.isupper() or not name.startswith(_OLD_PREFIXES):
        return None
    without = name.removeprefix("CELERY_").lower()
    if without in SETTINGS:
        # CELERY_TASK_ACKS_LATE without namespace="CELERY", or TASK_ACKS_LATE.
        return without
    return _match(name, list(NEW_NAMES)) or _match(without, list(SETTINGS))


def _match(name: str, candidates: list[str]) -> str | None:
    # Short names resemble each other by chance.
    if len(name) < 6:
        return None
    # Loaded only where there is something to complain about.
    from difflib import get_close_matches

    found = get_close_matches(name, candidates, n=1, cutoff=_ALIKE)
    return found[0] if found else None
