"""What type checkers know of tasks: never run, only checked (``test_typing.py``). Each ``ignore`` must be needed."""

from __future__ import annotations

from typing import Any, assert_type

from celeriac import Celery, Signature, Task, chain, shared_task
from celeriac.result import AsyncResult, EagerResult

app = Celery("proj")


@app.task
def add(x: int, y: int = 0) -> int:
    return x + y


@app.task(name="named", max_retries=5, verbose_name="anything")
def named(x: str) -> list[str]:
    return [x]


@app.task(bind=True, autoretry_for=(KeyError,))
def bound(self: Task[..., Any], x: int, *, flag: bool = False) -> str:
    raise self.retry(countdown=5) if flag else ValueError(x, self.request.id)


@app.task
async def coroutine(x: int) -> bytes:
    return bytes(x)


@app.task(bind=True)
async def bound_coroutine(self: Task[..., Any], x: int) -> bytes:
    return bytes(x)


@shared_task
def shared(x: float) -> float:
    return x


@shared_task(bind=True, name="shared")
def shared_bound(self: Task[..., Any], x: float) -> float:
    return x


class Mine(Task[[int], str]):
    serializer = "json"
    time_limit = 5

    def run(self, x: int) -> str:
        return str(x)


def steps(self: Task[..., Any]) -> None:
    assert_type(self.once("add", add, 1, y=2), int)
    assert_type(self.once("named", named, "a"), list[str])
    self.once("add", add, "1")  # type: ignore[arg-type]
    assert_type(self.step_key("add"), str)


async def coroutine_steps(self: Task[..., Any]) -> None:
    async def fetch(x: int) -> bytes:
        return bytes(x)

    assert_type(await self.once("fetch", fetch, 1), bytes)


def sending() -> None:
    assert_type(add.delay(1, y=2), AsyncResult[int])
    assert_type(add.apply_async((1, 2), queue="q", countdown=3), AsyncResult[int])
    assert_type(add.delay(1).get(timeout=3), int)
    assert_type(named.delay("a"), AsyncResult[list[str]])
    assert_type(bound.delay(1, flag=True), AsyncResult[str])
    assert_type(coroutine.delay(1), AsyncResult[bytes])
    assert_type(bound_coroutine.delay(1), AsyncResult[bytes])
    assert_type(shared.delay(1.5), AsyncResult[float])
    assert_type(shared_bound.delay(1.5), AsyncResult[float])
    assert_type(add.apply((1,)), EagerResult[int])
    assert_type(add.delay_many([(1, 2)]), list[AsyncResult[int]])
    assert_type(Mine().delay(1), AsyncResult[str])

    add.delay("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    add.delay()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    add.delay(1, z=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    bound.delay("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    coroutine.delay("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    bound_coroutine.delay("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    shared_bound.delay("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Mine().delay("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def calling() -> None:
    assert_type(add(1, 2), int)
    assert_type(bound(1), str)
    add("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def composing() -> None:
    assert_type(add.s(1), Signature[int])
    assert_type(add.si(1, 2), Signature[int])
    assert_type(add.s(1).set(countdown=3), Signature[int])
    assert_type(add.s(1).delay(2), AsyncResult[int])
    assert_type(chain(add.s(1), named.s()).delay(), AsyncResult[Any])
    add.si("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def awaiting() -> None:
    assert_type(await add.adelay(1), AsyncResult[int])
    assert_type(await (await add.aapply_async((1,))).aget(), int)
    assert_type(await coroutine(1), bytes)
    await add.adelay("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
