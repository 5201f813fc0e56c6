"""What happened in a simulation, told by servers and executors: the trace, and the counts that the checks look at."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from celeriac.model.dead import REPLAY
from celeriac.model.limits import Permission
from celeriac.model.message import Delivery, Malformed, Message
from celeriac.model.settle import Accept, DeadLetter, Hold, Release, Verdict
from celeriac.testing.simulation.node import Child
from celeriac.testing.simulation.world import World

if TYPE_CHECKING:
    from tests.simulation.themes.theme import Theme

__all__ = ["Journal", "Key", "key_of"]

#: One attempt: task id (or the bytes of what is no message), retries, nesting of replacements.
Key = tuple[str, int, int]


def key_of(message: Message | Malformed) -> Key:
    if isinstance(message, Malformed):
        return (f"malformed {message.raw[:24]!r}", 0, 0)
    return (message.id, message.retries, message.headers.get("replaced_task_nesting") or 0)


class Journal:
    """Listens to a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.lines: list[tuple[Any, ...]] = []
        self.published: Counter[Key] = Counter()
        #: Ids of tasks that are to run at most once.
        self.once: set[str] = set()
        #: By workers alone.
        self.followed: Counter[Key] = Counter()
        #: Task id → the id of the first task of its workflow.
        self._roots: dict[str, str] = {}
        #: By that, how often a dead letter of a workflow was sent again.
        self._replays: Counter[str] = Counter()
        self.ended: Counter[Key] = Counter()
        #: When a task's last attempt so far ended, by its id.
        self.ended_at: dict[str, float] = {}
        self.last_end = 0.0
        #: Tasks that went to the dead letters, and dead letters that were sent again.
        self.died = self.replayed = 0
        #: Task id → how many of its messages were published and have not ended.
        self.alive: Counter[str] = Counter()
        #: Themes, which hear all this too.
        self.themes: list[Theme] = []
        #: Groups and chords of which a member was published.
        self.groups: set[str] = set()
        self.begun: Counter[Key] = Counter()
        self.early: list[str] = []
        #: Bodies that began when their lease was gone.
        self.unleased: list[str] = []
        self.wrong: list[str] = []
        #: Tokens that ended, by whom: no token ends twice.
        self._over: set[str] = set()
        #: token → owner and attempt, of what was claimed.
        self._claims: dict[str, tuple[str, Key]] = {}
        #: Owners whom it may happen that their leases run out: the dead, the frozen, the cut off.
        self.excused: set[str] = set()
        self._seen: dict[str, str] = {}
        world.tell = self.tell
        world.on_begun = self.began

    # -- what is told ------------------------------------------------------------------------------------------

    def note(self, *what: Any) -> None:
        """Write a line."""
        self.lines.append((round(self._world.timeline.time, 6), *what))

    def tell(self, process: str, method: str, args: tuple[Any, ...], answer: Any) -> None:
        """A call had its effect."""
        handler = getattr(self, f"_{method}", None)
        if handler is not None:
            handler(process, args[0] if args else None, answer)
        for theme in self.themes:
            theme.tell(process, method, args, answer)

    def began(self, child: Child, delivery: Delivery) -> None:
        """A body begins."""
        message, key = delivery.message, key_of(delivery.message)
        self.begun[key] += 1
        self.note(child.process.name, "runs", key, delivery.token)
        world = self._world
        # By the servers' clock; the worker's own may be wrong.
        now = world.timeline.epoch + world.timeline.time
        if delivery.token not in world.server.queues.leases and delivery.token not in child.completer.early:
            self.unleased.append(f"{key} began on {child.process.name} after its lease {delivery.token} was gone")
        if isinstance(message, Message) and message.due is not None and now < message.due - 1e-6:
            self.early.append(f"{key} ran {message.due - now:.3f} s too early")
        for theme in self.themes:
            theme.began(child, delivery)

    def _claim(self, process: str, queues: Any, deliveries: Any) -> None:
        for delivery in deliveries:
            key = key_of(delivery.message)
            self._claims[delivery.token] = (process, key)
            self.note(process, "claims", key, delivery.token, "redelivered" if delivery.redelivered else "")

    _withdraw = _claim

    def _permit(self, process: str, asks: Any, permits: Any) -> None:
        for ask, permit in zip(asks, permits, strict=True):
            token = ask.delivery.token
            self.note(process, "asks for", key_of(ask.delivery.message), token, permit.permission.value)
            if permit.permission is Permission.PARKED:
                self._over.add(token)

    def _freed(self, process: str, seats: Any, answer: Any) -> None:
        self.note(process, "frees", [each.key for each in seats])

    def _set_rules(self, process: str, changes: Any, epoch: Any) -> None:
        self.note(process, "rules", [(change.key, change.value is not None) for change in changes])

    def _change_ledger(self, process: str, changes: Any, made: Any) -> None:
        self.note(process, "changes", [(each.key, each.value) for each in changes], made)

    def _publish(self, process: str, messages: Any, answer: Any) -> None:
        for message in messages:
            self._published(process, message, worker="child" in process or "agent" in process)

    def _published(self, process: str, message: Message, *, worker: bool) -> None:
        key = key_of(message)
        self.published[key] += 1
        self.alive[key[0]] += 1
        if isinstance(group := message.headers.get("group"), str):
            self.groups.add(group)
        root = self._roots[message.id] = message.headers.get("root_id") or message.id
        if not worker and REPLAY in message.headers:
            self._replays[root] += 1
            self.replayed += 1
        if message.task == "sim.once":
            self.once.add(message.id)
        if worker:
            self.followed[key] += 1
        self.note(process, "publishes", key, "" if message.due is None else round(message.due, 3))

    def _finish(self, process: str, completions: Any, verdicts: Any) -> None:
        for completion, verdict in zip(completions, verdicts, strict=True):
            settlement = completion.settlement
            delivery = settlement.delivery
            key = key_of(delivery.message) if delivery is not None else ("no delivery", 0, 0)
            result = "" if completion.result is None else _state(completion.result.body)
            self.note(process, "finishes", key, type(settlement).__name__, verdict.value, result)
            if verdict not in (Verdict.DONE, Verdict.COMPLETES):
                continue
            for message in completion.publish:
                self._published(process, message, worker=True)
            if verdict is Verdict.DONE and not isinstance(settlement, Hold):
                self._end(process, settlement)

    def _extend(self, process: str, deliveries: Any, lost: Any) -> None:
        self.note(process, "renews", [each.token for each in deliveries], "lost", [each.token for each in lost])

    def _settle(self, process: str, settlements: Any, refused: Any) -> None:
        tokens = {settlement.delivery.token for settlement in refused}
        for settlement in settlements:
            key = key_of(settlement.delivery.message)
            was = "refused" if settlement.delivery.token in tokens else "done"
            self.note(process, "settles", key, type(settlement).__name__, was)
            if settlement.delivery.token not in tokens:
                self._end(process, settlement)

    def _end(self, process: str, settlement: Any) -> None:
        delivery: Delivery = settlement.delivery
        key = key_of(delivery.message)
        if delivery.token in self._over:
            self.wrong.append(f"{process} ended {key} under {delivery.token}, which was over")
        self._over.add(delivery.token)
        if isinstance(settlement, Accept | DeadLetter):
            self.ended[key] += 1
            self.died += isinstance(settlement, DeadLetter)
            self.alive[key[0]] -= 1
            self.ended_at[key[0]] = self.last_end = self._world.timeline.time
        else:
            assert isinstance(settlement, Release)

    def _put(self, process: str, results: Any, answer: Any) -> None:
        for result in results:
            self.note(process, "stores", result.id, _state(result.body))

    def _join(self, process: str, parts: Any, complete: Any) -> None:
        for part in parts:
            self.note(process, "joins", part.chord, part.id, list(complete))

    def _close_chord(self, process: str, closing: Any, answer: Any) -> None:
        self.note(process, "closes", closing.chord, answer)

    def restored(self, tokens: list[str]) -> None:
        """Leases ran out."""
        for token in tokens:
            owner, key = self._claims.get(token, ("?", ("?", 0, 0)))
            self._over.add(token)
            self.note("broker", "restores", key, token)
            if owner not in self.excused and not self.is_excused(owner):
                self.wrong.append(f"the lease of {key} ran out, though {owner} was alive and connected")

    def is_excused(self, owner: str) -> bool:
        """Whether a lease of this owner may run out: a hook of the faults."""
        return False

    # -- looks -------------------------------------------------------------------------------------------------

    def times(self, key: Key) -> int:
        """How often an attempt may be sent, where nothing repeats it but those who send dead letters again."""
        return 1 + self._replays[self.root(key[0])]

    def root(self, task_id: str) -> str:
        """The id of the first task of its workflow."""
        return self._roots.get(task_id, task_id)

    def hash(self) -> str:
        """Of the whole trace."""
        return hashlib.sha256(repr(self.lines).encode()).hexdigest()

    def tail(self, about: str = "", count: int = 40) -> str:
        """The last lines, of one task if given."""
        lines = [line for line in self.lines if not about or about in repr(line)]
        return "\n".join("  ".join(map(str, line)) for line in lines[-count:])


def _state(body: bytes) -> str:
    for state in (b"SUCCESS", b"FAILURE", b"REVOKED", b"RETRY", b"STARTED"):
        if state in body[:64]:
            return state.decode()
    return "?"
