"""What commands print, on its way to stdout: at once, and as the very bytes.

Where several commands may run, every line is led by the name of its command.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import BinaryIO

_LONGEST = 65536
"""Bytes without a line end that are held back for one, in front of a name."""


class Output:
    """Stdout. Never raises: when it is lost, ``on_lost`` is called once, and the rest is thrown away."""

    def __init__(self, sink: BinaryIO, names: Collection[str], on_lost: Callable[[OSError], None]) -> None:
        self._sink, self._on_lost, self._lost = sink, on_lost, False
        self._width = max(map(len, names), default=0) if len(names) > 1 else 0

    def channel(self, name: str) -> Channel:
        """What one run of the command ``name`` writes to."""
        return Channel(self, f"{name:{self._width}} | ".encode() if self._width else b"")

    def write(self, data: bytes) -> None:
        """Write and flush."""
        if self._lost:
            return
        try:
            rest = memoryview(data)
            while rest:  # where Python runs unbuffered, a signal can cut a write short
                rest = rest[self._sink.write(rest) :]
            self._sink.flush()
        except OSError as fault:
            self._lost = True
            self._divert()
            self._on_lost(fault)

    def _divert(self) -> None:
        """Let what the buffer still holds go nowhere, or Python complains about it at exit."""
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._sink.fileno())
            os.close(nowhere)


class Channel:
    """The output of one run."""

    def __init__(self, output: Output, prefix: bytes) -> None:
        self._output, self._prefix, self._rest = output, prefix, b""

    def write(self, chunk: bytes) -> None:
        """Pass it on; in front of a name, as far as its lines are whole."""
        if not self._prefix:
            self._output.write(chunk)
            return
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) >= _LONGEST:
            lines.append(self._rest)
            self._rest = b""
        if lines:
            self._output.write(b"".join(self._prefix + line + b"\n" for line in lines))

    def end(self) -> None:
        """Write what never got its line end."""
        if self._rest:
            self.write(b"\n")
