"""The agent's part of the fleet's rules: what runs is ended, what waits is taken out of its queues, children are told.

A child reads the rules by itself before it admits what it has claimed; this is for all that no claim touches. Looks
every ``LOOK`` seconds, and at once when a remote command says so. Any number of agents may enforce the same rule.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from celeriac.client.signal_names import signal_number
from celeriac.clock import SYSTEM
from celeriac.codec.rules import RULE
from celeriac.codec.signing import control_signer_of, seal
from celeriac.exceptions import OperationalError
from celeriac.model import outcome as o
from celeriac.model.backoff import Backoff
from celeriac.model.message import Malformed, Message
from celeriac.model.rules import SEARCHED, Order, Rule, RuleChange, decode_order, encode_order
from celeriac.model.settle import Completion, Release
from celeriac.ports import Broker, Clock, Rules
from celeriac.worker.closer import Aside
from celeriac.worker.concluding import Concluder
from celeriac.worker.link import Link
from celeriac.worker.options import NodeOptions
from celeriac.worker.rules import RuleBook, to_wire
from celeriac.worker.runner import Runner

__all__ = ["Enforcer"]

logger = logging.getLogger("celery.worker")

#: Seconds between two looks.
LOOK = 1.0
#: All nodes hear of a revoked task at once: within so many seconds the first one searches the queues for all of them.
SPREAD = 0.2
#: So long, in seconds, the end of running tasks is ordered again: a child may just have claimed one, or have started.
INSIST = 30.0
#: Tokens of tasks that are being ended, remembered at most.
TERMINATING_MAX = 1_000


class Enforcer:
    """Enforces the rules on one node. ``book`` is what the agent knows of them."""

    def __init__(
        self,
        broker: Broker,
        options: NodeOptions,
        runner: Runner,
        link: Link,
        *,
        queues: Callable[[], Sequence[str]],
        conclude: Callable[[Sequence[Completion]], None],
        tell: Callable[[str, Mapping[str, Any]], None],
        aside: Aside = asyncio.to_thread,
        terminated: Callable[[int], None] | None = None,
        kill: Callable[[int, int], None] | None = None,
        rand: Callable[[], float] = random.random,
        clock: Clock = SYSTEM,
    ) -> None:
        """``queues()`` are those of the node, ``conclude`` takes what is to be written, ``tell`` repeats an order to
        children that start later, ``terminated(pid)`` tells the supervisor that a process is ended on request, and
        ``kill(pid, signal number)`` does so (default: ``os.kill``)."""
        self._signer = control_signer_of(runner.app.conf)
        self.book = RuleBook(self._signer)
        #: token → how it ends, of tasks ended on request.
        self.terminating: dict[str, o.Revoked] = {}
        self._rules: Rules | None = broker if isinstance(broker, Rules) else None
        self._life = options.revoke_expires
        self._runner = runner
        self._link = link
        self._queues = queues
        self._conclude = conclude
        self._concluder = Concluder(runner, conclude, aside)
        self._tell = tell
        self._terminated = terminated
        self._kill = kill
        self._hurry = asyncio.Event()
        self._rand = rand
        self._clock = clock
        self._backoff = Backoff(rand=rand)
        self._insist_until = 0.0

    async def run(self) -> None:
        """Look until cancelled."""
        while self._rules is not None:
            self._hurry.clear()
            try:
                await self.look()
                self._backoff.reset()
                pause = LOOK
            except OperationalError as error:
                pause = self._backoff.next()
                logger.debug("Cannot read the rules of the fleet, next try in %.1f s: %s", pause, error)
            timer = asyncio.get_running_loop().call_later(pause, self._hurry.set)
            await self._hurry.wait()
            timer.cancel()

    async def look(self) -> None:
        """Obey what is new. Raises ``OperationalError``."""
        await self._learn()
        if self._unsearched()[0]:
            await self._clock.sleep(SPREAD * (0.25 + 0.75 * self._rand()))
            await self._learn()
            await self._search()

    async def revoke(self, keys: Iterable[str], order: Order) -> None:
        """A remote command revokes tasks: write the rules that are not there yet, and enforce them. Raises
        ``OperationalError`` when they cannot be written."""
        value = encode_order(order)
        if self._rules is None:
            until = None if self._life is None else self._runner.now() + self._life
            await self._order([Rule(key, value, until) for key in keys])
            return
        await self._learn()
        now = self._runner.now()
        known = {rule.key: rule for rule in self.book.in_force() if rule.expires is None or rule.expires > now}
        missing = [key for key in keys if key not in known or (order.terminate and not _terminates(known[key]))]
        if missing:
            await self._rules.set_rules([self._change(key, value) for key in missing])
            await self._learn()
        self._hurry.set()

    # -- children --------------------------------------------------------------------------------------------------

    async def _learn(self) -> None:
        """Read what changed and tell the children."""
        assert self._rules is not None
        new = self.book.learn(await self._rules.rules(self.book.epoch), self._runner.now())
        if new or self._clock.monotonic() < self._insist_until:
            await self._order(new)

    async def _order(self, rules: Sequence[Rule]) -> None:
        if any(map(_terminates, rules)):
            self._insist_until = self._clock.monotonic() + INSIST
        if self._rules is None:
            self.book.hear(rules)
            self._tell("obey", {"rules": to_wire(self.book.in_force())})
        for answer in await self._link.ask("obey", {"rules": to_wire(rules)}):
            for task in answer:
                self._end(task)

    def _end(self, task: Mapping[str, Any]) -> None:
        """End the process of a running task, once by each signal: a task may survive the gentler ones. The supervisor's
        notice then finds the token in ``terminating``."""
        token, pid = task["token"], task["pid"]
        try:
            number = signal_number(task["signal"])
        except ValueError:  # written by somebody else's client
            number = int(signal.SIGTERM)
        before = self.terminating.get(token)
        if pid == os.getpid() or (before is not None and before.signum == number):
            return
        self.terminating[token] = o.Revoked("terminated", number, task["by"], task["why"])
        while len(self.terminating) > TERMINATING_MAX:
            del self.terminating[next(iter(self.terminating))]
        if self._terminated is not None:
            self._terminated(pid)
        # The child would take SIGTERM for a warm shutdown.
        try:
            (self._kill or os.kill)(pid, signal.SIGKILL if number == signal.SIGTERM else number)
        except ProcessLookupError:
            pass  # it has just died, and its notice says of what

    def refusal(self, message: Message | Malformed) -> o.Outcome | None:
        """What a rule says of it now; None: it may run."""
        return self.book.refusal(message, self._runner.now())

    def killed(self, owner: str) -> bool:
        """Whether a child was killed for a task that had ended by then: what it ran is not the cause."""
        ours = [
            token
            for token, end in self.terminating.items()
            if owner in token and end.signum in (signal.SIGTERM, signal.SIGKILL)
        ]
        for token in ours:
            del self.terminating[token]
        return bool(ours)

    # -- what waits --------------------------------------------------------------------------------------------------

    def _unsearched(self) -> tuple[set[str], list[str]]:
        """Revoked ids for which nobody has searched yet, and in which of this node's queues; both empty: none."""
        ids: set[str] = set()
        queues: list[str] = []
        for queue in self._queues():
            mark = _searched(self.book.others.get(SEARCHED + queue))
            found = set()
            for task_id, rule in reversed(self.book.revoked.items()):
                if rule.epoch <= mark:
                    break
                found.add(task_id)
            if found:
                ids |= found
                queues.append(queue)
        return ids, queues

    async def _search(self) -> None:
        """Take revoked tasks out of the queues and conclude them: whoever waits for them hears of it now."""
        assert self._rules is not None
        book = self.book
        ids, queues = self._unsearched()
        if not ids:
            return
        epoch, now = book.epoch, self._runner.now()
        deliveries = await self._rules.withdraw(ids, queues)
        ended, back = [], []
        for delivery in deliveries:
            message, refusal = delivery.message, book.refusal(delivery.message, now)
            if refusal is not None and not delivery.redelivered:
                ended.append((delivery, refusal))
            else:
                # An earlier delivery may have ended well: whoever claims it looks at its result first.
                due = None if isinstance(message, Malformed) else message.due
                back.append(Completion(settlement=Release(delivery, due=due)))
        self._concluder(ended)
        if back:
            self._conclude(back)
        mark = str(epoch).encode()
        await self._rules.set_rules([self._change(SEARCHED + queue, mark) for queue in queues])

    def _change(self, key: str, value: bytes) -> RuleChange:
        return RuleChange(key, seal(self._signer, RULE, key, value), self._life)


def _terminates(rule: Rule) -> bool:
    return rule.value is not None and decode_order(rule.value).terminate


def _searched(rule: Rule | None) -> int:
    try:
        return int(rule.value or b"0") if rule is not None else 0
    except ValueError:
        return 0
