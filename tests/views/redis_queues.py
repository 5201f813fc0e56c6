"""``queues+redis://``: the queues of ``redis://`` alone, which come back by themselves. For the resolver."""

from __future__ import annotations

from celeriac.brokers import redis
from tests.views.queue_only import QueueOnly

_view = QueueOnly(redis, requeues=True)
broker, publisher, dead_letters = _view.broker, _view.publisher, _view.dead_letters
store, reader, caller = _view.store, _view.reader, _view.caller
