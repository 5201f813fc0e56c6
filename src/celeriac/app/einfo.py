"""What handlers and signals are told about an exception: Celery's ExceptionInfo (from billiard)."""

from __future__ import annotations

from types import TracebackType

__all__ = ["ExceptionInfo"]


class ExceptionInfo:
    """An exception with its traceback as text, formatted on first use."""

    __slots__ = ("_text", "exception", "internal", "tb", "type")

    def __init__(self, exception: BaseException, *, internal: bool = False) -> None:
        self.exception = exception
        self.type = type(exception)
        self.tb = exception.__traceback__
        #: Raised by the worker rather than by the task.
        self.internal = internal
        self._text: str | None = None

    @property
    def traceback(self) -> str:
        """The traceback as it is stored with the result."""
        if self._text is None:
            from celeriac.codec.failures import format_traceback

            self._text = format_traceback(self.exception)
        return self._text

    @property
    def exc_info(self) -> tuple[type[BaseException], BaseException, TracebackType | None]:
        """As ``sys.exc_info()`` gives it, for ``logging``."""
        return self.type, self.exception, self.tb

    def __str__(self) -> str:
        return self.traceback

    def __repr__(self) -> str:
        return f"<ExceptionInfo: {self.exception!r}>"
