"""mypy and pyright agree on ``calls.py``: what fits, and that what does not is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def check(*command: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_mypy() -> None:
    pytest.importorskip("mypy")
    check("mypy", "--strict", "--follow-imports=silent", str(HERE / "calls.py"))


def test_pyright(tmp_path: Path) -> None:
    pytest.importorskip("pyright")
    settings = tmp_path / "pyrightconfig.json"
    settings.write_text(
        f'{{"include": ["{HERE / "calls.py"}"], "extraPaths": ["{ROOT / "src"}"],'
        ' "reportUnnecessaryTypeIgnoreComment": true, "enableTypeIgnoreComments": false}'
    )
    check("pyright", "--project", str(settings), "--pythonpath", sys.executable)
