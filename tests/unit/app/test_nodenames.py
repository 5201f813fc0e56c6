"""Names of nodes and %-letters, as Celery resolves them."""

from __future__ import annotations

import pytest

from celeriac.app.nodenames import expand, node_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (None, "celery@box.example.com"),
        ("", "celery@box.example.com"),
        ("w1@%h", "w1@box.example.com"),
        ("w1@%n", "w1@box"),
        ("w1@%d", "w1@example.com"),
        ("w%%1@%h", "w%1@box.example.com"),
        ("w1@other", "w1@other"),
        ("w1@", "w1@box.example.com"),
        ("other", "celery@other"),
        ("%h", "celery@box.example.com"),
    ],
)
def test_node_name(text: str | None, name: str) -> None:
    assert node_name(text, "box.example.com") == name


@pytest.mark.parametrize(
    ("text", "index", "name"),
    [
        ("%n.log", 0, "w1.log"),
        ("%n%I.log", 0, "w1.log"),
        ("%n%I.log", 2, "w1-2.log"),
        ("%n-%i.log", 0, "w1-0.log"),
        ("%p-%h-%d.log", 0, "w1@box.org-box.org-org.log"),
        ("100%%-%x.log", 0, "100%-%x.log"),
    ],
)
def test_expand(text: str, index: int, name: str) -> None:
    assert expand(text, "w1@box.org", index=index) == name
