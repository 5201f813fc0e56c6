from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from celeriac.brokers.sqlite.address import Address
from celeriac.brokers.sqlite.connection import Connection
from celeriac.brokers.sqlite.errors import Busy
from celeriac.exceptions import OperationalError


def touch(connection: Connection) -> None:
    connection.write(lambda sqlite: sqlite.execute("DELETE FROM message WHERE id = 0"))


def refusal(path: Path) -> str:
    connection = Connection(Address(path=str(path)))
    with pytest.raises(OperationalError) as raised:
        touch(connection)
    connection.close()
    line = str(raised.value)
    assert str(path) in line
    assert "\n" not in line
    return line


def test_files_are_for_their_owner_alone(tmp_path: Path, connection: Connection) -> None:
    touch(connection)
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


def test_a_work_that_raises_leaves_nothing(connection: Connection) -> None:
    def half(sqlite: sqlite3.Connection) -> None:
        sqlite.execute("INSERT INTO message VALUES (1, 'q', 0, 0, x'00')")
        raise KeyError

    with pytest.raises(KeyError):
        connection.write(half)
    assert connection.read(lambda sqlite: sqlite.execute("SELECT count(*) FROM message").fetchone()) == (0,)


def test_a_lock_is_busy_at_once(address: Address, connection: Connection) -> None:
    touch(connection)
    other = Connection(address)
    other.bare(lambda sqlite: sqlite.execute("BEGIN IMMEDIATE"))
    with pytest.raises(Busy):
        touch(connection)
    other.close()
    touch(connection)


def test_a_removed_file_is_noticed_and_made_anew(address: Address, connection: Connection) -> None:
    touch(connection)
    os.rename(address.path, f"{address.path}.away")
    with pytest.raises(OperationalError, match="removed or replaced"):
        touch(connection)
    touch(connection)
    assert os.path.exists(address.path)


def test_a_missing_directory(tmp_path: Path) -> None:
    assert "does not exist; create it" in refusal(tmp_path / "no" / "a.db")


def test_a_directory(tmp_path: Path) -> None:
    (tmp_path / "a.db").mkdir()
    assert "is a directory" in refusal(tmp_path / "a.db")


def test_no_database(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"text, and long enough for a header" * 100)
    assert "no SQLite database" in refusal(tmp_path / "a.db")
    assert (tmp_path / "a.db").read_bytes().startswith(b"text,"), "it is left as it was"


def test_a_foreign_database(tmp_path: Path) -> None:
    foreign = sqlite3.connect(tmp_path / "a.db")
    foreign.execute("CREATE TABLE customers (name)")
    foreign.close()
    assert "another program" in refusal(tmp_path / "a.db")


def test_a_newer_format(address: Address, connection: Connection) -> None:
    connection.bare(lambda sqlite: sqlite.execute("PRAGMA user_version = 99"))
    connection.close()
    assert "upgrade" in refusal(Path(address.path))


def test_an_older_format_gets_what_it_lacks(address: Address, connection: Connection) -> None:
    def age(sqlite: sqlite3.Connection) -> None:
        sqlite.execute("INSERT INTO message VALUES (1, 'q', 0, 0, x'00')")
        for table in ("chord", "chord_text", "part", "ledger"):
            sqlite.execute(f"DROP TABLE {table}")
        sqlite.execute("PRAGMA user_version = 1")

    connection.write(age)
    connection.close()
    newer = Connection(address)
    for table, count in (("message", 1), ("chord", 0), ("chord_text", 0), ("part", 0), ("ledger", 0)):
        found = newer.bare(lambda sqlite, table=table: sqlite.execute(f"SELECT count(*) FROM {table}").fetchone())
        assert found == (count,)
    assert newer.bare(lambda sqlite: sqlite.execute("PRAGMA user_version").fetchone()) == (4,)
    newer.close()


def test_a_damaged_file(address: Address, connection: Connection) -> None:
    def fill(sqlite: sqlite3.Connection) -> None:
        sqlite.executemany("INSERT INTO message VALUES (?, 'q', 0, 0, zeroblob(900))", [(key,) for key in range(1000)])

    connection.write(fill)
    connection.close()
    size = os.path.getsize(address.path)
    with open(address.path, "r+b") as file:
        file.seek(2 * 4096)
        file.write(os.urandom(size - 4096 * 3))
    damaged = Connection(address)
    with pytest.raises(OperationalError, match=r"damaged .*; stop the workers"):
        damaged.write(lambda sqlite: sqlite.execute("DELETE FROM message").fetchall())
    damaged.close()


def test_a_full_disk(connection: Connection) -> None:
    touch(connection)
    pages = connection.bare(lambda sqlite: sqlite.execute("PRAGMA page_count").fetchone()[0])
    connection.bare(lambda sqlite: sqlite.execute(f"PRAGMA max_page_count = {pages + 10}").fetchall())

    def add(sqlite: sqlite3.Connection) -> None:
        sqlite.execute("INSERT INTO message VALUES (NULL, 'q', 0, 0, zeroblob(100000))")

    with pytest.raises(OperationalError, match=r"disk is full .*; free some space"):
        connection.write(add)
    touch(connection)


def test_text_that_is_not_unicode_is_refused(connection: Connection) -> None:
    with pytest.raises(OperationalError, match="Unicode"):
        connection.write(lambda sqlite: sqlite.execute("INSERT INTO message VALUES (1, ?, 0, 0, x'00')", ("\ud800",)))


def test_nothing_is_open_after_a_fork(address: Address, connection: Connection) -> None:
    touch(connection)
    pid = os.fork()
    if pid == 0:
        names = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
        os._exit(any(name.startswith(address.path) for name in names))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    touch(connection)
