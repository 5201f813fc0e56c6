"""Keeps unit tests away from the network (what connects belongs into tests/integration or tests/conformance), and gives
those that set up logging one of their own."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from celeriac.app import log
from celeriac.app.lines import name_process
from celeriac.app.log import Logging

_LOGGERS = (None, "celery", "celeriac", "celery.task", "celery.redirected")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that connects to anything; socket pairs and event loops still work."""

    def refuse(self: socket.socket, address: Any) -> None:
        raise AssertionError(f"a unit test connects to {address!r}: move it to tests/integration")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)


@pytest.fixture
def pristine_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No handlers at the start, and everything as it was at the end."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    kept = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers[:] = []
        logger.setLevel(logging.NOTSET)
    loggers[0].setLevel(logging.WARNING)
    monkeypatch.setattr(Logging, "_setup", False)
    for name in ("CELERY_LOG_LEVEL", "CELERY_LOG_FILE"):
        monkeypatch.setenv(name, "")
    yield
    logging.captureWarnings(False)
    log._Redirect.level = 0
    name_process("MainProcess")
    for logger, handlers, level, propagate in kept:
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate
