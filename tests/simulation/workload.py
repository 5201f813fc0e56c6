"""Random work: what is sent when, and what should have become of it in the end."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

from celeriac import states
from celeriac.exceptions import OperationalError
from celeriac.testing.simulation.process import Process
from tests.workflows.trees import BAD, FAILED, GOOD, NOTHING, REPLACED, Chain, Chord, Group, Leaf, Tree

__all__ = ["Sent", "Workload", "random_tree"]

_KINDS = ("plain",) * 12 + GOOD * 2 + REPLACED + BAD


def random_tree(random: Random, size: int) -> Tree:
    """A workflow of at most about `size` tasks."""
    if size <= 1 or random.random() < 0.3:
        return Leaf(random.choice(_KINDS), random.randrange(16))
    parts = random.randint(2, min(4, size))
    members = tuple(random_tree(random, size // parts) for _ in range(parts))
    match random.randrange(3):
        case 0:
            return Chain(members)
        case 1:
            return Group(members)
        case _:
            return Chord(Group(members), random_tree(random, 1))


class Sent:
    """One call and its result; `check()` says what is wrong with its end, or nothing."""

    @property
    def first(self) -> str:
        """The id of a task of the workflow that was sent with the call."""
        result = self.result
        while getattr(result, "parent", None) is not None or hasattr(result, "results"):
            result = result.parent if result.parent is not None else result.results[0]
        return str(result.id)

    def __init__(self, what: str, result: Any, check: Callable[[Any], str]) -> None:
        self.what = what
        self.result = result
        self._check = check

    def problem(self) -> str:
        found = self._check(self.result)
        return f"{self.what}: {found}" if found else ""


class Workload:
    """Sends one thing at a time (`send`); `sent` is what was accepted."""

    def __init__(
        self,
        app: Any,
        random: Random,
        producer: Process,
        *,
        poison: bool,
        capped: bool,
        kinds: frozenset[str],
        deaths: Callable[[], int],
    ) -> None:
        """``capped``: a task may die because its leases ran out too often."""
        self._app = app
        self.random = self._random = random
        self._producer = producer
        self._poison = poison
        self._may_fail = poison or capped
        #: Nothing bad will ever happen.
        #: Kinds of faults.
        self.faults = kinds
        self.calm = self._calm = not kinds
        self._deaths = deaths
        #: Nobody knows what has expired.
        self._is_skewed = "skew" in kinds
        self.sent: list[Sent] = []
        #: Nobody knows whether they were sent.
        self.uncertain = 0
        self.refused = 0
        #: Roots of workflows that somebody could not send again: their results may say that they go on.
        self.half_open: set[str] = set()
        self._more: list[tuple[int, Callable[[], Sequence[Sent]]]] = []
        self._kinds: list[tuple[int, Callable[[], Sent]]] = [
            (6, self._tree),
            (4, self._plain),
            (2, self._later),
            (2, self._retrying),
            (2, self._once),
            (1, self._silent),
            (1, self._expiring),
            (1, self._limited),
            (2, self._coroutine),
            (1, self._revoked),
            (1, self._unknown),
        ]

    def add(self, kinds: Iterable[tuple[int, Callable[[], Sequence[Sent]]]]) -> None:
        """Do this as well."""
        self._more += kinds

    def later(self, seconds: float, action: Callable[[], Any]) -> None:
        """The producer does something; it does not matter if it fails."""

        def act() -> None:
            try:
                action()
            except OperationalError:
                pass

        if seconds:
            self._producer.call_later(seconds, act)
        else:
            act()

    def send(self) -> None:
        """Send something."""
        kinds: list[tuple[int, Callable[[], Any]]] = [*self._kinds, *self._more]
        (kind,) = self._random.choices([kind for _, kind in kinds], [weight for weight, _ in kinds])
        if self._poison and self._random.random() < 0.2:
            kind = self._poisonous
        try:
            sent = kind()
            self.sent += [sent] if isinstance(sent, Sent) else sent
        except OperationalError as error:
            if error.uncertain:
                self.uncertain += 1
            else:
                self.refused += 1

    # -- what is sent ------------------------------------------------------------------------------------------

    def _tree(self) -> Sent:
        tree = random_tree(self._random, 8)
        silent = "ignores" in str(tree)
        # Where clocks are wrong, what has expired for one has not for another.
        expected = [each.run(NOTHING) for each in (_in_time(tree) if self._is_skewed else (tree,))]

        def check(result: Any) -> str:
            value = _value_of(result, silent)
            if value in expected or (self._may_fail and FAILED in repr(value)):
                return ""
            return f"brought {value}, not {' or '.join(map(str, expected))}"

        return Sent(str(tree), tree.sig(self._app).apply_async(), check)

    def ends(self, states_: set[str]) -> set[str]:
        """The states in which a task may end that is to end in these."""
        return states_ | {states.FAILURE} if self._may_fail else states_

    def call(self, name: str, number: int, allowed: set[str], **options: Any) -> Sent:
        allowed = self.ends(allowed)  # it may be taken for the culprit of a crash

        def check(result: Any) -> str:
            if result.state not in allowed:
                return f"{result.state} ({result.result!r}), not {' or '.join(sorted(allowed))}"
            if result.state == states.SUCCESS and result.result != number:
                return f"brought {result.result}"
            return ""

        result = self._app.tasks[name].apply_async((number,), **options)
        return Sent(f"{name}({number})", result, check)

    def _number(self) -> int:
        return self._random.randrange(16)

    def _plain(self) -> Sent:
        priority = self._random.choice((0, 0, 9))
        return self.call("sim.tracked", self._number(), {states.SUCCESS}, priority=priority)

    def _later(self) -> Sent:
        return self.call("sim.tracked", self._number(), {states.SUCCESS}, countdown=self._random.uniform(0.1, 30))

    def _retrying(self) -> Sent:
        number = self._number()
        return self.call("sim.retrying", number, {states.FAILURE if number % 4 == 3 else states.SUCCESS})

    def failing(self) -> Sent:
        """A task that ends in the dead letters."""
        return self.call("sim.retrying", self._random.choice((3, 7, 11)), {states.FAILURE})

    def _once(self) -> Sent:
        sent = self.call("sim.once", self._number(), {states.SUCCESS, states.PENDING})

        def check(result: Any) -> str:
            # It may be lost with its child, and only with it: a hard limit in a pool of threads ends a child, too.
            lost = result.state == states.PENDING and self._calm and not self._deaths()
            return "was lost, and nothing had happened" if lost else sent.problem()

        return Sent(sent.what, sent.result, check)

    def _silent(self) -> Sent:
        return self.call("sim.silent", self._number(), {states.PENDING})

    def _expiring(self) -> Sent:
        expires = self._random.uniform(0.01, 20)
        return self.call("sim.tracked", self._number(), {states.REVOKED, states.SUCCESS}, expires=expires)

    def _limited(self) -> Sent:
        number = self._number()
        slow = number % 8 in (5, 7)
        return self.call("sim.limited", number, {states.FAILURE if slow else states.SUCCESS})

    def _coroutine(self) -> Sent:
        return self.call("sim.coroutine", self._number(), {states.SUCCESS})

    def _revoked(self) -> Sent:
        sent = self.call("sim.tracked", self._number(), {states.REVOKED, states.SUCCESS}, countdown=5)
        self._app.control.revoke(sent.result.id)
        return sent

    def _unknown(self) -> Sent:
        result = self._app.send_task("sim.nobody", (1,))
        return Sent("unknown", result, lambda result: "" if result.state == states.FAILURE else result.state)

    def _poisonous(self) -> Sent:
        result = self._app.tasks["sim.poison"].delay(1)
        return Sent("poison", result, lambda result: "" if result.state == states.FAILURE else result.state)


def _in_time(tree: Tree) -> list[Tree]:
    """The tree with each task that has expired, and as if it had not."""
    match tree:
        case Leaf("expired", number):
            return [tree, Leaf("plain", number)]
        case Chain(parts):
            return [Chain(each) for each in itertools.product(*map(_in_time, parts))]
        case Group(parts):
            return [Group(each) for each in itertools.product(*map(_in_time, parts))]
        case Chord(header, body):
            return [Chord(*each) for each in itertools.product(_in_time(header), _in_time(body))]  # type: ignore[arg-type]
    return [tree]


def _value_of(result: Any, silent: bool) -> Any:
    """What a result brought, with what failed marked. `silent`: a task that ignores itself stores nothing."""
    if hasattr(result, "results"):
        return [_value_of(member, silent) for member in result.results]
    state = result.state
    if state not in states.READY_STATES and not silent:
        return f"{result.id} is {state}"
    return result.result if state == states.SUCCESS else FAILED
