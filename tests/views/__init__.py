"""Servers seen as less than they are: what brokers look like that keep no ledger. As URLs: ``queues+redis://``."""

from celeriac.client import resolver
from tests.views.queue_only import QueueOnly

__all__ = ["QueueOnly"]

resolver._MODULES.update({f"queues+{name}": f"tests.views.{name}_queues" for name in ("memory", "redis")})
