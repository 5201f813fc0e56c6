"""What nobody has checked: the agent concludes what it withdrew and what the dead left."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from celeriac import Celery
from celeriac.codec.signing import Signer
from celeriac.model import outcome as o
from celeriac.model.limits import Seats
from celeriac.model.message import Delivery, Message
from celeriac.model.settle import DeadLetter, DeadReason
from celeriac.worker.runner import Runner
from tests.unit.worker.fakes import delivery, until
from tests.unit.worker.test_limits import limits_of


@pytest.mark.parametrize("outcome", [o.Revoked("revoked"), o.Crashed("signal 9"), o.TimedOut(1.0), o.Unknown()])
def test_what_a_stranger_wrote_is_not_decoded_whatever_its_end(
    app: Celery, runner: Runner, monkeypatch: pytest.MonkeyPatch, outcome: o.Outcome
) -> None:
    """The agent concludes what it withdrew and what the dead left: no child has checked these."""
    runner.signer = signer = Signer(b"a key of sixteen bytes")
    asked: list[Message] = []
    decoded = runner.decoded
    monkeypatch.setattr(runner, "decoded", lambda message: asked.append(message) or decoded(message))
    forged = delivery("add", 1, 2)
    completion = runner.conclude(forged, outcome)
    assert isinstance(completion.settlement, DeadLetter)
    assert (completion.settlement.reason, completion.settlement.detail) == (DeadReason.REFUSED, "signature missing")
    assert (completion.result, completion.publish, completion.parts, completion.others) == (None, (), (), ())
    assert asked == []
    own = replace(forged, message=signer.sign(forged.message))  # type: ignore[arg-type]
    assert not isinstance(runner.conclude(own, o.Revoked("revoked")).settlement, DeadLetter)
    assert asked == [own.message]


def test_what_a_stranger_wrote_is_not_decoded_for_its_seat() -> None:
    """The agent has settled what a dead child held, which may not have checked it."""
    limiter, limits = limits_of(max_concurrency=1, max_concurrency_key=lambda tenant: tenant)
    limits._runner.signer = signer = Signer(b"a key of sixteen bytes")
    decoded, asked = limits._runner.decoded, []
    limits._runner.decoded = lambda message: asked.append(message) or decoded(message)  # type: ignore[method-assign]
    forged = delivery("t", "acme")
    own = replace(forged, message=signer.sign(forged.message))  # type: ignore[arg-type]

    async def bury(each: Delivery) -> None:
        limits.buried([each])
        await until(lambda: limits._waking is None)

    asyncio.run(bury(forged))
    assert (asked, limiter.freed_seats) == ([], [])
    asyncio.run(bury(own))
    assert limiter.freed_seats == [{Seats("t[acme]", 1)}]
