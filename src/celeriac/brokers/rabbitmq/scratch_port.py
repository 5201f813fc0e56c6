"""A place of its own on a RabbitMQ that is in use: the virtual host ``celeriac-test``. For ``celeriac broker test``.

Over AMQP a virtual host can neither be made nor looked through: it has to be there, and what is declared in it during a
test is noted down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from msgspec.structs import replace

from celeriac.brokers.rabbitmq import delays
from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.address import parse
from celeriac.brokers.rabbitmq.blocking import Line, monotonic
from celeriac.brokers.rabbitmq.fields import Properties, encode_header, short
from celeriac.brokers.rabbitmq.frames import publish
from celeriac.brokers.rabbitmq.layout import DEAD, declare_queue
from celeriac.brokers.rabbitmq.unkept import UNKEPT, UNKEPT_BESIDE
from celeriac.exceptions import OperationalError
from celeriac.ports import AdapterOptions, Declaration

__all__ = ["RabbitScratch"]

#: Nobody keeps anything there.
_VHOST = "celeriac-test"
#: Seconds that a call may take.
_TIMEOUT = 20.0
#: A port of this machine on which nothing listens.
_NOBODY = 1
#: Exchanges of the bus, which stay when nobody listens.
_BUS = ("celeryev", "celery.pidbox", "reply.celery.pidbox")


class RabbitScratch:
    """See ``celeriac.ports.Scratch``."""

    publisher_schedules = False
    one_server = True

    def __init__(self, url: str, options: AdapterOptions, name: str) -> None:
        alternates = tuple(map(_elsewhere, options.alternates))
        self.url = _elsewhere(url)
        self.options: Mapping[str, Any] = {"alternates": alternates, "declarations": self._note}
        self.what = f"queues in the virtual host {_VHOST}"
        self.unreachable = f"amqp://user:s3cret-word@127.0.0.1:{_NOBODY}/{_VHOST}"
        self._line = Line(parse(self.url, replace(options, alternates=alternates)))
        self._queues: set[str] = set()

    def _note(self, queue: str) -> Declaration | None:
        self._queues.add(queue)
        return None

    def exempt(self, beside: bool) -> Mapping[str, str]:
        """See ``Scratch.exempt``."""
        return UNKEPT_BESIDE if beside else UNKEPT

    def inject(self, queue: str, raw: bytes) -> None:
        """See ``Scratch.inject``."""
        self._queues.add(queue)
        header = encode_header(Properties(content_type="application/json"), len(raw))
        deadline = monotonic() + _TIMEOUT
        with self._line.use(deadline) as connection:
            connection.run(declare_queue(queue, True, False, False, {}), deadline)
            frames = publish(1, short(""), short(queue), header, raw, connection.frame_max)
            connection.publish([frames], deadline)

    def clear(self) -> None:
        """See ``Scratch.clear``."""
        deadline = monotonic() + _TIMEOUT
        try:
            with self._line.use(deadline) as connection:
                for queue in (*self._queues, DEAD, *delays.queues()):
                    connection.ask((m.QUEUE_DELETE, 0, queue, False, False, False), deadline)
                for exchange in (*_BUS, *delays.exchanges()):
                    connection.ask((m.EXCHANGE_DELETE, 0, exchange, False, False), deadline)
        except OperationalError as error:
            if "NOT_ALLOWED" not in str(error):
                raise
            address = self._line.address
            raise OperationalError(
                f"RabbitMQ at {address.masked} has no virtual host for tests, or {address.username} may not use it: "
                f"rabbitmqctl add_vhost {_VHOST} && "
                f"rabbitmqctl set_permissions -p {_VHOST} {address.username} '.*' '.*' '.*'"
            ) from error
        finally:
            self._line.close()


def _elsewhere(urls: str) -> str:
    """The same servers; the virtual host for tests instead of the one in use."""
    each: Sequence[str] = [url.strip() for url in urls.split(";")]
    return ";".join(urlunsplit(urlsplit(url)._replace(path=f"/{_VHOST}")) for url in each if url)
