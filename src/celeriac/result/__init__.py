"""Results: what ``delay()`` and workflows return, for asking and waiting. Celery's ``celery.result``.

One task: ``single.py``. A task that ran in place: ``eager.py``. Many tasks: ``sets.py``. What was sent by what:
``graph.py``. All read through ``app.backend.reader``; none knows a server.
"""

from __future__ import annotations

from celeriac.client.joining import allow_join_result, assert_will_not_block, denied_join_result
from celeriac.result.eager import EagerResult
from celeriac.result.graph import DependencyGraph
from celeriac.result.sets import GroupResult, ResultSet
from celeriac.result.single import AsyncResult, ResultBase, result_from_tuple

__all__ = [
    "AsyncResult",
    "DependencyGraph",
    "EagerResult",
    "GroupResult",
    "ResultBase",
    "ResultSet",
    "allow_join_result",
    "assert_will_not_block",
    "denied_join_result",
    "result_from_tuple",
]
