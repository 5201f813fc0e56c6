"""Where results come to in this process when they are messages to whoever has sent the task (``rpc://``).

One reply queue for each app in each process, named by ``oid``. Asked by the sender for what it writes into
``reply_to``, and by the result backend before it reads. Opens nothing. Thread-safe; after a fork there is another
queue.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from celeriac.client import resolver
from celeriac.client.current import worker_request
from celeriac.client.transactions import outlet_of
from celeriac.codec.envelope import new_id
from celeriac.exceptions import ImproperlyConfigured
from celeriac.model.message import Message
from celeriac.ports import AdapterOptions, ReplyQueue

__all__ = ["Replies"]


class Replies:
    """The reply queues of one app."""

    def __init__(self, conf: Any) -> None:
        self._conf = conf
        #: By the process that reads them: this one, and those it was forked from.
        self._oids: dict[int, str] = {}
        #: Whether results go there, as far as was looked.
        self._used: bool | None = None
        #: The process that has sent a task whose result comes to its queue.
        self._expecting = 0

    @property
    def oid(self) -> str:
        """Id of this app in this process: the name of its reply queue."""
        pid = os.getpid()
        return self._oids.get(pid) or self._oids.setdefault(pid, new_id())

    @property
    def enabled(self) -> bool:
        """``result_backend`` is ``rpc://``."""
        used = self._used
        if used is None:
            used = self._used = resolver.sends_replies(self._conf)
        return used

    def settings_changed(self) -> None:
        """Look again."""
        self._used = None

    @property
    def queue(self) -> ReplyQueue | None:
        """The queue of this process; None where results go to a store."""
        if not self.enabled:
            return None
        return resolver.reply_queue(self._conf, self.oid, lambda: self._expecting == os.getpid())

    @property
    def address(self) -> str:
        """``reply_to`` of what is sent now. With ``rpc://`` a running task's is that of its own sender, who so sees the
        results of all that follows; in a worker nobody waits."""
        request = worker_request() if self.enabled else None
        if request is None or request.is_eager:
            return self.oid
        return request.reply_to or ""

    def options(self) -> AdapterOptions:
        """What the reader of results is told in this process, whatever the backend."""
        return resolver.store_options(self._conf, self.queue)

    def expect(self, messages: Sequence[Message]) -> None:
        """These are sent now; results of some may come here. Raises ``ImproperlyConfigured`` inside a transaction:
        nobody would have made the queue before the first result."""
        if not self.enabled:
            return
        oid = self.oid
        mine = [message for message in messages if message.reply_to == oid]
        if mine and outlet_of(self._conf) is not None and not mine[0].headers.get("ignore_result"):
            raise ImproperlyConfigured(
                f"task {mine[0].task}: rpc:// cannot bring results of what is sent in app.transaction(): set "
                "result_backend to a store, such as redis://, or ignore_result"
            )
        if mine:
            self._expecting = os.getpid()
