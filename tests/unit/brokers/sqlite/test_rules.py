"""Rules in the file: their ends, their bound, and files that had none."""

from __future__ import annotations

import sqlite3

import pytest

from celeriac.brokers.sqlite import rules
from celeriac.model.rules import TOMBSTONE, RuleChange

NOW = 1_000.0


def keys(tables: sqlite3.Connection, after: int = 0) -> list[str]:
    return [rule.key for rule in rules.read(tables, after).rules]


def test_epochs_are_milliseconds_or_one_more(tables: sqlite3.Connection) -> None:
    assert rules.epoch(tables) == 0
    assert rules.write(tables, [RuleChange("a", b""), RuleChange("b", b"")], NOW) == 1_000_001
    assert rules.write(tables, [], NOW + 5) == rules.epoch(tables) == 1_000_001
    assert rules.write(tables, [RuleChange("c", b"")], NOW + 1) == 1_001_000
    assert rules.write(tables, [RuleChange("d", b"")], NOW) == 1_001_001, "a clock that was set back"


def test_dropped_rules_are_remembered_for_a_day(tables: sqlite3.Connection) -> None:
    before = rules.write(tables, [RuleChange("a", b""), RuleChange("b", b"")], NOW)
    rules.write(tables, [RuleChange("a", None)], NOW + 1)
    rules.write(tables, [RuleChange("c", b"")], NOW + TOMBSTONE)
    read = rules.read(tables, before)
    assert ([(rule.key, rule.value) for rule in read.rules], read.complete) == ([("a", None), ("c", b"")], False)
    rules.write(tables, [RuleChange("d", b"")], NOW + TOMBSTONE + 2)
    read = rules.read(tables, before)
    assert ([rule.key for rule in read.rules], read.complete) == (["b", "c", "d"], True)
    assert not rules.read(tables, read.epoch).complete


def test_only_the_newest_revoked_ids_are_kept(tables: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "RULES_LIMIT", 3)
    rules.write(
        tables, [RuleChange("pause:q", b""), *(RuleChange(f"revoke:{number}", b"") for number in range(5))], NOW
    )
    assert keys(tables) == ["pause:q", "revoke:2", "revoke:3", "revoke:4"]
    rules.write(tables, [RuleChange("revoke:2", b"again"), RuleChange("revoke:6", b"")], NOW + 1)
    assert keys(tables) == ["pause:q", "revoke:4", "revoke:2", "revoke:6"]


def test_keys_beside_the_bounded_ones_are_not_counted(
    tables: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "RULES_LIMIT", 1)
    rules.write(
        tables, [RuleChange(key, b"") for key in ("revoke", "revoked:x", "rate:t", "stamp:a=1", "revoke:1")], NOW
    )
    assert len(keys(tables)) == 5
