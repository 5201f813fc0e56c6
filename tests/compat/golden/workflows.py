"""Canvas calls, and what the worker sends on after the first steps (to the queue `parked`): `workflows.json`."""

# mypy: ignore-errors

import time
from collections.abc import Callable

from celery import chain, chord, group

from tests.compat.golden.app import add, echo, fail, failed, replace, typed
from tests.compat.golden.peer import client, other_keys, queued, sent, wait_for, worker


def workflows() -> dict:
    """Canvas calls: what the producer sends, and what the worker sends on after the first steps (queue `parked`)."""

    here, parked = {"queue": "work"}, {"queue": "parked"}
    calls = {
        "chain": lambda: chain(add.s(1, 2), add.s(3), add.s(4)).apply_async(),
        "chain_link_error": lambda: chain(add.s(1, 2), add.s(3)).apply_async(link_error=failed.s()),
        "chain_countdown": lambda: chain(add.s(1, 2), add.s(3).set(countdown=60)).apply_async(),
        "chain_immutable": lambda: chain(add.si(1, 2), add.si(3, 4)).apply_async(),
        "chain_of_group": lambda: chain(add.s(1, 2), group(add.s(3), add.s(4))).apply_async(),
        "chain_with_group_inside": lambda: chain(add.s(1, 2), group(add.s(3), add.s(4)), echo.s()).apply_async(),
        "group": lambda: group(add.s(1, 2), add.s(3, 4)).apply_async(),
        "group_of_chains": lambda: group(chain(add.s(1, 2), add.s(3)), add.s(4, 5)).apply_async(),
        "chord": lambda: chord([add.s(1, 2), add.s(3, 4)])(echo.s("sum")),
        "chord_error_callback": lambda: chord([add.s(1, 2), fail.s()])(echo.s().on_error(failed.s())),
        "chord_of_chains": lambda: chord([chain(add.s(1, 2), add.s(3)), add.s(4, 5)])(echo.s()),
        "chord_then_chain": lambda: chain(group(add.s(1, 2), add.s(3, 4)), echo.s("a"), echo.s("b")).apply_async(),
        "nested_chord": lambda: chord([chord([add.s(1, 2), add.s(3, 4)], echo.s("inner"))], echo.s("outer"))(),
        "map": lambda: add.map([(1, 2)]).apply_async(),
        "starmap": lambda: add.starmap([(1, 2), (3, 4)]).apply_async(),
        "chunks": lambda: add.chunks([(1, 2), (3, 4), (5, 6)], 2).apply_async(),
        "signature_options": lambda: add.signature((2, 3), countdown=60, priority=5, queue="other").apply_async(),
    }
    followed = {
        "chain_second_step": lambda: chain(add.s(1, 2).set(**here), add.s(3).set(**parked), add.s(4)).apply_async(),
        "chain_then_group": lambda: chain(
            add.s(1, 2).set(**here), group(add.s(3), add.s(4)).set(**parked)
        ).apply_async(),
        "link": lambda: add.apply_async((2, 3), link=add.s(10).set(**parked), **here),
        "link_error": lambda: fail.apply_async((2,), link_error=failed.s().set(**parked), **here),
        "link_error_immutable": lambda: fail.apply_async((2,), link_error=typed.si().set(**parked), **here),
        "chord_body": lambda: chord([add.s(1, 2).set(**here), add.s(3, 4).set(**here)])(echo.s("sum").set(**parked)),
        "replace": lambda: chain(replace.s().set(**here), add.s(1).set(**parked)).apply_async(),
    }
    found = {}
    for name, call in calls.items():
        found[name] = {"messages": sent(name, call), "keys": other_keys()}
    with worker():
        later = {name: followed_up(name, call) for name, call in followed.items()}
    return {"sent_by_the_producer": found, "sent_by_the_worker": later}


def followed_up(name: str, call: Callable[[], object]) -> list[dict]:
    client().flushdb()
    call()
    wait_for(lambda: client().llen("parked") or client().llen("celery"), f"a follow-up of {name}")
    time.sleep(0.3)
    return queued()
