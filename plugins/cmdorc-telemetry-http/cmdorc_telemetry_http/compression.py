"""How a batch is compressed: the codings at hand, the best first."""

from __future__ import annotations

from collections.abc import Callable

Coding = tuple[str, Callable[[bytes], bytes]]


def codings() -> list[Coding]:
    """``Content-Encoding`` and function of each: zstd where ``zstandard`` is installed, and always gzip."""
    try:
        import zstandard
    except ImportError:
        return [("gzip", _gzip)]
    return [("zstd", zstandard.ZstdCompressor(level=3).compress), ("gzip", _gzip)]


def _gzip(data: bytes) -> bytes:
    import gzip

    return gzip.compress(data, 6, mtime=0)  # no time: the same batch is the same bytes
