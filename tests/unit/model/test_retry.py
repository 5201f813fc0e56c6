"""Backoff and autoretry: pure arithmetic."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from celeriac.model.options import TaskOptions
from celeriac.model.retry import autoretry, backoff, delay


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True), st.floats(0.1, 60), st.floats(1, 3600))
def test_backoff_stays_within_its_span(retries: int, rand: float, base: float, maximum: float) -> None:
    span = backoff(retries, base=base, maximum=maximum, jitter=False, rand=rand)
    assert span == min(maximum, base * 2 ** min(retries, 64))
    assert 0 <= backoff(retries, base=base, maximum=maximum, rand=rand) <= span


def test_autoretry_asks_for_the_right_errors_only() -> None:
    options = TaskOptions(name="x", autoretry_for=(OSError,), dont_autoretry_for=(FileNotFoundError,), retry_backoff=2)
    assert autoretry(options, OSError(), 0, 0.5) == 1.0
    assert autoretry(options, FileNotFoundError(), 0, 0.5) is None
    assert autoretry(options, ValueError(), 0, 0.5) is None
    assert autoretry(options, OSError(), 3, 0.5) is None


def test_retry_kwargs_win() -> None:
    options = TaskOptions(name="x", autoretry_for=(OSError,), retry_max_retries=5, retry_countdown=7.0, retry_backoff=2)
    assert autoretry(options, OSError(), 4, 0.5) == 7.0
    assert autoretry(options, OSError(), 5, 0.5) is None


def test_for_ever_means_for_ever() -> None:
    options = TaskOptions(name="x", autoretry_for=(OSError,), max_retries=None)
    assert autoretry(options, OSError(), 10**6, 0.0) == 0.0


def test_an_explicit_delay_wins_over_backoff() -> None:
    assert delay(TaskOptions(name="x", default_retry_delay=180.0), 5, 0.1) == 180.0
    assert delay(TaskOptions(name="x"), 3, 0.5) == 4.0
