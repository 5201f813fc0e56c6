"""Compression: kombu's names on the wire, and bombs that do not go off."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.codec.compression import compress, decompress, encoders
from celeriac.exceptions import DecodeError, ImproperlyConfigured, MessageTooLarge

NAMES = {
    "gzip": "application/x-gzip",
    "zlib": "application/x-gzip",
    "bzip2": "application/x-bz2",
    "lzma": "application/x-lzma",
    "xz": "application/x-lzma",
    "zstd": "application/zstd",
}


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back(name: str) -> None:
    if name == "zstd":
        pytest.importorskip("zstandard")
    data, content_type = compress(b"grow " * 1000, name)
    assert content_type == NAMES[name]
    assert len(data) < 500
    assert decompress(data, content_type, 5000) == b"grow " * 1000
    assert decompress(data, name, 5000) == b"grow " * 1000
    with pytest.raises(MessageTooLarge):
        decompress(data, content_type, 4999)


def test_what_kombu_calls_gzip_has_no_gzip_header() -> None:
    assert compress(b"x", "gzip")[0] == zlib.compress(b"x")


def test_real_gzip_is_read_too() -> None:
    assert decompress(gzip.compress(b"text"), "gzip", 10) == b"text"


@pytest.mark.parametrize("content_type", encoders())
def test_a_bomb_costs_no_more_than_the_limit(content_type: str) -> None:
    if "zstd" in content_type:
        pytest.importorskip("zstandard")
    bomb, _ = compress(bytes(20_000_000), content_type)
    tracemalloc.start()
    try:
        with pytest.raises(MessageTooLarge):
            decompress(bomb, content_type, 100_000)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@given(st.binary(), st.sampled_from([*encoders(), "application/x-brotli", "nonsense"]))
def test_damaged_data_raises_nothing_but_decode_error(data: bytes, content_type: str) -> None:
    with pytest.raises(DecodeError):
        decompress(data, content_type, 1000)


@pytest.mark.parametrize(
    ("data", "name"),
    [(zlib.compress(b"x" * 99), "zlib"), (bz2.compress(b"x" * 99), "bzip2"), (lzma.compress(b"x"), "xz")],
)
def test_data_that_ends_too_early_is_damaged(data: bytes, name: str) -> None:
    with pytest.raises(DecodeError):
        decompress(data[:-3], name, 1000)


def test_an_unknown_name_is_named() -> None:
    with pytest.raises(ImproperlyConfigured, match="unknown compression 'brotli'"):
        compress(b"", "brotli")
