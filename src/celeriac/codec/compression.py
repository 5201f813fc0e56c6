"""Compressed bodies, under kombu's names and content types. Called by ``codec.body``; knows nothing of messages.

Decompression is streamed and stops at a limit: a small message must not become a large process.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Protocol

from celeriac.exceptions import DecodeError, ImproperlyConfigured, MessageTooLarge

__all__ = ["compress", "decompress", "encoders"]


class _Decompressor(Protocol):
    """What zlib, bz2, lzma and zstd offer in common (``zlib`` under other names)."""

    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


#: kombu's "gzip" is a zlib stream on the wire, without gzip's header; readers get either.
_GZIP = "application/x-gzip"
_BZIP2 = "application/x-bz2"
_LZMA = "application/x-lzma"
_ZSTD = "application/zstd"

_CONTENT_TYPES = {
    "gzip": _GZIP,
    "zlib": _GZIP,
    "bzip2": _BZIP2,
    "bzip": _BZIP2,
    "lzma": _LZMA,
    "xz": _LZMA,
    "zstd": _ZSTD,
    "zstandard": _ZSTD,
}


def encoders() -> list[str]:
    """The content types that can be written."""
    return sorted(set(_CONTENT_TYPES.values()))


def compress(data: bytes, name: str) -> tuple[bytes, str]:
    """Compressed bytes and the content type for header ``compression``; ``name`` may be either.

    Raises ``ImproperlyConfigured`` for an unknown name or a missing extra.
    """
    content_type = _CONTENT_TYPES.get(name, name)
    return _compressor(content_type)(data), content_type


def _compressor(content_type: str) -> Callable[[bytes], bytes]:
    match content_type:
        case "application/x-gzip":
            return zlib.compress
        case "application/x-bz2":
            import bz2

            return bz2.compress
        case "application/x-lzma":
            import lzma

            return lzma.compress
        case "application/zstd":
            compressor: Callable[[bytes], bytes] = _zstandard().ZstdCompressor().compress
            return compressor
    known = ", ".join(sorted(_CONTENT_TYPES))
    raise ImproperlyConfigured(f"unknown compression {content_type!r}; known are {known}")


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise ImproperlyConfigured("compression zstd needs an extra: pip install 'celeriac[zstd]'") from error
    return zstandard


def decompress(data: bytes, content_type: str, limit: int) -> bytes:
    """The bytes before compression. Raises ``MessageTooLarge`` as soon as they exceed ``limit``, ``DecodeError`` when
    they are damaged or compressed in a way that is not known here."""
    content_type = _CONTENT_TYPES.get(content_type, content_type)
    try:
        match content_type:
            case "application/x-gzip":
                result = _inflate(data, limit)
            case "application/x-bz2":
                import bz2

                result = _stream(bz2.BZ2Decompressor(), data, limit)
            case "application/x-lzma":
                import lzma

                result = _stream(lzma.LZMADecompressor(memlimit=64 * 1024 * 1024 + limit), data, limit)
            case "application/zstd":
                result = _unzstd(data, limit)
            case _:
                raise DecodeError(f"unknown compression {content_type!r:.80}")
    except (DecodeError, MessageTooLarge):
        raise
    except ImproperlyConfigured as error:
        raise DecodeError(str(error)) from error
    except Exception as error:  # each library has an error class of its own, to be had only by importing it
        raise DecodeError(f"damaged {content_type} data: {error}") from error
    if len(result) > limit:
        raise _too_large(limit)
    return result


def _too_large(limit: int) -> MessageTooLarge:
    return MessageTooLarge(f"the decompressed body is more than max_message_bytes={limit}")


def _inflate(data: bytes, limit: int) -> bytes:
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # zlib or gzip header
    result = stream.decompress(data, limit + 1)
    if not stream.eof and len(result) <= limit:
        raise DecodeError("damaged application/x-gzip data: it ends too early")
    return result


def _stream(stream: _Decompressor, data: bytes, limit: int) -> bytes:
    result = stream.decompress(data, limit + 1)
    if not stream.eof and len(result) <= limit:
        raise DecodeError("damaged compressed data: it ends too early")
    return result


def _unzstd(data: bytes, limit: int) -> bytes:
    zstandard = _zstandard()
    size = zstandard.frame_content_size(data)  # -1: not said
    if size > limit:
        raise _too_large(limit)
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    with decompressor.stream_reader(data, read_across_frames=False) as reader:
        result: bytes = reader.read(limit + 1)
    if len(result) <= limit:
        # The reader takes an early end for the end. Now that the size is known to be harmless, ask the other interface.
        stream = decompressor.decompressobj()
        stream.decompress(data)
        if not stream.eof:
            raise DecodeError("damaged application/zstd data: it ends too early")
    return result
