"""docs/reference/cli.md says what the commands say."""

from __future__ import annotations

from tools.cli_reference import PAGE, page


def test_the_page_is_current() -> None:
    assert PAGE.read_text("utf-8") == page(), "run: .venv/bin/python -m tools.cli_reference"
