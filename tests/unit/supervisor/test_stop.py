"""Warm or cold."""

from __future__ import annotations

import signal

import pytest

from celeriac.supervisor.stop import means_cold


def test_sigquit_is_cold_and_sigterm_is_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REMAP_SIGTERM", raising=False)
    assert means_cold(signal.SIGQUIT)
    assert not means_cold(signal.SIGTERM)
    assert not means_cold(signal.SIGINT)


def test_sigterm_can_be_remapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMAP_SIGTERM", "SIGQUIT")
    assert means_cold(signal.SIGTERM)
    assert not means_cold(signal.SIGINT)
