"""The protocols that adapters implement. Every sentence here is a test in ``celeriac.testing.conformance``.

Asynchronous ports are used from one event loop, by workers: batch-first. Blocking ports are used by producers:
safe in threads, after forks and in greenlets. All raise ``OperationalError`` when the server cannot be reached or
refuses, never a driver's error; none hangs: blocking calls take a timeout in seconds.
"""

from __future__ import annotations

from celeriac.model.dead import DeadRecord
from celeriac.ports.broker import Broker, Bus, Ledger, Limiter, Particular, Rules, Timekeeper, Unified
from celeriac.ports.facts import AdapterOptions, BindingFacts, Clock, Declaration, Depth, ReplyQueue, Traits
from celeriac.ports.outbox import OutboxStore, OutboxWriter
from celeriac.ports.producers import (
    STAGE_EXPIRES,
    BlockingLedger,
    Caller,
    DeadLetters,
    EachPublisher,
    OncePublisher,
    Publisher,
    RulesDesk,
    Stepwise,
    Timed,
)
from celeriac.ports.results import CHORD_DONE, CHORD_LOOK, PayloadStore, Reader, ResultStore
from celeriac.ports.scratch import Scratch

__all__ = [
    "CHORD_DONE",
    "CHORD_LOOK",
    "STAGE_EXPIRES",
    "AdapterOptions",
    "BindingFacts",
    "BlockingLedger",
    "Broker",
    "Bus",
    "Caller",
    "Clock",
    "DeadLetters",
    "DeadRecord",
    "Declaration",
    "Depth",
    "EachPublisher",
    "Ledger",
    "Limiter",
    "OncePublisher",
    "OutboxStore",
    "OutboxWriter",
    "Particular",
    "PayloadStore",
    "Publisher",
    "Reader",
    "ReplyQueue",
    "ResultStore",
    "Rules",
    "RulesDesk",
    "Scratch",
    "Stepwise",
    "Timed",
    "Timekeeper",
    "Traits",
    "Unified",
]
