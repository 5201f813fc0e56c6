"""The places a value may come from, and the names it may stand under there.

From the top: changes made through the app, added defaults, the user's configuration. Below them is the table. Knows
nothing of kinds, warnings and caching: that is ``settings.py``, its only user.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from celeriac.conf.setting import Setting
from celeriac.conf.source import MISSING, Source
from celeriac.conf.table import NEW_NAMES, OLD_NAMES, SETTINGS
from celeriac.exceptions import ImproperlyConfigured

__all__ = ["Layers"]


class Layers:
    """A stack of places, searched from the top."""

    __slots__ = ("_prefixed", "added", "changes", "prefix", "source")

    def __init__(self, namespace: str | None = None) -> None:
        #: Written by the program; known settings stand under their new names.
        self.changes: dict[str, Any] = {}
        #: Defaults that the program added, the latest first.
        self.added: list[Source] = []
        #: The user's configuration.
        self.source: Source | None = None
        self.prefix = ""
        self._prefixed: dict[str, str] = {}
        self.set_namespace(namespace)

    def set_namespace(self, namespace: str | None) -> None:
        """Let ``NAMESPACE_<NAME>`` stand for each setting; changes already written under such names are found too."""
        self.prefix = f"{namespace.rstrip('_')}_" if namespace else ""
        self._prefixed = {self._under_prefix(name): name for name in SETTINGS} if self.prefix else {}
        for key in [key for key in self.changes if key in self._prefixed]:
            self.changes[self._prefixed[key]] = self.changes.pop(key)

    def canonical(self, key: str) -> str | None:
        """The setting that ``key`` stands for, whichever of its names it is; None: it is no setting of ours."""
        if key in SETTINGS:
            return key
        return self._prefixed.get(key) or NEW_NAMES.get(key)

    def find(self, setting: Setting) -> tuple[Any, str]:
        """The topmost value of a setting and where it stands; MISSING when nobody has set it."""
        name = setting.name
        if name in self.changes:
            return self.changes[name], "app.conf"
        names = (self._under_prefix(name), name) if self.prefix else (name,)
        if setting.old_name:
            names = (*names, setting.old_name)
        for place in self._places():
            for key in names:
                value = place.lookup(key)
                if value is not MISSING:
                    return value, place.origin
        return MISSING, ""

    def find_other(self, key: str) -> Any:
        """The topmost value of a key that is no setting, or MISSING."""
        if key in self.changes:
            return self.changes[key]
        names = (self._under_prefix(key), key) if self.prefix else (key,)
        for place in self._places():
            for name in names:
                value = place.lookup(name)
                if value is not MISSING:
                    return value
        return MISSING

    def other_names(self) -> Iterator[tuple[str, str]]:
        """Keys that are no settings, each once, with the place where it stands."""
        seen = set()
        places: list[tuple[str, Iterable[str]]] = [("app.conf", list(self.changes))]
        places += [(place.origin, place.names()) for place in self._places()]
        for origin, names in places:
            for key in names:
                if key not in seen and self.canonical(key) is None:
                    seen.add(key)
                    yield key, origin

    def refuse_mixture(self, written: Iterable[str]) -> None:
        """Raise when the configuration has settings under both old and new names.

        Without a configuration ``written`` is looked at, the names under which the program has made changes. A setting
        given under both of its names is no mixture, nor is anything within a namespace.

        Raises:
            ImproperlyConfigured: names the offenders, those of the smaller half.
        """
        if self.prefix:
            return
        names = set(written if self.source is None else self.source.names())
        new = {name for name in names & SETTINGS.keys() if OLD_NAMES.get(name) not in names and name in OLD_NAMES}
        old = {name for name in names & NEW_NAMES.keys() if NEW_NAMES[name] not in names}
        if not new or not old:
            return
        renames = {name: OLD_NAMES[name] for name in new} if len(old) > len(new) else {n: NEW_NAMES[n] for n in old}
        listed = ", ".join(f"{name} to {renames[name]}" for name in sorted(renames))
        origin = "app.conf" if self.source is None else self.source.origin
        advice = " (or all the others to their new names)" if len(old) > len(new) else ""
        raise ImproperlyConfigured(f"{origin} mixes old and new setting names: rename {listed}{advice}")

    def _places(self) -> Iterable[Source]:
        return self.added if self.source is None else (*self.added, self.source)

    def _under_prefix(self, name: str) -> str:
        key = name if name.startswith(self.prefix) else self.prefix + name
        return key.upper() if self.prefix.isupper() else key
