"""The places for payloads: whole files, by name only, and the difference between lost and away."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from celeriac.exceptions import ImproperlyConfigured, OperationalError, PayloadLost
from celeriac.payloads import open_store
from celeriac.payloads.directory import MARKER, Directory
from celeriac.ports import PayloadStore

NAME = "2026-11-29/" + "0" * 32
OTHER = "2026-11-30/" + "1" * 32


@pytest.fixture(params=["directory", "file", "fsspec"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> PayloadStore:
    urls = {
        "directory": str(tmp_path / "payloads"),
        "file": f"file://{tmp_path / 'payloads'}",
        "fsspec": f"memory://payloads-{uuid4()}",
    }
    return open_store(urls[request.param])


def test_written_is_read(store: PayloadStore) -> None:
    store.write(NAME, b"x" * 100)
    assert store.read(NAME, 100) == b"x" * 100
    assert len(store.read(NAME, 10)) == 11, "not more than it takes to see that it is another"
    store.write(NAME, b"y")
    assert store.read(NAME, 100) == b"y"


def test_what_is_not_there_is_lost(store: PayloadStore) -> None:
    store.write(OTHER, b"x")
    with pytest.raises(PayloadLost, match="is not in"):
        store.read(NAME, 1)


def test_a_store_without_its_marker_is_away(store: PayloadStore) -> None:
    with pytest.raises(OperationalError, match="cannot read in the payload store"):
        store.read(NAME, 1)


def test_dropping_twice(store: PayloadStore) -> None:
    store.write(NAME, b"x")
    store.drop(NAME)
    store.drop(NAME)
    with pytest.raises(PayloadLost):
        store.read(NAME, 1)


def test_sweep_takes_the_days_before(store: PayloadStore) -> None:
    assert store.sweep("2026-11-30") == 0
    store.write(NAME, b"x")
    store.write(OTHER, b"x")
    store.write("9999-12-31/" + "2" * 32, b"x")
    assert store.sweep("2026-11-30") == 1
    assert store.sweep("2026-11-30") == 0
    assert store.read(OTHER, 1) == b"x"
    with pytest.raises(PayloadLost):
        store.read(NAME, 1)


def test_only_the_owner_reads(tmp_path: Path) -> None:
    root = tmp_path / "payloads"
    Directory(str(root)).write(NAME, b"secret")
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert stat.S_IMODE((root / NAME).stat().st_mode) == 0o600
    assert sorted(each.name for each in root.iterdir()) == [MARKER, "2026-11-29"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "payloads"
    secret = tmp_path / "secret"
    secret.write_text("secret")
    store = Directory(str(root))
    store.write(OTHER, b"x")
    (root / "2026-11-29").mkdir()
    (root / NAME).symlink_to(secret)
    with pytest.raises(OperationalError):
        store.read(NAME, 6)


def test_a_failing_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    store = Directory(str(tmp_path))
    store.write(OTHER, b"x")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OperationalError, match="No space left"):
        store.write(NAME, b"x")
    assert list((tmp_path / "2026-11-29").iterdir()) == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("payloads", "relative path"),
        ("nothing://x", "nothing"),
        ("s3://bucket/prefix", "s3fs"),
    ],
)
def test_urls_that_cannot_be(url: str, words: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=words):
        open_store(url)


def test_without_fsspec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(ImproperlyConfigured, match=r"pip install 'celeriac\[payloads\]'"):
        open_store("s3://user:secret@bucket/prefix")


def test_errors_of_file_systems_become_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(f"memory://user:secret@payloads-{uuid4()}")
    store.write(NAME, b"x")

    def fails(*args: object, **options: object) -> bytes:
        raise RuntimeError("rate exceeded")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.cat_file", fails)
    with pytest.raises(OperationalError, match="RuntimeError: rate exceeded") as caught:
        store.read(NAME, 1)
    assert "secret" not in str(caught.value)


def test_writes_in_any_thread(store: PayloadStore) -> None:
    from concurrent.futures import ThreadPoolExecutor

    names = [f"2026-11-29/{number:032x}" for number in range(40)]
    write: Callable[[str], None] = lambda name: store.write(name, name.encode())  # noqa: E731
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, names))
    assert [store.read(name, 100).decode() for name in names] == names
