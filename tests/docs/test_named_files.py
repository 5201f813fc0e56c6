"""Each file that the docs name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")})
TREES = ("src", "tests", "tools", "docs", "bench", "examples", "requirements", ".ci")
CODE = re.compile(rf"`((?:{'|'.join(map(re.escape, TREES))})/[\w./-]*)`")
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")


def named(page: Path) -> list[Path]:
    text = page.read_text("utf-8")
    return [ROOT / name for name in CODE.findall(text)] + [page.parent / name for name in LINK.findall(text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_exist(page: Path) -> None:
    assert [str(path) for path in named(page) if not path.exists()] == []
