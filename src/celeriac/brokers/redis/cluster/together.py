"""Several nodes at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

__all__ = ["together"]

R = TypeVar("R")


async def together(acts: Iterable[Awaitable[R]]) -> list[R]:
    """All at once, each to its end; then the first failure is raised."""
    ended = await asyncio.gather(*acts, return_exceptions=True)
    for each in ended:
        if isinstance(each, BaseException):
            raise each
    return ended  # type: ignore[return-value]  # no exceptions are left
