"""Pid files: written, refused while their process lives, replaced when it is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from celeriac.exceptions import CeleryCommandException
from celeriac.supervisor.pidfile import EX_CANTCREAT, PidFile


def test_it_holds_our_pid_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "w.pid"
    with PidFile(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


def test_a_living_process_is_respected(tmp_path: Path) -> None:
    path = tmp_path / "w.pid"
    path.write_text(f"{os.getppid()}\n")
    with pytest.raises(CeleryCommandException, match="which runs") as caught, PidFile(str(path)):
        pass
    assert caught.value.exit_code == EX_CANTCREAT
    assert path.read_text() == f"{os.getppid()}\n"


def gone() -> str:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return str(process.pid)


@pytest.mark.parametrize("content", ["", "rubbish", "0", "own", "gone"])
def test_what_is_stale_is_replaced(content: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pid"
    path.write_text({"own": str(os.getpid()), "gone": gone()}.get(content, content))
    with PidFile(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_place_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(CeleryCommandException, match="cannot write pid file"), PidFile(str(tmp_path / "no" / "w.pid")):
        pass


def test_a_file_that_another_took_stays(tmp_path: Path) -> None:
    path = tmp_path / "w.pid"
    with PidFile(str(path)):
        path.write_text("1\n")
    assert path.exists()
