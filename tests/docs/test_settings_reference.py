"""The settings reference is what its script would write now."""

from __future__ import annotations

from celeriac.conf.setting import Level
from celeriac.conf.table import SETTINGS
from tools.settings_reference import PAGE, page


def test_it_is_current() -> None:
    assert PAGE.read_text("utf-8") == page(), "run: .venv/bin/python -m tools.settings_reference"


def test_it_names_every_setting_with_a_meaning() -> None:
    text = page()
    shown = [name for name, row in SETTINGS.items() if row.status.level is not Level.SILENT]
    assert [name for name in shown if f"`{name}`" not in text] == []
