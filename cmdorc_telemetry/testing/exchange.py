"""One connection of the fault-injecting server, and what a fault may do to it."""

from __future__ import annotations

import io
import select
import socket
import struct
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from .messages import Answer, Request

if TYPE_CHECKING:
    from .server import FaultServer

_POLL_SECONDS = 0.2
_LINE = 65_537
"""Bytes that a line of a request may have."""


class _Unreadable(Exception):
    """A request of which no more is read, and the status that says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Exchange(BaseHTTPRequestHandler):
    """Reads requests one after the other, and lets a fault do what it likes with each."""

    protocol_version = default_request_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    close_connection = True
    message: Request
    """The request; its body is empty until it was read."""

    def __init__(self, connection: socket.socket, peer: Any, host: FaultServer) -> None:
        self.host = host
        super().__init__(connection, peer, host)  # type: ignore[arg-type]  # it asks nothing of a server

    # -- what a fault may do ------------------------------------------------------------------------------------------

    def commit(self, message: Request | None = None) -> Answer:
        """Let the request, or ``message`` instead of it, have its effect: the answer that it should get."""
        answer = self.host.answer(message or self.message)
        self.host.changed()
        return answer

    def reply(self, answer: Answer) -> None:
        """Send a whole answer."""
        close = self.close_connection = self.close_connection or self.host.script.connects
        self.write(answer.encode(close=close))

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.connection.sendall(data)

    def read(self, size: int) -> bytes:
        """The next bytes of the request, as many as that."""
        data = self.rfile.read(size)
        if len(data) < size:
            raise ConnectionError("the client went away within its request")
        return data

    def reset(self) -> None:
        """End the connection as a machine that fell over does: whatever was on its way is lost."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """End the connection in an orderly way, whatever is missing."""
        self.close_connection = True
        for file in (self.rfile, self.wfile):  # as long as one is open, so is the connection
            with suppress(OSError):
                file.close()
        self.connection.close()

    def hang(self) -> None:
        """Do nothing until the client or the test has had enough."""
        while self.pause(_POLL_SECONDS):
            pass
        self.close()

    def pause(self, seconds: float) -> bool:
        """Wait. False where there is nobody left to wait for."""
        return not self.host.stopping.wait(seconds) and not self._left()

    def _left(self) -> bool:
        if not hasattr(select, "POLLRDHUP"):  # pragma: no cover - not Linux: it hangs until the server stops
            return False
        watch = select.poll()
        watch.register(self.connection, select.POLLRDHUP)  # hanging up and errors are always told
        return bool(watch.poll(0))

    # -- how requests come in -----------------------------------------------------------------------------------------

    def setup(self) -> None:
        """Be known to the server."""
        super().setup()
        self.host.opened(self)

    def handle(self) -> None:
        """Serve the connection until it ends."""
        fault = self.host.script.at_connect()
        if fault is not None:
            self.host.note(fault)
            if fault.certificate is None:
                fault.act(self)
                return
        context = self.host.context(fault.certificate if fault is not None else None)
        if context is not None:
            self.connection = context.wrap_socket(self.request, server_side=True)
            self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
        self._serve()
        while not self.close_connection:
            if self._more() and not self.host.script.connects:  # otherwise that is for the next connection
                self._serve()
            else:
                self.close_connection = True

    def _more(self) -> bool:
        assert isinstance(self.rfile, io.BufferedReader)
        return bool(self.rfile.peek(1))

    def _serve(self) -> None:
        self.raw_requestline = self.rfile.readline(_LINE)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        self.message = Request(self.command, self.path, self.headers, peer=self.client_address)
        fault = self.host.script.at_request(self.message)
        if fault is None or fault.at == "request":
            try:
                body = self._body()
            except _Unreadable as refused:
                self.close_connection = True
                self.reply(Answer.json({"message": str(refused)}, refused.status))
                return
            self.message = Request(self.command, self.path, self.headers, body, self.client_address)
            self.host.saw(self.message)
        if fault is None:
            self.reply(self.commit())
        else:
            self.host.note(fault)
            fault.act(self)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.read(self._size(self.headers.get("Content-Length") or "0", 10))
        body = b""
        while size := self._size(self.rfile.readline(_LINE).partition(b";")[0], 16, len(body)):
            body += self.read(size)
            self.rfile.readline(_LINE)
        while self.rfile.readline(_LINE).strip():  # trailers
            pass
        return body

    def _size(self, said: str | bytes, radix: int, before: int = 0) -> int:
        """How much more of the body comes, behind what came ``before``. Raises _Unreadable."""
        try:
            size = int(said, radix)
        except ValueError:
            size = -1
        if size < 0:
            raise _Unreadable(400, "the length of the body is no number")
        if self.host.body_limit is not None and before + size > self.host.body_limit:
            raise _Unreadable(413, f"the body is larger than {self.host.body_limit} bytes; send fewer events at once")
        return size

    def finish(self) -> None:
        """Close what is open."""
        self.close()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
