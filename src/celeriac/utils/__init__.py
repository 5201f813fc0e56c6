"""Module names that Celery users import. Nothing but re-exports: the code lives elsewhere."""

from __future__ import annotations

from functools import cached_property

from celeriac.codec.envelope import new_id as uuid
from celeriac.utils.imports import gen_task_name, instantiate, symbol_by_name

__all__ = ["cached_property", "gen_task_name", "get_full_cls_name", "instantiate", "symbol_by_name", "uuid"]


def get_full_cls_name(klass: type) -> str:
    """Module and name of a class."""
    return f"{klass.__module__}.{klass.__qualname__}"
