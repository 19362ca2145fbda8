"""One connection, and the HTTP/1.1 that is spoken on it; h11 reads and writes that. Where it leads: ``route.py``."""

from __future__ import annotations

import asyncio
from typing import cast

import h11

from .answers import Answer

MAX_ANSWER = 1_000_000
"""Bytes of an answer that are read, its headers included; what goes on beyond is not."""

_KEPT_HEADERS = {b"date": "Date", b"etag": "ETag", b"location": "Location", b"retry-after": "Retry-After"}
"""What is read of an answer's headers; the others go no further."""


class Problem(Exception):  # noqa: N818 - becomes the text of a RetryLater
    """Why there is no answer, in one line. Nothing of a request or of a proxy's address is in it."""

    def __init__(self, text: str, fault: BaseException | None = None) -> None:
        """``fault``: what the system says of it is added."""
        details = (getattr(fault, name, None) for name in ("verify_message", "reason", "strerror"))
        detail = next((each for each in details if isinstance(each, str) and each), "")
        super().__init__(f"{text} ({detail})" if detail else text)


class Unanswered(Problem):
    """The connection ended before a byte of the answer was there."""


class Wire(asyncio.Protocol):
    """One connection: one request at a time, and between two of them it may be kept."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._http = h11.Connection(h11.CLIENT)
        self._answer: asyncio.Future[Answer] | None = None
        self._status, self._headers, self._body = 0, dict[str, str](), bytearray()
        self._read = 0
        self._rest: asyncio.TimerHandle | None = None

    async def request(self, request: h11.Request, body: bytes | None = None) -> Answer:
        """The answer, whatever its status. Raises Problem; the connection is of no use then."""
        self._answer = asyncio.get_running_loop().create_future()
        events = (request, *([h11.Data(data=body)] if body else ()), h11.EndOfMessage())
        self.transport.write(b"".join([self._http.send(event) for event in events]))
        self._go_on()  # some have something to say before they are asked
        try:
            return await self._answer
        except BaseException:
            self.transport.abort()
            raise

    def keep(self, seconds: float) -> bool:
        """Be kept for another request, so long and no longer. False where that cannot be."""
        done = self._http.our_state is self._http.their_state is h11.DONE and not self._http.trailing_data[0]
        if not done or self.transport.is_closing() or self.transport.get_write_buffer_size():
            self.transport.abort()
            return False
        self._http.start_next_cycle()
        self._status, self._headers, self._body, self._read = 0, {}, bytearray(), 0
        self._rest = asyncio.get_running_loop().call_later(seconds, self.transport.abort)
        return True

    def wake(self) -> bool:
        """End the rest. Whether the connection can still be used."""
        rest, self._rest = self._rest, None
        assert rest is not None
        rest.cancel()
        if rest.when() <= asyncio.get_running_loop().time():  # the loop may not have come round to it
            self.transport.abort()
        return not self.transport.is_closing()

    # -- what the transport tells -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The way is open."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Something came: parsed at once, so that nothing piles up."""
        self._read += len(data)
        if self._rest is not None:  # nobody asked
            self.transport.abort()
        elif self._read > MAX_ANSWER:
            self._settle(self._answered(None) if self._status else Problem("no HTTP answer"))
            self.transport.abort()
        else:
            self._http.receive_data(data)
            self._go_on()

    def eof_received(self) -> None:
        """The other side has said all. The transport closes by itself."""
        self._http.receive_data(b"")
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over, whoever wanted it."""
        self._http.receive_data(b"")
        self._settle(self._broken(exc))

    # -- the answer ---------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Take in what has come of the answer."""
        try:
            while self._answer is not None and not self._answer.done():
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    return
                if isinstance(event, h11.Response):
                    self._status = event.status_code
                    known = [(_KEPT_HEADERS[name], value) for name, value in event.headers if name in _KEPT_HEADERS]
                    self._headers = {name: value.decode("latin-1") for name, value in known}
                elif isinstance(event, h11.Data):
                    self._body += event.data
                elif event is h11.PAUSED or isinstance(event, h11.EndOfMessage):  # paused: a proxy's yes
                    self._settle(self._answered(bytes(self._body)))
        except h11.RemoteProtocolError:
            over = self._http.trailing_data[1]
            self._settle(self._broken(None) if over else Problem("no HTTP answer"))

    def _answered(self, body: bytes | None) -> Answer:
        return Answer(self._status, body, self._headers)

    def _broken(self, fault: Exception | None) -> Problem:
        return (Problem if self._read else Unanswered)("the connection broke off", fault)

    def _settle(self, outcome: Answer | Problem) -> None:
        if self._answer is None or self._answer.done():
            return
        if isinstance(outcome, Problem):
            self._answer.set_exception(outcome)
        else:
            self._answer.set_result(outcome)
