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
        return self.host.answer(message or self.message)

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
        self.raw_requestline = self.rfile.readline(65_537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        self.message = Request(self.command, self.path, self.headers, peer=self.client_address)
        fault = self.host.script.at_request(self.message)
        if fault is None or fault.at == "request":
            self.message = Request(self.command, self.path, self.headers, self._body(), self.client_address)
            self.host.saw(self.message)
        if fault is None:
            self.reply(self.commit())
        else:
            self.host.note(fault)
            fault.act(self)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass
        return body

    def finish(self) -> None:
        """Close what is open."""
        self.close()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
