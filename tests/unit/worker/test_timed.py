"""Limits of coroutines; limits are hundredths of seconds here, and nothing waits for more than one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from celeriac.exceptions import SoftTimeLimitExceeded
from celeriac.model import outcome as o
from celeriac.worker import timed as timed_module
from celeriac.worker.timed import run_timed
from tests.servers import eventually

SHORT = 0.01


async def for_ever(request: Any) -> o.Outcome:
    await asyncio.Event().wait()
    raise AssertionError


def timed(arun: Callable[[Any], Awaitable[Any]], *, soft: float | None = None, hard: float | None = None) -> o.Outcome:
    async def main() -> o.Outcome:
        return await run_timed(arun, None, soft=soft, hard=hard)

    return asyncio.run(main())


@pytest.mark.parametrize(("soft", "hard"), [(None, 60.0), (60.0, None), (30.0, 60.0)])
def test_within_the_limits(soft: float | None, hard: float | None) -> None:
    async def quick(request: Any) -> o.Outcome:
        return o.Success(5)

    assert timed(quick, soft=soft, hard=hard) == o.Success(5)


@pytest.mark.parametrize("hard", [None, 60.0])
def test_the_soft_limit(hard: float | None) -> None:
    outcome = timed(for_ever, soft=SHORT, hard=hard)
    assert isinstance(outcome, o.Failure)
    assert isinstance(outcome.exc, SoftTimeLimitExceeded)
    assert outcome.exc.args == (SHORT,)


def test_at_the_soft_limit_it_may_clean_up_and_succeed() -> None:
    async def careful(request: Any) -> o.Outcome:
        try:
            return await for_ever(request)
        except asyncio.CancelledError:
            return o.Success("partly")

    assert timed(careful, soft=SHORT, hard=60.0) == o.Success("partly")


def test_what_it_makes_of_the_soft_limit_is_its_own() -> None:
    async def failing(request: Any) -> o.Outcome:
        try:
            return await for_ever(request)
        except asyncio.CancelledError as error:
            return o.Failure(ValueError(str(error)), "tb")

    outcome = timed(failing, soft=SHORT)
    assert isinstance(outcome, o.Failure)
    assert isinstance(outcome.exc, ValueError)


def test_the_tracers_word_for_a_cancellation_is_the_soft_limit() -> None:
    async def traced(request: Any) -> o.Outcome:
        try:
            return await for_ever(request)
        except asyncio.CancelledError as error:
            return o.Failure(error, "where")

    outcome = timed(traced, soft=SHORT)
    assert isinstance(outcome, o.Failure)
    assert isinstance(outcome.exc, SoftTimeLimitExceeded)
    assert outcome.traceback == "where"


async def stubborn(request: Any) -> o.Outcome:
    while not request.is_set():
        try:
            await request.wait()
        except asyncio.CancelledError:
            pass
    return o.Success(1)


@pytest.mark.parametrize("soft", [None, SHORT / 2])
def test_the_hard_limit_waits_for_nobody(soft: float | None) -> None:
    async def main() -> o.Outcome:
        event = asyncio.Event()
        try:
            return await asyncio.wait_for(run_timed(stubborn, event, soft=soft, hard=SHORT), 30)
        finally:
            event.set()

    assert asyncio.run(main()) == o.TimedOut(SHORT)


def test_one_that_cancels_itself_met_no_limit() -> None:
    async def suicidal(request: Any) -> o.Outcome:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return await for_ever(request)

    outcome = timed(suicidal, hard=60.0)
    assert isinstance(outcome, o.Failure)
    assert isinstance(outcome.exc, asyncio.CancelledError)


def test_ended_on_request_the_coroutine_ends_and_cleans_up_first() -> None:
    steps: list[str] = []

    async def running(request: Any) -> o.Outcome:
        try:
            return await for_ever(request)
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned up")

    async def main() -> None:
        outer = asyncio.create_task(run_timed(running, None, soft=50.0, hard=60.0))
        for _ in range(3):
            await asyncio.sleep(0)
        outer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer
        steps.append("over")

    asyncio.run(main())
    assert steps == ["cleaned up", "over"]


def test_ended_on_request_a_stubborn_one_is_not_waited_for_beyond_its_hard_limit() -> None:
    async def main() -> None:
        event = asyncio.Event()
        outer = asyncio.create_task(run_timed(stubborn, event, soft=None, hard=SHORT * 3))
        await asyncio.sleep(0)
        outer.cancel()
        done, _ = await asyncio.wait({outer}, timeout=30)
        assert done
        event.set()

    asyncio.run(main())


def test_the_soft_limit_has_its_name_inside() -> None:
    async def careful(request: Any) -> o.Outcome:
        try:
            return await for_ever(request)
        except SoftTimeLimitExceeded as late:
            await asyncio.sleep(0)  # it is not cancelled any more
            return o.Success((type(late).__name__, type(late).__module__, late.args))

    outcome = timed(careful, soft=SHORT, hard=60.0)
    assert outcome == o.Success(("SoftTimeLimitExceeded", SoftTimeLimitExceeded.__module__, (SHORT,)))


def test_groups_end_what_they_have_started() -> None:
    ended: list[str] = []

    async def part() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("part")

    async def grouping(request: Any) -> o.Outcome:
        try:
            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                group.create_task(part())
                group.create_task(part())
        except SoftTimeLimitExceeded:
            return o.Success(list(ended))
        raise AssertionError

    assert timed(grouping, soft=SHORT) == o.Success(["part"] * 2)


def test_in_the_body_of_a_group_it_is_the_soft_limit_all_the_same() -> None:
    """Python 3.11 makes an exception group of it, later ones do not."""

    async def traced(request: Any) -> o.Outcome:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.Event().wait())
                await asyncio.gather(asyncio.Event().wait(), asyncio.Event().wait())
        except Exception as error:  # noqa: BLE001
            return o.Failure(error, "where")
        raise AssertionError

    outcome = timed(traced, soft=SHORT)
    assert isinstance(outcome, o.Failure)
    assert type(outcome.exc) is SoftTimeLimitExceeded


def test_a_second_cancellation_is_one() -> None:
    """Only the first is the soft limit; at the hard one it is cancelled."""
    seen: list[str] = []

    async def stubborn(request: Any) -> o.Outcome:
        for _ in range(2):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as error:
                seen.append(type(error).__name__)
        raise asyncio.CancelledError

    assert timed(stubborn, soft=SHORT, hard=2 * SHORT) == o.TimedOut(2 * SHORT)


@pytest.mark.parametrize("soft", [0.01, 0.02])
def test_a_soft_limit_that_is_not_below_the_hard_one_is_none(soft: float) -> None:
    assert timed(for_ever, soft=soft, hard=SHORT) == o.TimedOut(SHORT)


@pytest.mark.parametrize("deaf", [True, False])
def test_who_goes_on_after_the_hard_limit_is_told_of(deaf: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timed_module, "MERCY", SHORT)
    stuck: list[bool] = []

    async def body(request: Any) -> o.Outcome:
        while not request.is_set():
            try:
                await request.wait()
            except asyncio.CancelledError:
                if not deaf:
                    raise
        return o.Success(None)

    async def main() -> o.Outcome:
        end = asyncio.Event()
        outcome = await run_timed(body, end, soft=None, hard=SHORT, stuck=lambda: stuck.append(True))
        if deaf:
            await eventually(lambda: stuck, 30.0, "it is told")
        else:
            await asyncio.sleep(3 * SHORT)
        end.set()
        return outcome

    assert asyncio.run(main()) == o.TimedOut(SHORT)
    assert stuck == [True] * deaf
