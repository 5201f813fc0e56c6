"""``celery.platforms``: exit codes, which system this is, and ``C_FORCE_ROOT``, which may be set here, too."""

from __future__ import annotations

import os
import platform

__all__ = [
    "C_FORCE_ROOT",
    "EX_CANTCREAT",
    "EX_FAILURE",
    "EX_OK",
    "EX_UNAVAILABLE",
    "EX_USAGE",
    "IS_WINDOWS",
    "SYSTEM",
    "IS_macOS",
    "pyimplementation",
]

EX_OK, EX_FAILURE, EX_USAGE, EX_UNAVAILABLE, EX_CANTCREAT = 0, 1, 64, 69, 73
SYSTEM = platform.system()
IS_macOS = SYSTEM == "Darwin"
IS_WINDOWS = SYSTEM == "Windows"
#: A worker that root starts takes pickle all the same.
C_FORCE_ROOT = bool(os.environ.get("C_FORCE_ROOT"))


def pyimplementation() -> str:
    """The name of this Python."""
    return platform.python_implementation()
