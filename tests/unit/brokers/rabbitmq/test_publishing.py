"""What producers put aside on RabbitMQ waits in their process. No sockets."""

from __future__ import annotations

import pytest

from celeriac.brokers import rabbitmq
from celeriac.exceptions import OperationalError
from celeriac.ports import AdapterOptions
from celeriac.testing.conformance.tools import child, ended, messages


def test_a_fork_while_another_thread_puts_something_aside() -> None:
    publisher = rabbitmq.publisher("amqp://somewhere//", AdapterOptions())
    publisher.stage(messages("a"), stage="one", timeout=1.0)

    def forked() -> None:
        publisher.stage(messages("b"), stage="two", timeout=1.0)
        with pytest.raises(OperationalError, match="put aside for one send is gone"):
            publisher.launch("one", count=1, timeout=1.0)

    with publisher._staging:
        pid = child(forked)
        assert ended(pid) == 0
