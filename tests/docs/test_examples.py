"""Every example in README and docs runs, and prints what the page says. See `page.py` for how pages are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.page import REDIS, ROOT, Shell, blocks

PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").rglob("*.md") if "adr" not in path.parts)]
WITH_EXAMPLES = [page for page in PAGES if any(block.language not in ("", "text") for block in blocks(page))]
LANGUAGES = {"python", "pycon", "console", "sh", "text", "", "ini", "toml"}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=name)
def test_examples_run(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    text = page.read_text("utf-8")
    redis_url = request.getfixturevalue("redis_url") if REDIS in text else ""
    folder = tmp_path / "work"
    folder.mkdir()
    shell = Shell(folder, redis_url)
    try:
        for block in blocks(page):
            shell.run(block)
    finally:
        shell.close()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_fence_is_understood(page: Path) -> None:
    fences = [line for line in page.read_text("utf-8").splitlines() if line.startswith("```")]
    found = list(blocks(page))
    assert len(fences) == 2 * len(found), "a fence is not closed"
    assert {block.language for block in found} <= LANGUAGES


def test_every_page_is_reachable() -> None:
    linked = "".join(page.read_text("utf-8") for page in PAGES)
    assert [name(page) for page in PAGES[1:] if page.name not in linked] == []
