"""What a plan wants sent becomes messages: through ``Signature.apply_async`` with a producer that collects.

So routers, overridden ``apply_async`` and ``before_task_publish`` receivers run as they do for any call. On the task's
thread; publishes nothing. Errbacks that take ``(request, exc, traceback)`` are called here instead, as Celery does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from celeriac.app.arguments import takes_several
from celeriac.client.current import request_var
from celeriac.model.chord import NewChord
from celeriac.model.message import Message
from celeriac.model.plan import Send

if TYPE_CHECKING:
    from celeriac.app.base import Celery

__all__ = ["FollowUps", "Sent"]

logger = logging.getLogger("celery.app.trace")


class Sent:
    """The producer that follow-ups are sent through: what is to be published, and the chords it is part of."""

    __slots__ = ("_check", "chords", "messages")

    def __init__(self, check: Callable[[Message], None] | None = None) -> None:
        self.messages: list[Message] = []
        self.chords: list[NewChord] = []
        self._check = check

    def collect(self, message: Message) -> None:
        """Take a message instead of publishing it. ``TypeError`` or ``ValueError`` for one that the broker cannot hold:
        raised where it is written they would end the child."""
        if self._check is not None:
            self._check(message)
        self.messages.append(message)

    def open_chord(self, chord: NewChord) -> None:
        """Take a chord instead of writing it."""
        self.chords.append(chord)


class FollowUps:
    """Makes the messages of one app's plans."""

    def __init__(self, app: Celery) -> None:
        #: See ``Particular.check``; None: the broker holds whatever can be made.
        self.check: Callable[[Message], None] | None = None
        self._app = app
        self._takes_error: dict[str, bool] = {}

    def sent(self) -> Sent:
        """What is sent through here is collected there."""
        return Sent(self.check)

    def of_success(self, sends: Iterable[Send], request: Any, sent: Sent) -> None:
        """Callbacks and the next step of a chain; they count among the children of the task, as if it had sent them.

        Raises what routers, ``apply_async`` and receivers raise.
        """
        before = request_var.get()
        request_var.set(request)
        try:
            self.of_any(sends, sent)
        finally:
            request_var.set(before)

    def of_any(self, sends: Iterable[Send], sent: Sent) -> None:
        """Messages of signatures, in order. Raises as ``of_success``."""
        for send in sends:
            self._app.signature(send.signature).apply_async(send.args or None, producer=sent, **send.options)

    def of_failure(self, sends: Iterable[Send], request: Any, exc: BaseException, traceback: str, sent: Sent) -> None:
        """Errbacks. One that raises is logged: it must hide neither the failure nor the other errbacks."""
        for send in sends:
            try:
                signature = self._app.signature(send.signature)
                if self._is_new_style(signature):
                    signature(request, exc, traceback)
                else:
                    self.of_any((send,), sent)
            except Exception as error:
                logger.error("Errback %s raised: %r", send.signature.get("task"), error, exc_info=error)

    def _is_new_style(self, signature: Any) -> bool:
        """It takes more than one positional argument, so it wants request, exception and traceback (Celery 4)."""
        name: str = signature["task"]
        known = self._takes_error.get(name)
        if known is None:
            task = self._app.tasks.get(name)
            known = self._takes_error[name] = task is not None and takes_several(task.run)
        return known
