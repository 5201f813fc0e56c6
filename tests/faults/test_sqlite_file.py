"""What can happen to a SQLite file: gone, read-only, full disk, somebody else's, locked for long."""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from celeriac.exceptions import OperationalError
from tests.faults.journal import report
from tests.faults.load import Load
from tests.faults.place import Place
from tests.faults.scenario import scenario
from tests.servers import wait_until


def _sound(path: Path) -> bool:
    with closing(sqlite3.connect(path, timeout=10)) as file:
        return bool(file.execute("PRAGMA integrity_check").fetchone()[0] == "ok")


@scenario(
    "file",
    fault="the file is removed",
    promise="what was in it is gone, what is sent afterwards runs",
)
def test_the_file_is_removed(sqlite_place: Place) -> None:
    """What was in it is gone with it; producer and worker notice, say so, and go on with a new one."""
    place = sqlite_place
    with place.fleet(worker_lease=30) as fleet:
        node = fleet.start("-c", "2")
        below = sorted(node.below())
        place.wait_state(place.send("work", 1, 1), "SUCCESS")
        for path in place.folder.glob("celeriac.db*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        node.logged("replaced", 15.0)
        began = time.monotonic()
        ids = place.send_many("work", [(number, 1) for number in range(50)])
        place.wait_all(fleet, ids, 15.0)
        recovery = time.monotonic() - began
        place.judge(fleet, {each: number for number, each in enumerate(ids)}, allowed=0, recovery=recovery)
        assert sorted(node.below()) == below
        assert _sound(place.path)
        assert node.stop() == 0


def test_a_file_that_is_somebody_elses(sqlite_place: Place) -> None:
    with closing(sqlite3.connect(sqlite_place.path)) as file:
        file.execute("CREATE TABLE theirs (x)")
        file.commit()
    with pytest.raises(OperationalError, match="another program"):
        sqlite_place.send("work", 1, 1)
    sqlite_place.path.write_bytes(b"no database at all, but a text of more than a hundred bytes" * 20)
    place = sqlite_place.through()
    with pytest.raises(OperationalError) as caught:
        place.send("work", 1, 1)
    assert str(place.path) in str(caught.value)
    with place.fleet() as fleet:
        node = fleet.start("-c", "1", wait=False)
        line = node.logged("next try in")
        assert str(place.path) in line
        assert node.stop(10.0) == 0
    assert place.path.read_bytes().startswith(b"no database"), "a foreign file must stay as it is"


@scenario(
    "file",
    fault="another process locks the file",
    promise="the sender is told in time, the worker waits",
)
def test_a_file_locked_for_long(sqlite_place: Place) -> None:
    # The lock must not outlast the lease: what cannot be renewed belongs to another.
    place = sqlite_place.through(broker_publish_timeout=2, worker_lease=20)
    with place.fleet() as fleet:
        node = fleet.start("-c", "2")
        ids = place.send_many("work", [(number, 10) for number in range(100)])
        wait_until(lambda: fleet.journal.ended(ids) >= 10, 10.0, fleet.logs)
        with closing(sqlite3.connect(place.path, timeout=10, isolation_level=None)) as file:
            file.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            with pytest.raises(OperationalError, match="lock"):
                place.send("work", 1, 1)
            took = time.monotonic() - began
            file.execute("ROLLBACK")
        place.wait_all(fleet, ids, 15.0)
        place.judge(fleet, {each: number for number, each in enumerate(ids)}, allowed=0, delay_failed_after=took)
        assert 1.5 < took < 10.0
        assert node.stop() == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB; skipped where nobody may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], check=False, capture_output=True)
    if mount.returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True, capture_output=True)


@scenario(
    "file",
    fault="the disk is full",
    promise="the sender is told, the worker drains when there is room, the file stays sound",
)
def test_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    """Producers are told; the worker waits, and drains when there is room again; nothing is corrupt."""
    place = Place(f"sqlite:///{small_disk / 'celeriac.db'}", tmp_path)
    numbers: dict[str, int] = {}
    assert "full" in str(place.fill(numbers, 10_000))
    with place.fleet(worker_lease=30) as fleet:
        node = fleet.start("-c", "2", wait=False)
        node.logged("full")
        subprocess.run(["mount", "-o", "remount,size=40m", small_disk], check=True, capture_output=True)
        began = time.monotonic()
        place.wait_all(fleet, list(numbers), 30.0)
        kept = {each: number for each, number in numbers.items() if number % 2}
        place.judge(fleet, kept, allowed=0, sent_in_all=len(numbers), seconds=time.monotonic() - began)
        assert node.stop() == 0
    assert _sound(place.path)


@scenario(
    "file",
    fault="the file system becomes read-only",
    promise="the sender is told, the worker waits",
)
def test_a_read_only_file(small_disk: Path, tmp_path: Path) -> None:
    place = Place(f"sqlite:///{small_disk / 'celeriac.db'}", tmp_path)
    first = place.send("work", 1, 1)
    place.app.close()
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(remount, check=True, capture_output=True)
    with pytest.raises(OperationalError) as caught:
        place.send("work", 2, 1)
    assert str(place.path) in str(caught.value)
    place.app.close()
    with place.fleet() as fleet:
        node = fleet.start("-c", "1", wait=False)
        assert str(place.path) in node.logged("next try in")
        remount[2] = "remount,rw"
        subprocess.run(remount, check=True, capture_output=True)
        place.wait_state(first, "SUCCESS")
        report(place=place.kind, sent=1, lost=0, again=fleet.journal.again([first]))
        assert node.stop() == 0
    assert _sound(place.path)


@scenario(
    "file",
    fault="everybody who has the file open is killed in the middle of writing, again and again",
    promise="the file stays sound, nothing that was accepted is lost",
)
def test_killed_while_writing(sqlite_place: Place, rng: random.Random, fault_scale: float) -> None:
    place = sqlite_place
    rounds = round(3 * fault_scale)
    with place.fleet() as fleet:
        with Load(place, rng, rate=150, milliseconds=(0, 3)) as load:
            for _ in range(rounds):
                node = fleet.start("-c", "2")
                ended = fleet.journal.read().ends.total()
                wait_until(lambda was=ended: fleet.journal.read().ends.total() > was + 50, 30.0)  # type: ignore[misc]
                node.signal_tree(signal.SIGKILL)
                assert _sound(place.path)
        last = fleet.start("-c", "2")
        ids = list(load.numbers)
        place.wait_all(fleet, ids, 20.0)
        place.judge(fleet, load.numbers, allowed=16 * rounds, refused=load.refused)
        assert load.refused == 0, load.errors
        assert _sound(place.path)
        assert last.stop() == 0
