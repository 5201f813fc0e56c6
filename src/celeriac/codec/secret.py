"""``Secret(value)``: an argument or result that no log, event, error or dashboard shows."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

__all__ = ["Secret"]

T = TypeVar("T")


class Secret(Generic[T]):
    """Keeps ``value`` out of sight: its ``repr`` is ``'***'``, whatever it is nested in.

        charge.delay(Secret(card_number))

        @app.task
        def charge(card: Secret[str]):
            bank.charge(card.value)

    It travels as its value under a type tag of JSON, and arrives as a ``Secret``, so that retries, chains and results
    keep it hidden too. It is hidden, not encrypted: who can read the broker can read it. Workers of Celery do not know
    the tag.
    """

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    @property
    def value(self) -> T:
        """What is hidden."""
        return self._value

    def __repr__(self) -> str:
        return "'***'"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return self._value == other._value if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> tuple[Any, ...]:
        return Secret, (self._value,)
