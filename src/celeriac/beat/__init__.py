"""Beat: what sends periodic tasks when they are due, any number of schedulers together, each slot once.

Loaded by schedulers alone: an app with periodic tasks has their settings, and nothing of this. Public names come from
here; where they live is this package's matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celeriac.beat.entry import Entry
    from celeriac.beat.lazy import BeatLazyFunc

__all__ = ["BeatLazyFunc", "Entry"]

#: Where the public names live; loaded at first use.
_HOMES = {
    "BeatLazyFunc": "lazy",
    "Entry": "entry",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
