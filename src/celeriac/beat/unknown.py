"""Whether there are workers that know the tasks of the entries: asked over remote control, on a thread beside."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from celeriac.beat.entry import Entry
from celeriac.codec.escape import one_line
from celeriac.exceptions import CeleryError
from celeriac.model.ledger import Change
from celeriac.ports import BlockingLedger

__all__ = ["Unknown"]

logger = logging.getLogger("celery.beat")

#: Seconds until the first question, so that workers of the same deploy are up; between two; and for the answers.
_FIRST: Final = 20.0
_EVERY: Final = 300.0
_TIMEOUT: Final = 2.0
_ASKED: Final = "beat:asked"


class Unknown:
    """Warns at the start of entries whose tasks this app does not have, and later once of each whose task no worker
    knows; says when one does."""

    def __init__(self, app: Any, ledger: BlockingLedger, first: float = _FIRST) -> None:
        self._app = app
        self._ledger = ledger
        self._next = time.monotonic() + first
        self._thread: threading.Thread | None = None
        self._told: set[str] = set()

    def look(self, entries: Callable[[], Mapping[str, Entry]]) -> None:
        """Ask when that is due; returns at once."""
        if time.monotonic() < self._next or (self._thread is not None and self._thread.is_alive()):
            return
        self._next = time.monotonic() + _EVERY
        wanted = {name: entry.task for name, entry in entries().items() if entry.enabled}
        self._thread = threading.Thread(target=self._ask, args=(wanted,), name="beat-unknown", daemon=True)
        self._thread.start()

    def begin(self, entries: Mapping[str, Entry]) -> None:
        """Tell of the tasks that are not even in this app: its workers will hardly know them."""
        known = self._app.tasks
        for name, entry in sorted(entries.items()):
            if entry.task not in known:
                logger.warning(
                    "beat: The task %s of entry %r is not registered in this app; it is sent by its name",
                    one_line(entry.task),
                    one_line(name),
                )

    def _ask(self, wanted: Mapping[str, str]) -> None:
        try:
            # One of all schedulers asks: a hundred workers with -B would each get a hundred answers.
            if not self._ledger.change([Change(_ASKED, b"1", None, _EVERY - 2 * _TIMEOUT)], timeout=_TIMEOUT)[0]:
                return
            answers = self._app.control.inspect(timeout=_TIMEOUT).registered()
        except (CeleryError, OSError) as error:
            logger.debug("beat: Cannot ask the workers which tasks they know: %s", error)
            return
        if answers:  # without any nobody can say
            self.judge(wanted, {name.partition(" [")[0] for names in answers.values() for name in names})

    def judge(self, wanted: Mapping[str, str], known: set[str]) -> None:
        """Tell of the entries whose tasks are not among those that are known, once each."""
        missing = {name for name, task in wanted.items() if task not in known}
        for name in sorted(missing - self._told):
            logger.warning(
                "beat: No worker that answers knows the task %s of entry %r: is it imported?",
                one_line(wanted[name]),
                one_line(name),
            )
        for name in sorted(self._told - missing):
            logger.info("beat: The task of entry %r is known now", one_line(name))
        self._told = missing
