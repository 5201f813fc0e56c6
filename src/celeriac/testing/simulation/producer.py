"""What producers and waiters use in a simulation: publishing through the weather, waiting that makes time pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from celeriac.exceptions import TimeoutError  # noqa: A004 - Celery's name
from celeriac.model.message import Message
from celeriac.ports import Depth, Publisher

if TYPE_CHECKING:
    from celeriac.testing.simulation.world import World

__all__ = ["SimulatedPublisher", "SimulatedReader"]


class SimulatedPublisher:
    """The ``Publisher`` of an app in a simulation."""

    def __init__(self, publisher: Publisher, world: World) -> None:
        self._publisher = publisher
        self._world = world

    def publish(self, messages: Sequence[Message], *, timeout: float) -> None:
        """See ``Publisher``."""
        weather = self._world.weather
        weather.check("broker")
        self._publish(messages, timeout)
        if weather.doubled and weather.random() < weather.doubled:
            self._publish(messages, timeout)
        weather.check_answer("broker")

    def _publish(self, messages: Sequence[Message], timeout: float) -> None:
        self._publisher.publish(messages, timeout=timeout)
        if self._world.tell is not None:
            current = self._world.timeline.current
            self._world.tell(current.name if current is not None else "producer", "publish", (messages,), None)

    def purge(self, queue: str, *, timeout: float) -> int:
        """See ``Publisher``."""
        return self._publisher.purge(queue, timeout=timeout)

    def depth(self, queues: Sequence[str], *, timeout: float) -> Mapping[str, Depth]:
        """See ``Publisher``."""
        return self._publisher.depth(queues, timeout=timeout)

    def close(self) -> None:
        """See ``Publisher``."""


class SimulatedReader:
    """The ``Reader`` of an app in a simulation: all but ``wait`` is the adapter's."""

    def __init__(self, reader: Any, world: World, watch: Callable[[Sequence[str]], Any]) -> None:
        self._reader = reader
        self._world = world
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        real, weather, server = getattr(self._reader, name), self._world.weather, self._world.store_name

        def call(*args: Any, **kwargs: Any) -> Any:
            weather.check(server)
            answer = real(*args, **kwargs)
            if name != "close":
                weather.check_answer(server)
            return answer

        return call

    def wait(self, ids: Sequence[str], *, timeout: float | None) -> str | None:
        """See ``Reader``: lets time pass until then. Raises ``TimeoutError`` when nothing is left that could end
        one of the tasks."""
        world = self._world
        if world.timeline.current is not None:
            raise RuntimeError("a simulated task cannot wait for another: nothing goes on while its body runs")
        with self._watch(ids) as watcher:
            is_told = watcher.event.is_set
            if not world.pass_time(timeout, until=is_told):
                if timeout is None:
                    raise TimeoutError(
                        f"task {ids[0]} will not end: nothing is left to do in this simulation; is there a worker for"
                        " its queue (sim.worker())?"
                    )
                return None
            found: str | None = watcher.id
            return found
