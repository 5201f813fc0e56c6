"""What a node says of a server that is away: once, by one of its processes, and once that it is back.

All processes of a node meet an outage in the same moment. Whoever is first to say so has the word until its own server
answers; the others try as patiently, and tell at level debug. Nothing is ever silent for that: one process that is
alone cut off finds the word free, and the kernel frees that of one that dies. Used wherever a worker tries again.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable
from enum import IntEnum

from celeriac.model.backoff import Backoff

__all__ = ["About", "Outage", "Word"]


class About(IntEnum):
    """What does not work: each has a word of its own. A process has one ``Outage`` of each at a time."""

    #: The broker is not reached: nothing is claimed or maintained.
    BROKER = 0
    #: The result store is not reached, at the start.
    STORE = 1
    #: What has ended is not written, to the one or the other.
    WRITING = 2


class Word:
    """Who of a node may speak: locks on bytes of a file without a name, made by the supervisor before it forks."""

    def __init__(self) -> None:
        self._file = os.memfd_create("celeriac-word")
        self._known = _identity(self._file)

    def take(self, about: About) -> bool:
        """Whether this process has the word. True where nobody can say: rather twice than never."""
        try:
            if _identity(self._file) != self._known:
                return True  # a task has closed it, and the number is another file's
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, about)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:
            return True
        return True

    def give(self, about: About) -> None:
        """Let another have it."""
        try:
            if _identity(self._file) == self._known:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, about)
        except OSError:
            pass

    def close(self) -> None:
        """Close it, in this process only."""
        os.close(self._file)


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


class Outage(Backoff):
    """A backoff that knows whether its process is the one to tell. Without a ``word`` it always is."""

    def __init__(self, about: About, *, rand: Callable[[], float], word: Word | None = None) -> None:
        super().__init__(rand=rand)
        self._about = about
        self._word = word
        #: The failure with which this process got the word; 0: it has not got it.
        self._since = 0
        #: Something was said of this outage.
        self.told = False

    def next(self) -> float:
        """The next delay."""
        delay = super().next()
        if not self._since and (self._word is None or self._word.take(self._about)):
            self._since = self.failures
        return delay

    @property
    def loud(self) -> bool:
        """As ``Backoff.loud``, counted from when this process got the word. Who gets it in the middle of an outage
        tries once more in silence: it is mostly over."""
        if not self._since:
            return False
        count = self.failures - self._since + 1
        return (count & (count - 1) == 0 or count % 64 == 0) and (count > 1 or self._since == 1)

    def tell(self, logger: logging.Logger, text: str, *values: object) -> None:
        """Say what failed: an error where it is this process that tells, and it is time to."""
        loud = self.loud
        self.told = self.told or loud
        logger.log(logging.ERROR if loud else logging.DEBUG, text, *values)

    def over(self, logger: logging.Logger, text: str) -> None:
        """It works again: say so where the outage was told, ``text`` with the number of failed tries in it."""
        if self.failures:
            logger.log(logging.WARNING if self.told else logging.DEBUG, text, self.failures)
        self.reset()

    def reset(self) -> None:
        """It worked: another may speak."""
        if not self.failures:
            return
        super().reset()
        self.told = False
        if self._since:
            self._since = 0
            if self._word is not None:
                self._word.give(self._about)
