"""The names of all keys and channels, and what goes into them: kombu's where kombu has one, ``celeriac:*`` elsewhere.

Pure: no connection. The one place that knows prefix, separator and priority steps. DESIGN §4 has the whole picture:

=============================  ======  ======================================================================
``<queue>``                    list    envelopes of priority step 0; LPUSH in, RPOP out (kombu)
``<queue>\\x06\\x16<step>``      list    envelopes of another step (kombu)
``unacked``                    hash    token → ``[envelope,"",queue]`` (kombu's form)
``unacked_index``              zset    token → epoch seconds of the last renewal (kombu's form; see ``LEASE``)
``unacked_mutex``              string  held by whoever restores foreign deliveries (kombu)
``celeriac:schedule:<queue>``  zset    ``<step>:<envelope>`` → due, epoch seconds
``celeriac:schedules``         set     queues that have a schedule
``celeriac:queues``            set     queues that workers have met; in a cluster alone (``cluster/``)
``celeriac:stage:<id>``        set     ready lists that a send of many messages, not complete yet, is meant for
the same + ``:<ready list>``   list    its messages for that list
``celeriac:rate:<bucket>``     string  ``<next start> <end of the line>``, epoch seconds (``model/limits.py``, Pace)
``celeriac:seats:<key>``       zset    tokens that hold a seat → inf; ``?<task id>`` → end of its promise, epoch seconds
``celeriac:parked:<park>``     list    ``<step>:<length of the id>:<id><envelope>``, those that wait for a seat;
                                       the left end is next; ``<park>`` is ``["<queue>","<key>"]``
``celeriac:parks``             hash    ``<park>`` → number of seats; only those in which somebody waits
``celeriac:purged:<purge>:…``  list    what a purge dropped: ``<queue>:schedule`` (a zset), ``<queue>:<step>``,
                                       ``<queue>:park:<n>``; searched for locks, gone after ten minutes
``celeriac:dead``              zset    ``<uuid>:<queue>`` → epoch seconds of the death
``celeriac:dead:records``      hash    the same member → JSON with all an operator needs
``celeriac:dead:counts``       hash    queue → how many of its messages are dead; "" → bytes of all records
``celeriac:rules``             hash    rule → value (``model/rules.py``); those that were dropped have none
``celeriac:rules:epoch``       string  the epoch of the last change, read by every claim
``celeriac:rules:epochs``      zset    rule → epoch of its last change
``celeriac:rules:ends``        zset    rule → epoch seconds at which it is over; a dropped one is forgotten then
``celeriac:rules:floor``       string  the last epoch of all dropped rules that are forgotten
``celery-task-meta-<id>``      string  result record; also the channel that announces it (Celery)
``celery-taskset-meta-<id>``   string  a saved group, or the form of a chord's header (Celery)
the same + ``.s``, ``.t``      string  members of a chord, and how many more it waits for (Celery)
the same + ``.j``              zset    values of those that have joined → their places; or a list (Celery)
the same + ``.d``              set     ``<id>:<place>`` of those that have joined (Celery)
the same + ``.c``              string  token of the one who is about to send the body, or ``done`` (Celery)
``celeriac:ledger:<key>``      string  a value of the ledger: locks of unique tasks, idempotency keys, steps
``celeriac:chord:<id>``        string  the encoded body of a chord
``celeriac:chords``            zset    chord → epoch seconds of the sweeper's next look
=============================  ======  ======================================================================
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence

import msgspec

from celeriac.brokers.redis.address import Address
from celeriac.exceptions import ImproperlyConfigured
from celeriac.model.message import Malformed, Message
from celeriac.ports import AdapterOptions

__all__ = ["LEASE", "SEPARATOR", "TOKEN", "Layout", "envelope_of"]

SEPARATOR = "\x06\x16"
#: The usual lease in seconds. The score of a token is the time of its last renewal, as in kombu; a lease that is longer
#: or shorter shifts it, so that every maintainer knows the end of every lease without knowing its length.
LEASE = 30.0
#: Redis keeps small sorted sets as flat lists, where each insertion parses every score: 18 µs an element instead of 1.
#: Members longer than 64 bytes make it a skip list from the start.
_TOKEN_LENGTH = 65
#: Every token of ours starts so; whatever else is in ``unacked_index`` belongs to Celery workers.
TOKEN = "celeriac:"
_STEPS = (0, 3, 6, 9)
_json_text = msgspec.json.Encoder().encode


class Layout:
    """Key names under one prefix."""

    def __init__(self, address: Address, options: AdapterOptions) -> None:
        get = options.transport.get
        prefix = self.prefix = address.key_prefix
        #: ``LEASE``, or less where Celery workers restore earlier: they read the score by their visibility timeout.
        self.usual_lease = min(LEASE, options.visibility_timeout)
        self.lease_shift = options.lease - self.usual_lease
        self.separator = str(get("sep", SEPARATOR))
        try:
            self.steps = tuple(sorted(int(step) for step in get("priority_steps", _STEPS))) or _STEPS
        except (TypeError, ValueError):
            raise ImproperlyConfigured("priority_steps must be a list of numbers") from None
        self.unacked = prefix + str(get("unacked_key", "unacked"))
        self.index = prefix + str(get("unacked_index_key", "unacked_index"))
        self.mutex = prefix + str(get("unacked_mutex_key", "unacked_mutex"))
        self.mutex_expire = int(get("unacked_mutex_expire", 300))
        self.schedules = f"{prefix}celeriac:schedules"
        self.parks = f"{prefix}celeriac:parks"
        self.queues = f"{prefix}celeriac:queues"
        self.dead = f"{prefix}celeriac:dead"
        self.dead_records = f"{prefix}celeriac:dead:records"
        self.dead_counts = f"{prefix}celeriac:dead:counts"
        #: What every script that ends deliveries gets first.
        self.fixed = (self.unacked, self.index, self.dead, self.dead_records, self.dead_counts, self.schedules)
        #: The keys of the rules, in the order of ``lua/rules_set.lua``.
        self.rules = tuple(f"{prefix}celeriac:rules{part}" for part in (":epoch", "", ":epochs", ":ends", ":floor"))
        self._result_prefix = f"{_result_prefix(prefix)}celery-task-meta-"
        self._group_prefix = f"{_result_prefix(prefix)}celery-taskset-meta-"
        self.chords = f"{prefix}celeriac:chords"
        #: Whether members of chords are kept by their places (Celery's default), or as they come.
        self.chord_ordered = bool(get("result_chord_ordered", True))
        self._fanout = prefix + _fanout_prefix(get("fanout_prefix", True), address.db)
        self._fanout_patterns = bool(get("fanout_patterns", True))
        self._lists: dict[str, tuple[str, ...]] = {}

    def lists(self, queue: str) -> tuple[str, ...]:
        """The ready lists of a queue, the step that is taken first in front."""
        found = self._lists.get(queue)
        if found is None:
            base = self.prefix + queue
            found = tuple(f"{base}{self.separator}{step}" if step else base for step in self.steps)
            self._lists[queue] = found
        return found

    def rank(self, priority: int) -> int:
        """Position of a priority's step: rounded down to a step, as kombu does."""
        return max(bisect(self.steps, priority) - 1, 0) if priority else 0

    def ready(self, queue: str, message: Message | Malformed) -> str:
        """The ready list that a message belongs to."""
        priority = 0 if isinstance(message, Malformed) else message.priority
        return self.lists(queue)[self.rank(priority)]

    def schedule(self, queue: str) -> str:
        """The schedule of a queue."""
        return f"{self.prefix}celeriac:schedule:{queue}"

    def stage(self, name: str) -> str:
        """The set of ready lists that a stage is meant for; what is for each is in ``<this>:<ready list>``."""
        return f"{self.prefix}celeriac:stage:{name}"

    def rate(self, bucket: str) -> str:
        """The pace of a bucket."""
        return f"{self.prefix}celeriac:rate:{bucket}"

    def seats(self, key: str) -> str:
        """Who holds a seat."""
        return f"{self.prefix}celeriac:seats:{key}"

    def park(self, field: str) -> str:
        """Those that wait for a seat, by their field in ``parks``."""
        return f"{self.prefix}celeriac:parked:{field}"

    def scheduled(self, message: Message | Malformed, envelope: bytes) -> bytes:
        """The member that stands for a message in its schedule."""
        priority = 0 if isinstance(message, Malformed) else message.priority
        return b"%d:%b" % (self.steps[self.rank(priority)], envelope)

    def result(self, task_id: str) -> str:
        """Key and channel of a result record."""
        return self._result_prefix + task_id

    def result_id(self, key: str) -> str:
        """The task of a result key."""
        return key[len(self._result_prefix) :]

    def ledger(self, key: str) -> str:
        """Key of a value of the ledger."""
        return f"{self.prefix}celeriac:ledger:{key}"

    def purged(self, queue: str, number: str) -> tuple[str, ...]:
        """Where schedule and ready lists of a queue are set aside by its purge of that number."""
        aside = f"{self.prefix}celeriac:purged:{number}:{queue}"
        return f"{aside}:schedule", *(f"{aside}:{step}" for step in self.steps)

    def purged_park(self, queue: str, number: str, index: int) -> str:
        """Where a park of a queue is set aside by its purge of that number."""
        return f"{self.prefix}celeriac:purged:{number}:{queue}:park:{index}"

    def group(self, group_id: str) -> str:
        """Key of a saved group."""
        return self._group_prefix + group_id

    def chord(self, chord_id: str) -> tuple[str, ...]:
        """The seven keys of a chord, in the order of ``lua/chord.lua``."""
        group = self._group_prefix + chord_id
        return (
            f"{group}.s", f"{group}.t", f"{group}.j", f"{group}.d", f"{group}.c", group,
            f"{self.prefix}celeriac:chord:{chord_id}",
        )  # fmt: skip

    def bindings(self, exchange: str) -> str:
        """kombu's set of queues bound to an exchange."""
        return f"{self.prefix}_kombu.binding.{exchange}"

    @property
    def binding_deadlines(self) -> str:
        """kombu's zset: exchange → epoch milliseconds until which its bindings are kept."""
        return f"{self.prefix}_kombu.binding_deadlines"

    def topic(self, exchange: str, routing_key: str = "") -> str:
        """The channel of a fan-out exchange."""
        if routing_key and self._fanout_patterns:
            return f"{self._fanout}{exchange}/{routing_key}"
        return self._fanout + exchange

    @staticmethod
    def token_form(owner: str) -> str:
        """The tokens of an owner as a format for their number, for Python's and for Lua's printf."""
        start = f"{TOKEN}{owner}:"
        return f"{start.replace('%', '%%')}%0{max(_TOKEN_LENGTH - len(start.encode()), 1)}d"

    @staticmethod
    def tail(queue: str) -> bytes:
        """The end of an ``unacked`` entry of ours, after the envelope."""
        return b',"",%b]' % _json_text(queue)


def envelope_of(entry: bytes) -> tuple[bytes, str] | None:
    """Envelope and queue of an ``unacked`` entry of ours, whatever the envelope looks like; None if it is not ours."""
    cut = entry.rfind(b',"","')
    if cut < 1 or not entry.startswith(b"[") or not entry.endswith(b"]"):
        return None
    try:
        return entry[1:cut], msgspec.json.decode(entry[cut + 4 : -1], type=str)
    except msgspec.MsgspecError:
        return None


def unique(names: Sequence[str]) -> tuple[str, ...]:
    """The names in their order, each once."""
    return tuple(dict.fromkeys(names))


def _result_prefix(prefix: str) -> str:
    # Celery puts an underscore between a result prefix and its key, unless the prefix ends like this.
    return f"{prefix}_" if prefix and prefix[-1] not in ":_-." else prefix


def _fanout_prefix(option: object, db: int) -> str:
    if not option:
        return ""
    return (option if isinstance(option, str) else "/{db}.").format(db=db)
