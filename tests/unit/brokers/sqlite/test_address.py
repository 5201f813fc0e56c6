from __future__ import annotations

from pathlib import Path

import pytest

from celeriac.brokers.sqlite.address import address
from celeriac.exceptions import ImproperlyConfigured
from celeriac.ports import AdapterOptions

OPTIONS = AdapterOptions()


def test_three_slashes_are_relative_four_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert address("sqlite:///a.db", OPTIONS).path == str(tmp_path / "a.db")
    assert address(f"sqlite:///{tmp_path}/b.db", OPTIONS).path == str(tmp_path / "b.db")
    assert address("sqlite:///with%20space.db", OPTIONS).path == str(tmp_path / "with space.db")


def test_all_names_of_a_file_are_one_address(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert address(f"sqlite:///{tmp_path}/link/a.db", OPTIONS) == address(f"sqlite:///{tmp_path}/real/a.db", OPTIONS)


def test_synchronous_comes_from_the_url_or_the_transport_options() -> None:
    assert address("sqlite:////a.db", OPTIONS).synchronous == "NORMAL"
    assert address("sqlite:////a.db?synchronous=full", OPTIONS).synchronous == "FULL"
    assert address("sqlite:////a.db", AdapterOptions(transport={"synchronous": "Full"})).synchronous == "FULL"


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///", "sqlite://host/a.db", "sqlite:///:memory:", "sqlite:////a.db?synchronous=perhaps"],
)
def test_what_names_no_file_is_refused_with_the_url(url: str) -> None:
    with pytest.raises(ImproperlyConfigured) as raised:
        address(url, OPTIONS)
    assert url in str(raised.value)
    assert "\n" not in str(raised.value)
