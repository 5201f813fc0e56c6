"""Features under simulation, one a file: tasks that use it, random work with it, and what must always hold of it."""

from __future__ import annotations

from collections.abc import Mapping

from tests.simulation.themes.dead import DeadLetters
from tests.simulation.themes.keys import Keys
from tests.simulation.themes.limits import Limits
from tests.simulation.themes.rules import Rules
from tests.simulation.themes.staged import Staged
from tests.simulation.themes.theme import Theme

__all__ = ["THEMES", "Theme"]

#: By name.
THEMES: Mapping[str, type[Theme]] = {
    "dead letters": DeadLetters,
    "keys": Keys,
    "limits": Limits,
    "rules": Rules,
    "staged": Staged,
}
