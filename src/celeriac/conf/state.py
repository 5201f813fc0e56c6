"""What ``app.conf`` holds besides values: where they come from and how far loading has got.

Data only; ``settings.py`` is its only user.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from celeriac.conf.layers import Layers
from celeriac.conf.remarks import Remarks

__all__ = ["Hook", "Observer", "State"]

Hook = Callable[[], object]
Observer = Callable[[frozenset[str]], object]


class State:
    """What a Settings holds besides values; its own attributes are settings, so this is kept apart."""

    __slots__ = (
        "after_load",
        "before_load",
        "defaults",
        "layers",
        "loaded",
        "loading",
        "lock",
        "observers",
        "overridable",
        "preset",
        "remarks",
        "silent",
        "target",
        "written",
    )

    def __init__(self, namespace: str | None, target: Any, silent: bool) -> None:
        self.layers = Layers(namespace)
        self.target = target
        self.silent = silent
        self.before_load: Hook | None = None
        self.after_load: Hook | None = None
        self.loaded = False
        self.loading = False
        self.lock = threading.RLock()
        self.observers: list[Observer] = []
        #: Values of the settings that the environment overrides.
        self.overridable: dict[str, Any] = {}
        #: What add_defaults was given.
        self.defaults: list[Any] = []
        #: Changes as they were when the configuration was loaded.
        self.preset: dict[str, Any] = {}
        self.remarks = Remarks()
        #: Names under which changes were written before loading.
        self.written: set[str] = set()

    @property
    def settled(self) -> bool:
        """Loaded, or being loaded by this thread."""
        return self.loaded or self.loading
