"""The entries of the settings, as a book that schedulers read: ``beat_schedule``, whoever wrote it there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from celeriac.beat.entry import Entry

__all__ = ["Book", "Written"]


class Book(Protocol):
    """Where entries come from. Blocking; raises ``OperationalError`` while its server is away."""

    #: Most seconds between two looks, so that a change is soon seen.
    every: float

    def entries(self) -> tuple[Any, Mapping[str, Entry]]:
        """All entries by name, and the epoch that they are of. Raises ``ImproperlyConfigured`` for one that cannot
        be."""
        ...

    def changed(self, epoch: Any) -> bool:
        """Whether there are others than those of that epoch. Cheap: asked at each look."""
        ...


class Written:
    """Those of the settings alone. The epoch is the mapping itself, which is replaced when one is added."""

    def __init__(self, app: Any, *, every: float = 5.0) -> None:
        self._app = app
        self.every = every
        self._made: tuple[Any, Mapping[str, Entry]] | None = None

    def entries(self) -> tuple[Any, Mapping[str, Entry]]:
        """See ``Book``."""
        given = self._app.conf.beat_schedule or {}
        if self._made is None or self._made[0] is not given:
            made = {name: Entry.from_settings(name, each, self._app) for name, each in given.items()}
            self._made = given, made
        return self._made

    def changed(self, epoch: Any) -> bool:
        """See ``Book``."""
        given = self._app.conf.beat_schedule
        return given is not epoch and bool(given or epoch)
