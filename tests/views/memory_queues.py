"""``queues+memory://``: the queues of ``memory://`` alone, which come back by themselves. For the resolver."""

from __future__ import annotations

from celeriac.brokers import memory
from tests.views.queue_only import QueueOnly

_view = QueueOnly(memory, requeues=True)
broker, publisher, dead_letters = _view.broker, _view.publisher, _view.dead_letters
store, reader, caller = _view.store, _view.reader, _view.caller
