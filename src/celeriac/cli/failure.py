"""From an exception to one line on standard error and an exit code.

| code | meaning |
|---|---|
| 0 | done; for a worker: a warm shutdown |
| 1 | failed: the task, the broker, the operation; for a worker: a cold shutdown |
| 2 | the command line, the configuration or an import is wrong |
| 3 | worker: the broker cannot be reached at the start, and ``broker_connection_retry_on_startup`` is off |
| 69 | no worker answered (``EX_UNAVAILABLE``) |
| 73 | the pid file belongs to a process that lives (``EX_CANTCREAT``) |
| 130 | interrupted |
"""

from __future__ import annotations

import os
import sys
import traceback

import click

from celeriac.exceptions import CeleryCommandException, ImproperlyConfigured, QueueNotFound

__all__ = ["BadImport", "Refused", "explain", "report"]

FAILED, USAGE, INTERRUPTED = 1, 2, 130
#: The directory of this package's files.
_PACKAGE = __file__.removesuffix(f"cli{os.sep}failure.py")


class Refused(click.UsageError):
    """Something that is written correctly and cannot be had; the message says what to do."""


class BadImport(Exception):
    """Importing the user's modules raised ``__cause__``."""


def explain(error: BaseException) -> tuple[str, int]:
    """The line to show (empty: none) and the exit code."""
    match error:
        case Refused():
            return error.message, USAGE
        case click.UsageError():
            return _usage(error), USAGE
        case click.exceptions.Abort() | KeyboardInterrupt():
            return "interrupted", INTERRUPTED
        case click.ClickException():
            return error.format_message(), error.exit_code
        case CeleryCommandException():
            return str(error), error.exit_code
        case ImproperlyConfigured():
            return str(error), USAGE
        case QueueNotFound():
            return str(error.args[0]), USAGE
        case BadImport():
            return f"{error}: {_foreign(error.__cause__)}", USAGE
        case BrokenPipeError():
            return "", FAILED
        case _:
            if type(error).__module__.startswith("celeriac."):
                return str(error) or "no message", FAILED
            # A configuration is imported when it is first read.
            return _foreign(error), USAGE if isinstance(error, (ImportError, SyntaxError)) else FAILED


def report(error: BaseException, *, debug: bool = False) -> int:
    """Print the line, the traceback before it with ``debug``; returns the exit code."""
    line, code = explain(error)
    if debug:
        traceback.print_exception(error)
    if line:
        print(f"Error: {_one_line(line)}", file=sys.stderr)
    return code


def _usage(error: click.UsageError) -> str:
    text = error.format_message().rstrip(".")
    return f"{text}; {error.ctx.command_path} --help shows all" if error.ctx is not None else text


def _foreign(error: BaseException | None) -> str:
    """An error of the user's code: what, and the line where it happened."""
    if isinstance(error, SyntaxError):
        where, text = f" ({error.filename}, line {error.lineno})", error.msg
    else:
        # The last frame that is neither importlib's nor ours.
        frames = traceback.extract_tb(error.__traceback__ if error is not None else None)
        outside = [frame for frame in frames if not frame.filename.startswith(("<frozen", _PACKAGE))]
        where = f" ({outside[-1].filename}, line {outside[-1].lineno})" if outside else ""
        text = str(error) or "no message"
    step = "--debug shows the traceback"
    missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if missing in ("celery", "kombu") and missing not in sys.modules:
        step = "write celeriac instead, or add --celery-names (docs/how-to/coming-from-celery.md)"
    return f"{type(error).__name__}: {text}{where}; {step}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
