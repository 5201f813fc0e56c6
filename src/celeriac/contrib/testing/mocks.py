"""Messages for unit tests that have no broker (``celery.contrib.testing.mocks``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import MagicMock, Mock

from celeriac.codec.envelope import new_id
from celeriac.codec.serializers import dumps

__all__ = ["ContextMock", "TaskMessage", "TaskMessage1", "task_message_from_sig"]


def TaskMessage(  # noqa: N802 - Celery's name
    name: str,
    id: str | None = None,  # noqa: A002
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    callbacks: Any = None,
    errbacks: Any = None,
    chain: Any = None,
    shadow: str | None = None,
    utc: bool | None = None,
    **options: Any,
) -> Any:
    """A received message of protocol 2, as a mock; ``options`` become headers."""
    embed = {"callbacks": callbacks, "errbacks": errbacks, "chain": chain}
    headers = {"id": id or new_id(), "task": name, "shadow": shadow, **options}
    return _message(headers, (list(args), dict(kwargs or {}), embed))


def TaskMessage1(  # noqa: N802 - Celery's name
    name: str,
    id: str | None = None,  # noqa: A002
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    callbacks: Any = None,
    errbacks: Any = None,
    chain: Any = None,
    **options: Any,
) -> Any:
    """A received message of protocol 1, as a mock; ``options`` go into its body."""
    body = {
        "task": name,
        "id": id or new_id(),
        "args": list(args),
        "kwargs": dict(kwargs or {}),
        "callbacks": callbacks,
        "errbacks": errbacks,
        **options,
    }
    return _message({}, body)


def _message(headers: dict[str, Any], payload: Any) -> Any:
    message = Mock(name=f"TaskMessage-{headers.get('id') or payload['id']}")
    message.headers = headers
    message.payload = payload
    message.content_type, message.content_encoding, message.body = dumps(payload, "json")
    return message


def task_message_from_sig(app: Any, sig: Any, utc: bool = True, TaskMessage: Any = TaskMessage) -> Any:  # noqa: N803
    """The message that a signature would send, as a mock."""
    sig.freeze()
    options = dict(sig.options)
    callbacks, errbacks = options.pop("link", None), options.pop("link_error", None)
    countdown = options.pop("countdown", None)
    eta = app.now() + timedelta(seconds=countdown) if countdown else options.pop("eta", None)
    expires = options.pop("expires", None)
    if isinstance(expires, (int, float)):
        expires = app.now() + timedelta(seconds=expires)
    return TaskMessage(
        sig.task,
        id=sig.id,
        args=sig.args,
        kwargs=sig.kwargs,
        callbacks=[dict(each) for each in callbacks] if callbacks else None,
        errbacks=[dict(each) for each in errbacks] if errbacks else None,
        eta=eta.isoformat() if isinstance(eta, datetime) else eta,
        expires=expires.isoformat() if isinstance(expires, datetime) else expires,
        utc=utc,
        **options,
    )


def ContextMock(*args: Any, **kwargs: Any) -> Any:  # noqa: N802 - Celery's name
    """A mock that ``with`` enters; it yields itself and swallows nothing."""
    mock = MagicMock(*args, **kwargs)
    mock.__enter__.return_value = mock
    mock.__exit__.return_value = None
    return mock
