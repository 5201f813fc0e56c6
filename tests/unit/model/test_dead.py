"""Which dead letters are wanted."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.model.dead import ALL, DeadFilter, DeadRecord, dropped

RECORD = DeadRecord(
    key="k-17:celery", id="a1", task="shop.pay", queue="celery", reason="worker lost", detail="", traceback="",
    exception="ValueError: No Money", worker="", at=100.0, crashes=3, raw=b"",
)  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "fits"),
    [
        ({}, True),
        ({"task": "shop.pay"}, True),
        ({"task": "shop.*"}, True),
        ({"task": "*.p?y"}, True),
        ({"task": "Shop.pay"}, False),
        ({"task": "shop"}, False),
        ({"queue": "celery"}, True),
        ({"queue": "cel*"}, False),
        ({"reason": "worker lost"}, True),
        ({"reason": "failed"}, False),
        ({"exception": "valueerror"}, True),
        ({"exception": "no money"}, True),
        ({"exception": "KeyError"}, False),
        ({"since": 100.0}, True),
        ({"since": 100.1}, False),
        ({"before": 100.0}, False),
        ({"before": 100.1}, True),
        ({"ids": ("a1",)}, True),
        ({"ids": ("x", "k-1")}, True),
        ({"ids": ("1",)}, False),
        ({"task": "shop.*", "queue": "other"}, False),
    ],
)
def test_a_filter(fields: dict[str, Any], fits: bool) -> None:
    assert DeadFilter(**fields).matches(RECORD) is fits


def test_all_of_them() -> None:
    assert ALL.matches(RECORD)


def test_the_warning_names_both_settings() -> None:
    assert dropped(3).startswith("3 dead letters were dropped")
    assert "dead_letter_limit" in dropped(3)
    assert "dead_letter_max_bytes" in dropped(3)
