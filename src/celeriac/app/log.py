"""Logging of a node (``app.log``), under Celery's names and with its signals.

The root logger is left alone where the app has configured it: its handlers get our lines too. Where it has no handler,
one is put there, as Celery does. Any receiver of ``setup_logging`` switches all of this off. Called by the command line
before the forks; ``enter_process`` by each process after them.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, TextIO, cast

from celeriac import signals
from celeriac.app.lines import LineFormatter, LineHandler, Printed, TaskFormatter, name_process
from celeriac.app.nodenames import expand
from celeriac.exceptions import ImproperlyConfigured

__all__ = ["Logging", "TaskFormatter", "enter_process", "get_logger", "get_task_logger", "level_of"]

#: Trees of loggers whose lines are ours.
_OURS = ("celery", "celeriac")
_TASK = "celery.task"
_REDIRECTED = "celery.redirected"
#: The format that is none of logging's: a JSON object a line.
JSON = "json"


def level_of(level: Any) -> int:
    """A log level given by name, in any case, or by number. Raises ``ImproperlyConfigured``."""
    if isinstance(level, int):
        return level
    text = str(level).strip().upper()
    names = logging.getLevelNamesMapping()
    if text.isdigit():
        return int(text)
    if text not in names:
        raise ImproperlyConfigured(
            f"unknown log level {level!r}: use debug, info, warning, error, critical or a number"
        )
    return names[text]


def get_logger(name: str) -> logging.Logger:
    """The logger ``name``, under the ``celery`` loggers unless it is one of ours."""
    return _under(logging.getLogger(name), logging.getLogger("celery"))


def get_task_logger(name: str) -> logging.Logger:
    """A logger for tasks: its lines carry the task's name and id (``worker_task_log_format``)."""
    if name in {"celery", _TASK}:
        raise RuntimeError(f"logger name {name!r} is reserved: use get_task_logger(__name__)")
    return _under(logging.getLogger(name), logging.getLogger(_TASK))


def _under(logger: logging.Logger, parent: logging.Logger) -> logging.Logger:
    ancestor: logging.Logger | None = logger
    while ancestor is not None:
        if ancestor is parent:
            return logger
        ancestor = ancestor.parent
    logger.parent = parent
    return logger


class _Redirect:
    """What ``enter_process`` does with prints: the level of their lines; 0: leave them."""

    level = 0


def enter_process(name: str, index: int = 0, *, tasks: bool = False) -> None:
    """A process of a node begins: name its log lines; with ``tasks``, log what it prints if that was set up."""
    name_process(name, index)
    if _Redirect.level and tasks:
        redirect_stdouts(_Redirect.level)


def redirect_stdouts(level: int) -> None:
    """From now on, what this process prints becomes log lines."""
    logger = logging.getLogger(_REDIRECTED)
    if not isinstance(sys.stdout, Printed):
        sys.stdout = cast(TextIO, Printed(logger, level, sys.__stdout__ or sys.stdout))
    if not isinstance(sys.stderr, Printed):
        sys.stderr = cast(TextIO, Printed(logger, level, sys.__stderr__ or sys.stderr))


class Logging:
    """Sets logging up, once per process."""

    _setup = False

    def __init__(self, app: Any) -> None:
        self.app = app
        self._handlers: list[logging.Handler] = []

    @property
    def already_setup(self) -> bool:
        """Somebody has set it up in this process."""
        return Logging._setup

    @already_setup.setter
    def already_setup(self, value: bool) -> None:
        Logging._setup = value

    def setup(
        self,
        loglevel: Any = None,
        logfile: Any = None,
        redirect_stdouts: bool = False,
        redirect_level: Any = "WARNING",
        colorize: bool | None = None,
        hostname: str | None = None,
    ) -> Any:
        """Set everything up; ``logfile`` is a path, with ``%``-letters when ``hostname`` is given.

        ``redirect_stdouts`` has children log what they print. Returns the receivers of ``setup_logging`` that did it
        instead, if any. Raises ``ImproperlyConfigured`` for a level or file that cannot be.
        """
        level = level_of(logging.WARNING if loglevel is None else loglevel)
        handled = self.setup_logging_subsystem(level, logfile, colorize=colorize, hostname=hostname)
        if not handled and redirect_stdouts:
            _Redirect.level = level_of(redirect_level or "WARNING")
        # As in Celery: programs that tasks start read them.
        os.environ["CELERY_LOG_LEVEL"] = str(level)
        os.environ["CELERY_LOG_FILE"] = str(logfile or "")
        logging.captureWarnings(True)
        return handled

    def setup_logging_subsystem(
        self,
        loglevel: Any = None,
        logfile: Any = None,
        format: str | None = None,  # noqa: A002 - Celery's name
        colorize: bool | None = None,
        hostname: str | None = None,
        **_celery: Any,
    ) -> Any:
        """The loggers, with the signals ``setup_logging``, ``after_setup_logger`` and ``after_setup_task_logger``."""
        if Logging._setup:
            return None
        conf = self.app.conf
        level = level_of(logging.WARNING if loglevel is None else loglevel)
        format = format or conf.worker_log_format  # noqa: A001
        colorize = self.supports_color(colorize, logfile)
        said = {"loglevel": level, "logfile": logfile, "format": format, "colorize": colorize}
        responses = signals.setup_logging.send(sender=None, **said)
        for _, response in responses:
            if isinstance(response, Exception):
                raise response
        Logging._setup = True
        if responses:
            return responses
        formatter = _formatter(LineFormatter, format, conf.worker_log_datefmt, colorize)
        root = logging.getLogger()
        if conf.worker_hijack_root_logger:
            for name in (None, "celery", _TASK, _REDIRECTED):
                logging.getLogger(name).handlers.clear()
        self._configure(root, level, self._handler(logfile, hostname, formatter), logfile)
        signals.after_setup_logger.send(sender=None, logger=root, **said)
        self.setup_task_loggers(level, logfile, colorize=colorize, hostname=hostname)
        return None

    @staticmethod
    def _configure(root: logging.Logger, level: int, handler: logging.Handler, logfile: Any) -> None:
        if not root.handlers:
            root.addHandler(handler)
            root.setLevel(level)
            return
        for name in _OURS:
            ours = logging.getLogger(name)
            ours.setLevel(level)
            if logfile:
                # It was asked for; the app's own handlers have their lines as well.
                ours.addHandler(handler)

    def setup_task_loggers(
        self,
        loglevel: Any = None,
        logfile: Any = None,
        format: str | None = None,  # noqa: A002 - Celery's name
        colorize: bool | None = None,
        hostname: str | None = None,
        propagate: bool = False,
        **_celery: Any,
    ) -> logging.Logger:
        """The logger above those of ``get_task_logger``."""
        conf = self.app.conf
        level = level_of(logging.WARNING if loglevel is None else loglevel)
        format = format or conf.worker_task_log_format  # noqa: A001
        colorize = self.supports_color(colorize, logfile)
        logger = logging.getLogger(_TASK)
        logger.setLevel(level)
        if not logger.handlers and self._root_is_ours():
            datefmt = conf.worker_task_log_datefmt or conf.worker_log_datefmt
            if conf.worker_log_format == JSON:
                format = JSON  # noqa: A001 - a log is JSON as a whole
            formatter = _formatter(TaskFormatter, format, datefmt, colorize)
            logger.addHandler(self._handler(logfile, hostname, formatter))
            logger.propagate = propagate
        signals.after_setup_task_logger.send(
            sender=None, logger=logger, loglevel=level, logfile=logfile, format=format, colorize=colorize
        )
        return logger

    @staticmethod
    def _root_is_ours() -> bool:
        return any(isinstance(handler, LineHandler) for handler in logging.getLogger().handlers)

    def supports_color(self, colorize: bool | None = None, logfile: Any = None) -> bool:
        """Colours: as ``colorize`` or ``worker_log_color`` say, else on a terminal; never in files."""
        if logfile:
            return False
        wanted = self.app.conf.worker_log_color if colorize is None else colorize
        return bool(sys.stderr is not None and sys.stderr.isatty() if wanted is None else wanted)

    @staticmethod
    def _handler(logfile: Any, hostname: str | None, formatter: logging.Formatter) -> logging.Handler:
        if not logfile or logfile == "-":
            handler = LineHandler()
        else:
            template = os.path.abspath(os.fspath(logfile))
            try:
                handler = LineHandler(lambda index: _named(template, hostname, index))
            except OSError as error:
                raise ImproperlyConfigured(f"cannot write the log file {logfile}: {error.strerror}") from error
        handler.setFormatter(formatter)
        return handler

    def redirect_stdouts(self, loglevel: Any = None, name: str = _REDIRECTED) -> None:
        """From now on, what this process prints becomes log lines of ``celery.redirected``."""
        redirect_stdouts(level_of(loglevel or "WARNING"))

    def get_default_logger(self, name: str = "celery", **_celery: Any) -> logging.Logger:
        """The logger ``name``."""
        return get_logger(name)


def _formatter(lines: type[LineFormatter], format: str, datefmt: str | None, colors: bool) -> logging.Formatter:  # noqa: A002
    if format != JSON:
        return lines(format, datefmt, colors=colors)
    from celeriac.app.json_lines import JsonFormatter

    return JsonFormatter()


def _named(template: str, hostname: str | None, index: int) -> str:
    return expand(template, hostname, index=index) if hostname and "%" in template else template
