"""A scheduler written for Celery does with ours what it does with Celery 5.7, tick by tick."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def _told(python: str, *arguments: str) -> Any:
    done = subprocess.run(
        [python, "tests/compat/beat_peer.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src") if arguments else ""},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_same_tasks_at_the_same_times(celery_python: Path) -> None:
    theirs, ours = _told(str(celery_python)), _told(sys.executable, "ours")
    assert len(theirs["sent"]) > 40
    assert ours == theirs
