"""What producers and waiters use in a simulation: publishing through the weather, waiting that makes time pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celeriac.model.dead import Replay, Stayed
from celeriac.model.ledger import Change
from celeriac.model.message import Message
from celeriac.model.rules import RuleChange, RulesRead
from celeriac.ports import Depth, Publisher
from celeriac.testing.simulation.weather import Weather

__all__ = ["SimulatedPublisher", "SimulatedReader"]


class SimulatedPublisher:
    """The ``Publisher`` of an app in a simulation; ``published(messages)`` hears of what has arrived, ``ruled``
    of changed rules."""

    def __init__(
        self,
        publisher: Publisher,
        weather: Weather,
        published: Callable[[Sequence[Message]], None],
        ruled: Callable[[Sequence[RuleChange]], None],
        server: str = "broker",
    ) -> None:
        self._server = server
        self._publisher = publisher
        self._ruled = ruled
        self._weather = weather
        self._published = published
        self._staged: dict[str, list[Message]] = {}

    def publish(self, messages: Sequence[Message], *, timeout: float) -> None:
        """See ``Publisher``."""
        weather = self._weather
        weather.check(self._server)
        self._publish(messages, timeout)
        if weather.doubled and weather.random() < weather.doubled:
            self._publish(messages, timeout)
        weather.check_answer(self._server)

    def _publish(self, messages: Sequence[Message], timeout: float) -> None:
        self._publisher.publish(messages, timeout=timeout)
        self._published(messages)

    def stage(self, messages: Sequence[Message], *, stage: str, timeout: float) -> None:
        """See ``Publisher``."""
        self._weather.check(self._server)
        self._publisher.stage(messages, stage=stage, timeout=timeout)
        self._staged.setdefault(stage, []).extend(messages)
        self._weather.check_answer(self._server)

    def launch(self, stage: str, *, count: int, timeout: float) -> None:
        """See ``Publisher``."""
        self._weather.check(self._server)
        self._publisher.launch(stage, count=count, timeout=timeout)
        self._published(self._staged.pop(stage, []))
        self._weather.check_answer(self._server)

    def publish_if(
        self, message: Message, changes: Sequence[Change], *, timeout: float
    ) -> Sequence[bytes | None] | None:
        """See ``Publisher``."""
        self._weather.check(self._server)
        there = self._publisher.publish_if(message, changes, timeout=timeout)
        if there is None:
            self._published((message,))
        self._weather.check_answer(self._server)
        return there

    def publish_each_if(self, sendings: Sequence[tuple[Message, Sequence[Change]]], *, timeout: float) -> Sequence[Any]:
        """See ``EachPublisher``."""
        self._weather.check(self._server)
        given: Any = self._publisher
        answers: Sequence[Any] = given.publish_each_if(sendings, timeout=timeout)
        sent = [message for (message, _), there in zip(sendings, answers, strict=True) if there is None]
        if sent:
            self._published(sent)
        self._weather.check_answer(self._server)
        return answers

    def rules(self, prefix: str, *, timeout: float) -> RulesRead:
        """See ``RulesDesk``."""
        self._weather.check(self._server)
        return self._publisher.rules(prefix, timeout=timeout)  # type: ignore[attr-defined,no-any-return]

    def set_rules(self, changes: Sequence[RuleChange], *, timeout: float) -> int:
        """See ``RulesDesk``."""
        self._weather.check(self._server)
        epoch: int = self._publisher.set_rules(changes, timeout=timeout)  # type: ignore[attr-defined]
        self._ruled(changes)
        self._weather.check_answer(self._server)
        return epoch

    def purge(self, queue: str, *, timeout: float) -> int:
        """See ``Publisher``."""
        return self._publisher.purge(queue, timeout=timeout)

    def depth(self, queues: Sequence[str], *, timeout: float) -> Mapping[str, Depth]:
        """See ``Publisher``."""
        return self._publisher.depth(queues, timeout=timeout)

    def close(self) -> None:
        """See ``Publisher``."""


class SimulatedPort:
    """Any other blocking port of a server, the broker's by default: its calls go through the weather."""

    def __init__(self, port: Any, weather: Weather, server: str = "broker") -> None:
        self._port = port
        self._weather = weather
        self._server = server

    def __getattr__(self, name: str) -> Any:
        real, weather, server = getattr(self._port, name), self._weather, self._server

        def call(*args: Any, **kwargs: Any) -> Any:
            weather.check(server)
            answer = real(*args, **kwargs)
            weather.check_answer(server)
            return answer

        return call

    def close(self) -> None:
        """Nothing to give back."""


class SimulatedDeadLetters(SimulatedPort):
    """The ``DeadLetters`` of an app in a simulation; ``published(messages)`` hears of what was sent again."""

    def __init__(self, port: Any, weather: Weather, published: Callable[[Sequence[Message]], None]) -> None:
        super().__init__(port, weather)
        self._published = published

    def replay(self, replays: Sequence[Replay], *, timeout: float) -> Sequence[Stayed]:
        """See ``DeadLetters``."""
        self._weather.check("broker")
        stayed: Sequence[Stayed] = self._port.replay(replays, timeout=timeout)
        kept = {each.key for each in stayed}
        self._published([each.message for each in replays if each.key not in kept])
        self._weather.check_answer("broker")
        return stayed


class SimulatedReader:
    """The ``Reader`` of an app in a simulation: ``wait`` is the world's, the rest the adapter's."""

    def __init__(
        self, reader: Any, weather: Weather, server: str, wait: Callable[[Sequence[str], float | None], str | None]
    ) -> None:
        self._reader = reader
        self._weather = weather
        self._server = server
        self._wait = wait

    def __getattr__(self, name: str) -> Any:
        real, weather, server = getattr(self._reader, name), self._weather, self._server

        def call(*args: Any, **kwargs: Any) -> Any:
            weather.check(server)
            answer = real(*args, **kwargs)
            weather.check_answer(server)
            return answer

        return call

    def wait(self, ids: Sequence[str], *, timeout: float | None) -> str | None:
        """See ``Reader``."""
        return self._wait(ids, timeout)

    def close(self) -> None:
        """See ``Reader``."""
