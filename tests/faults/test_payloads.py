"""A payload store under fault: what a dead worker held finds its arguments again."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.faults.place import Place
from tests.servers import wait_until


def files(folder: Path) -> list[Path]:
    return [each for each in folder.rglob("*") if each.is_file() and not each.name.startswith(".")]


def test_a_worker_that_is_killed_leaves_it_to_the_next(place: Place, tmp_path: Path) -> None:
    there = place.through(payload_store=str(tmp_path / "payloads"), payload_store_min_bytes=1_000)
    gates = tmp_path / "gates"
    gates.mkdir()
    with there.fleet() as fleet:
        node = fleet.start("-c", "1")
        name = there.send("gated", str(gates) + "/" * 2_000)
        wait_until(lambda: bool(fleet.journal.started(name)), 10.0, lambda: f"it starts\n{fleet.logs()}")
        assert len(files(tmp_path / "payloads")) == 1
        node.signal_tree(signal.SIGKILL)
        fleet.start("-c", "1")
        wait_until(lambda: len(fleet.journal.started(name)) == 2, 15.0, lambda: f"again\n{fleet.logs()}")
        (gates / "all").touch()
        there.wait_state(name, "SUCCESS")
        wait_until(lambda: not files(tmp_path / "payloads"), 10.0, lambda: "its payload is dropped")
