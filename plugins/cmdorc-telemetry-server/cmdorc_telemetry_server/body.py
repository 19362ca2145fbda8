"""One request's body: from headers and bytes to lines, every step bounded. Knows nothing of events."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable

from cmdorc_telemetry.errors import TelemetryError

CODINGS: tuple[str, ...] = ("gzip",)
_DAMAGED: tuple[type[Exception], ...] = (zlib.error,)
try:
    import zstandard
except ModuleNotFoundError:
    pass  # the extra "zstd" is not installed
else:
    CODINGS += ("zstd",)
    _DAMAGED += (zstandard.ZstdError,)

HANG_UP = {"Connection": "close"}
"""The header of an answer after which nothing more is read."""
_DRAINED = 8
_STEP = 256
_WINDOW = 2**23


class Refused(TelemetryError):
    """A request that is refused as a whole, with the HTTP status that says so."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


def kind(content_type: str | None, content_encoding: str | None) -> tuple[bool, str]:
    """Whether the body is a batch, and its coding (``identity``, ``gzip``, ``zstd``). Raises Refused (415)."""
    media = (content_type or "").partition(";")[0].strip().lower()
    if media not in ("application/json", "application/x-ndjson"):
        raise Refused(415, "Content-Type must be application/json (one event) or application/x-ndjson (a batch)")
    coding = (content_encoding or "identity").strip().lower()
    if coding != "identity" and coding not in CODINGS:
        accepted = ", ".join(CODINGS)
        raise Refused(415, f"Content-Encoding must be one of {accepted}", {"Accept-Encoding": accepted})
    return media == "application/x-ndjson", coding


async def read(chunks: AsyncIterable[bytes], limit: int) -> bytes:
    """The bytes of a body. Raises Refused (413) above ``limit``.

    What is too much is read on for a while and dropped: a client that is still sending could not see the answer.
    """
    kept, size = bytearray(), 0
    too_large = f"the body is larger than {limit} bytes; send fewer events at once"
    async for chunk in chunks:
        size += len(chunk)
        if size <= limit:
            kept += chunk
        elif size > _DRAINED * limit:
            raise Refused(413, too_large, HANG_UP)
    if size > limit:
        raise Refused(413, too_large)
    return bytes(kept)


def expand(data: bytes, coding: str, limit: int) -> bytes:
    """``data`` decompressed. Raises Refused: 400 where it is damaged, 413 above ``limit``."""
    if coding == "identity":
        return data
    try:
        expanded, whole = _gunzip(data, limit) if coding == "gzip" else _unzstd(data, limit)
    except _DAMAGED as fault:
        raise Refused(400, f"the body is not valid {coding}: {fault}") from None
    if len(expanded) > limit:
        raise Refused(413, f"the decompressed body is larger than {limit} bytes; send fewer events at once")
    if not whole:
        raise Refused(400, f"the body is not one whole {coding} stream")
    return expanded


def _gunzip(data: bytes, limit: int) -> tuple[bytes, bool]:
    stream = zlib.decompressobj(wbits=31)
    expanded = stream.decompress(data, limit + 1)
    return expanded, stream.eof and not stream.unused_data


def _unzstd(data: bytes, limit: int) -> tuple[bytes, bool]:
    # The library cannot be told where to stop, so it is fed little at a time: 4 bytes yield 128 KiB at most.
    stream = zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()
    expanded = bytearray()
    for start in range(0, len(data), _STEP):
        if stream.eof:
            return bytes(expanded), False
        expanded += stream.decompress(data[start : start + _STEP])
        if len(expanded) > limit:
            break
    return bytes(expanded), stream.eof and not stream.unused_data


def lines(data: bytes, batch: bool, most: int) -> list[bytes]:
    """The events in a body, still as JSON. Raises Refused: 400 where there is none, 413 with more than ``most``."""
    if data.count(b"\n") > most and batch:
        raise Refused(413, f"the batch has more than {most} events; send fewer at once")
    found = [line for line in data.split(b"\n") if line.strip()] if batch else [data]
    if not found or not found[0].strip():
        raise Refused(400, "the body holds no event")
    if len(found) > most:
        raise Refused(413, f"the batch has more than {most} events; send fewer at once")
    return found
