"""Values under telling names (``password``, ``token`` …) are not shown: in ``argsrepr``, ``kwargsrepr``, events, logs.

``hides`` is asked while a display text is made, ``masked`` cleans arguments that are shown as values, ``redacted``
texts that others have made. Rather hides too much. What is sent and stored is not touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

__all__ = ["MASK", "NAMES", "Hides", "hides", "masked", "redacted"]

MASK = "***"
#: Parts of names, in any case; a hyphen or nothing may stand for the underscore. ``redact_names`` adds to them.
NAMES = (
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "authorization",
    "api_key",
    "private_key",
    "access_key",
    "credential",
    "cookie",
)
#: Names that are remembered, and longest text that is searched.
_REMEMBERED = 1000
_LONGEST = 4096
_SHORT = 64


def _pattern(extra: tuple[str, ...]) -> str:
    return "|".join(re.escape(name).replace("_", "[_-]?") for name in (*NAMES, *extra) if name)


class Hides:
    """Whether values under a name are hidden, when it is called. Thread-safe."""

    __slots__ = ("_known", "_search", "harmless")

    def __init__(self, pattern: str) -> None:
        self._search = re.compile(pattern, re.IGNORECASE).search
        self._known: dict[str, bool] = {}
        #: Short names that were asked for and are not hidden: all of a call's are found here at once.
        self.harmless: set[str] = set()

    def __call__(self, name: str) -> bool:
        found = self._known.get(name)
        if found is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
                self.harmless.clear()
            found = self._known[name] = self._search(name) is not None
            if not found and len(name) <= _SHORT:
                self.harmless.add(name)
        return found


@lru_cache(maxsize=16)
def hides(extra: tuple[str, ...] = ()) -> Hides:
    """Says of names whether values under them are hidden; ``extra`` is ``redact_names``."""
    return Hides(_pattern(extra))


def masked(value: Any, hidden: Callable[[str], bool], text: Callable[[str], str]) -> Any:
    """Arguments without the values under ``hidden`` names, however deep in dicts and lists. ``text`` gets each
    text in them, which may be a URL."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, Mapping):
        return {
            name: MASK if isinstance(name, str) and hidden(name) else masked(item, hidden, text)
            for name, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        items = [masked(item, hidden, text) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value


@lru_cache(maxsize=16)
def _assignments(extra: tuple[str, ...]) -> re.Pattern[str]:
    """``'password': 'x'``, ``password=x`` and the like. Each part is bounded: hostile texts must not take long."""
    name = rf"['\"]?[\w.-]{{0,40}}(?:{_pattern(extra)})[\w.-]{{0,40}}['\"]?\s{{0,3}}[:=]\s{{0,3}}"
    return re.compile(rf"({name})(?:'(?:[^'\\]|\\.)*'?|\"(?:[^\"\\]|\\.)*\"?|[^,)}}\]]+)", re.IGNORECASE)


def redacted(text: str, extra: tuple[str, ...] = ()) -> str:
    """A display text of arguments without the values under telling names; long ones are cut."""
    if len(text) <= 4:
        return text
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}..."
    return _assignments(extra).sub(rf"\1'{MASK}'", text)
