"""Orders that outlive the agent which was told them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from celeriac.worker import kept as module
from celeriac.worker.kept import KeptOrders


@pytest.fixture
def kept() -> Iterator[KeptOrders]:
    made = KeptOrders()
    yield made
    made.close()


def put(kept: KeptOrders, raw: bytes) -> None:
    """Append as a writer that is killed may."""
    os.pwrite(kept._file, raw, os.fstat(kept._file).st_size)


def test_the_newest_count(kept: KeptOrders) -> None:
    assert kept.read() == {}
    kept.write({"events": {"on": True}})
    kept.write({"events": {"on": False}, "queues": {"queues": ["a\n"]}})
    assert kept.read() == {"events": {"on": False}, "queues": {"queues": ["a\n"]}}


def test_who_dies_while_writing_has_changed_nothing(kept: KeptOrders) -> None:
    kept.write({"events": {"on": True}})
    put(kept, b'{"events": {"on"')
    assert kept.read() == {"events": {"on": True}}
    kept.write({"events": {"on": False}})
    assert kept.read() == {"events": {"on": False}}


@pytest.mark.parametrize("raw", [b"rubbish\n", b"[1]\n", b'{"a": 1}\n', b"\xff\n", b"\n", b"half"])
def test_what_cannot_be_read_is_nothing(kept: KeptOrders, raw: bytes) -> None:
    put(kept, raw)
    assert kept.read() == {}
    kept.write({"a": {}})
    assert kept.read() == {"a": {}}


def test_it_does_not_grow_for_ever(kept: KeptOrders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 100)
    for number in range(100):
        kept.write({"rate_limit": {"rates": {"t": number}}})
        assert kept.read() == {"rate_limit": {"rates": {"t": number}}}
        assert os.fstat(kept._file).st_size <= 100
