"""Every sentence of ``celeriac.ports`` as a test. Who writes an adapter runs it against his own server::

    from celeriac.testing.conformance import Conformance, Harness

    class NatsHarness(Harness):
        adapter = my_package.nats           # the module with broker(), store(), publisher(), reader(), caller() ...
        url = "nats://localhost:4222"

        async def inject(self, queue, raw): ...      # put raw bytes behind the messages of a queue

    class TestNats(Conformance):
        @pytest.fixture
        def harness(self):
            yield NatsHarness()             # a name space of its own for each test

Needs nothing but pytest; the model-based test is skipped without Hypothesis. What a harness cannot do is skipped.
"""

from __future__ import annotations

import pytest

# Before the tests are imported: so that a broken sentence shows its values.
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            "tools",
            "model",
            "lifecycle",
            "order",
            "schedule",
            "leases",
            "settling",
            "dead",
            "payloads",
            "waiting",
            "limits",
            "putting_off",
            "finishing",
            "results",
            "chords",
            "joining",
            "ledger",
            "each",
            "producers",
            "faults",
            "remote",
            "histories",
            "rules",
            "withdrawing",
        )
    )
)

from celeriac.testing.conformance.harness import Harness  # noqa: E402
from celeriac.testing.conformance.suite import Conformance  # noqa: E402

__all__ = ["Conformance", "Harness"]
