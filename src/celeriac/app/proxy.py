"""A stand-in for an object that is looked up anew at each use: ``current_app``, ``current_task``, shared tasks.

Knows nothing of what it stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["Proxy"]


class Proxy:
    """Behaves as what ``lookup()`` returns now; ``isinstance`` included."""

    __slots__ = ("__dict__", "_lookup")

    def __init__(self, lookup: Callable[[], Any], doc: str | None = None, module: str | None = None) -> None:
        object.__setattr__(self, "_lookup", lookup)
        if doc is not None:
            object.__setattr__(self, "__doc__", doc)
        if module is not None:
            object.__setattr__(self, "__module__", module)

    def _get_current_object(self) -> Any:
        """The object itself."""
        return self._lookup()

    @property
    def __class__(self) -> Any:
        return type(self._lookup())

    @__class__.setter
    def __class__(self, value: Any) -> None:
        self._lookup().__class__ = value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lookup(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._lookup(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._lookup(), name)

    def __dir__(self) -> list[str]:
        return dir(self._lookup())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._lookup()(*args, **kwargs)

    def __bool__(self) -> bool:
        return bool(self._lookup())

    def __repr__(self) -> str:
        return repr(self._lookup())

    def __str__(self) -> str:
        return str(self._lookup())

    def __eq__(self, other: object) -> bool:
        if type(other) is Proxy:
            other = other._lookup()
        return bool(self._lookup() == other)

    def __hash__(self) -> int:
        return hash(self._lookup())

    def __or__(self, other: Any) -> Any:
        return self._lookup() | other

    def __ror__(self, other: Any) -> Any:
        return other | self._lookup()

    def __getitem__(self, key: Any) -> Any:
        return self._lookup()[key]

    def __contains__(self, item: Any) -> bool:
        return item in self._lookup()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._lookup())

    def __len__(self) -> int:
        return len(self._lookup())

    def __enter__(self) -> Any:
        return self._lookup().__enter__()

    def __exit__(self, *exc_info: object) -> Any:
        return self._lookup().__exit__(*exc_info)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._lookup().__reduce_ex__(protocol)

    def __copy__(self) -> Any:
        return self._lookup()

    def __deepcopy__(self, memo: Any) -> Any:
        return self._lookup()
