"""Log lines: how they are written, formatted, and made of what tasks print.

Knows the standard library's logging and which task is current; no settings. Set up by ``log.py``, in every process of a
node: it survives forks, because a line is one write and no lock is taken. (A soft time limit that is raised inside a
handler would leave the standard handlers' lock taken for ever.)
"""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, TextIO

from celeriac.client.current import request_var
from celeriac.codec.escape import block, one_line

__all__ = ["LineFormatter", "LineHandler", "Printed", "TaskFormatter", "name_process", "process_index"]

_RESET = "\033[0m"
_COLORS = {
    logging.DEBUG: "\033[1;34m",
    logging.WARNING: "\033[1;33m",
    logging.ERROR: "\033[1;31m",
    logging.CRITICAL: "\033[1;35m",
}


class _Process:
    """Who this process is among those of its node."""

    name = "MainProcess"
    index = 0


def name_process(name: str, index: int = 0) -> None:
    """Say which process of a node this is: ``name`` appears in its log lines, ``index`` in its file names."""
    _Process.name, _Process.index = name, index


def process_name(known: str | None) -> str | None:
    """The name of this process in log lines; ``known`` is logging's, which knows nothing of our processes."""
    return _Process.name if known == "MainProcess" else known


def process_index() -> int:
    """0 in the main process and the agent, else the number of the child, from 1."""
    return _Process.index


class LineHandler(logging.Handler):
    """Writes each record at once, by one call of the operating system.

    To the stream ``sys.stderr`` as it is now, or to a file: ``path(index)`` names it for a process. A file that was
    renamed or removed is opened anew (log rotation).
    """

    def __init__(self, path: Callable[[int], str] | None = None) -> None:
        super().__init__()
        self._path = path
        self._descriptor = -1
        self._opened = ""
        self._identity: tuple[int, int] | None = None
        if path is not None:
            self._reopen(path(process_index()))

    def createLock(self) -> None:  # noqa: N802 - logging's name
        """None is needed: see the module's docstring."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """As the base class, without its lock."""
        found: Any = self.filter(record)
        if found:
            self.emit(found if isinstance(found, logging.LogRecord) else record)
        return bool(found)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line. A log that cannot be written does not stop a worker."""
        try:
            line = self.format(record) + "\n"
        except Exception:  # noqa: BLE001 - arguments that do not fit the message
            self.handleError(record)
            return
        try:
            self._write(line)
        except (OSError, ValueError):
            pass  # the disk is full, the terminal is gone, the stream is closed

    def _write(self, line: str) -> None:
        if self._path is None:
            stream = sys.stderr
            if stream is None:
                return
            try:
                descriptor = stream.fileno()
            except (OSError, AttributeError, ValueError):  # a test's stream
                stream.write(line)
                return
        else:
            descriptor = self._current(self._path)
        write_all(descriptor, line.encode("utf-8", "backslashreplace"))

    def _current(self, path: Callable[[int], str]) -> int:
        name = path(process_index())
        try:
            status = os.stat(name)
            fresh = name == self._opened and (status.st_dev, status.st_ino) == self._identity
        except FileNotFoundError:
            fresh = False
        if not fresh:
            self._reopen(name)
        return self._descriptor

    def _reopen(self, name: str) -> None:
        descriptor = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        status = os.fstat(descriptor)
        old, self._descriptor = self._descriptor, descriptor
        self._opened, self._identity = name, (status.st_dev, status.st_ino)
        if old >= 0:
            os.close(old)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor, self._opened = -1, ""
        super().close()


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, to descriptors that do not block too."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            select.select([], [descriptor], [], 1.0)


class LineFormatter(logging.Formatter):
    """Celery's line: ``[2030-01-02 03:04:05,678: INFO/MainProcess] text``, with colours on request."""

    def __init__(self, fmt: str, datefmt: str | None = None, *, colors: bool = False) -> None:
        super().__init__(fmt, datefmt)
        self._colors = colors
        self._second = -1
        self._text = ""

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record."""
        record.processName = process_name(record.processName)
        line = super().format(record)
        color = _COLORS.get(record.levelno) if self._colors else None
        return f"{color}{line}{_RESET}" if color else line

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """The traceback, indented: what is in an exception cannot look like a record of its own."""
        return block(super().formatException(ei))

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        """The time; a second is put into words once."""
        if datefmt is not None:
            return super().formatTime(record, datefmt)
        second = int(record.created)
        if second != self._second:
            self._text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
            self._second = second
        return f"{self._text},{int(record.msecs):03d}"


class TaskFormatter(LineFormatter):
    """Fills ``%(task_name)s`` and ``%(task_id)s`` with those of the task that runs, ``???`` outside of tasks."""

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record."""
        request = request_var.get()
        if request is not None:
            record.task_id, record.task_name = one_line(request.id), one_line(request._task.name)
        else:
            record.__dict__.setdefault("task_id", "???")
            record.__dict__.setdefault("task_name", "???")
        return super().format(record)


class _Line(threading.local):
    text = ""
    busy = False


class Printed:
    """Stands for ``sys.stdout`` or ``sys.stderr`` in a worker: each line printed becomes a log line.

    A line is complete at its end or at ``flush()``. What is printed while a line is being logged goes to the stream
    itself, else a handler that prints would call itself for ever.
    """

    mode = "w"
    encoding = "utf-8"
    errors = "backslashreplace"
    newlines = None
    name = "<logged>"

    def __init__(self, logger: logging.Logger, level: int, stream: TextIO) -> None:
        self._logger = logger
        self._level = level
        self._stream = stream
        self._line = _Line()
        self._closed = False

    def write(self, data: str | bytes) -> int:
        """Take text; complete lines are logged."""
        text = data.decode("utf-8", "replace") if isinstance(data, bytes) else str(data)
        line = self._line
        if self._closed:
            return 0
        if line.busy:
            return self._stream.write(text)
        *complete, line.text = (line.text + text).split("\n")
        for each in complete:
            self._log(each)
        return len(data)

    def _log(self, text: str) -> None:
        if not text.strip():
            return
        self._line.busy = True
        try:
            self._logger.log(self._level, "%s", text.rstrip())
        finally:
            self._line.busy = False

    def writelines(self, lines: Iterable[Any]) -> None:
        """``write`` each."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Log what has no end of line yet."""
        text, self._line.text = self._line.text, ""
        self._log(text)

    def close(self) -> None:
        """Take nothing any more."""
        self.flush()
        self._closed = True

    @property
    def closed(self) -> bool:
        """After ``close``."""
        return self._closed

    def isatty(self) -> bool:
        """Never."""
        return False

    def writable(self) -> bool:
        """Always."""
        return True

    def readable(self) -> bool:
        """Never."""
        return False

    def seekable(self) -> bool:
        """Never."""
        return False

    def fileno(self) -> int:
        """That of the stream it stands for: subprocesses write there."""
        return self._stream.fileno()

    def __enter__(self) -> Printed:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def buffer(self) -> Any:
        """Bytes go to the stream it stands for."""
        return self._stream.buffer
