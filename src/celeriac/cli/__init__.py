"""The command line: ``celeriac`` and ``python -m celeriac``.

Thin: each command parses, calls the layers below, prints. Commands are loaded when they are named, and nothing is
imported before it is needed: ``celeriac --help`` imports no app and no worker.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["main", "start"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code (the table is in ``failure.py``). ``argv`` without the program's name."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--version"]:  # without 100 ms for click
        from celeriac import __version__

        print(f"celeriac {__version__}")
        return 0
    return _run(arguments, None)


def start(app: Any, argv: Sequence[str]) -> int:
    """Run a command for an app that is at hand (``app.start()``); returns the exit code."""
    return _run(list(argv), app)


def _run(arguments: list[str], app: Any) -> int:
    from celeriac.cli.root import run

    return run(arguments, app)
