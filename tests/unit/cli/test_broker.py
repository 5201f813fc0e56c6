"""What `broker test` says in the end."""

from __future__ import annotations

import pytest

from celeriac.cli.broker import _verdict


@pytest.mark.parametrize(
    ("held", "broken", "said"),
    [
        (30, 0, "All 30 sentences hold."),
        (29, 1, "29 sentences hold, 1 are broken."),
        (0, 0, "Nothing was tested: all of it is skipped."),
    ],
)
def test_the_last_line(held: int, broken: int, said: str) -> None:
    assert _verdict(held, broken) == said
