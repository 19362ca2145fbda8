"""One connection, and the HTTP/1.1 that is spoken on it; h11 reads and writes that. Where it leads: ``route.py``."""

from __future__ import annotations

import asyncio
from typing import cast

import h11

from .answers import Answer

MAX_ANSWER = 1_000_000
"""Bytes of an answer that are read, headers and all; of what goes on beyond, nothing is kept."""

_MOST_INFORMATIONAL = 20
"""Answers of the kind 1xx that may come before the real one."""

_HEADERS = {b"date": "Date", b"etag": "ETag", b"location": "Location", b"retry-after": "Retry-After"}
"""What is kept of an answer's headers."""


class Problem(Exception):
    """Why there is no answer, in one line. Nothing of a request or of a proxy's address is in it."""

    def __init__(self, text: str, fault: BaseException | None = None) -> None:
        """``fault`` is what lies behind it: what the system says of that is added."""
        self.fault = fault
        for name in ("verify_message", "reason", "strerror"):
            if isinstance(detail := getattr(fault, name, None), str) and detail:
                text = f"{text} ({detail})"
                break
        super().__init__(text)


class Unanswered(Problem):
    """The connection ended before a byte of the answer was there."""


class Wire(asyncio.Protocol):
    """One connection: one request at a time, and between two of them it may rest."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._http = h11.Connection(h11.CLIENT)
        self._outcome: asyncio.Future[Answer | Problem] | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._begin()

    def _begin(self) -> None:
        self._status, self._headers, self._body = 0, dict[str, str](), bytearray()
        self._read = self._informational = 0

    async def request(self, request: h11.Request, body: bytes | None = None) -> Answer:
        """The answer, whatever its status. Raises Problem; the connection is of no use then."""
        self._outcome = asyncio.get_running_loop().create_future()
        events = (request, *([h11.Data(data=body)] if body else ()), h11.EndOfMessage())
        self.transport.write(b"".join([self._http.send(event) for event in events]))
        self._go_on()  # some have had their say before they are asked
        try:
            outcome = await self._outcome
        except asyncio.CancelledError:
            self.transport.abort()
            raise
        if isinstance(outcome, Problem):
            self.transport.abort()
            raise outcome
        return outcome

    def keep(self, seconds: float) -> bool:
        """Rest until the next request, so long and no longer. Whether there can be one."""
        done = self._http.our_state is h11.DONE and self._http.their_state is h11.DONE
        if not done or self._http.trailing_data[0] or self.transport.get_write_buffer_size():
            return False
        self._http.start_next_cycle()
        self._begin()
        self._rest = asyncio.get_running_loop().call_later(seconds, self.transport.abort)
        return not self.transport.is_closing()

    def wake(self) -> bool:
        """End the rest. Whether the connection can still be used."""
        rest, self._rest = self._rest, None
        assert rest is not None
        rest.cancel()
        if rest.when() <= asyncio.get_running_loop().time():  # a loop that is held up comes late
            self.transport.abort()
        return not self.transport.is_closing()

    # -- what the transport tells -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It can be spoken on."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Something came: taken in at once, so that nothing piles up."""
        if self._rest is not None:  # nobody asked
            self.transport.abort()
            return
        self._read += len(data)
        self._http.receive_data(data)
        self._go_on()
        if self._read > MAX_ANSWER:
            self._settle(self._answer(None))  # its head is there: h11 takes no long one
            self.transport.abort()

    def eof_received(self) -> None:
        """The other side has nothing to add. The transport closes by itself."""
        self._http.receive_data(b"")
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over, whoever wanted that."""
        self._http.receive_data(b"")
        self._settle(self._broken(exc))

    # -- the answer ---------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Take in what has come of the answer."""
        try:
            while self._outcome is not None and not self._outcome.done():
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    return
                if isinstance(event, h11.Response):
                    kept = {_HEADERS[name]: value for name, value in event.headers if name in _HEADERS}
                    self._headers = {name: value.decode("latin-1") for name, value in kept.items()}
                    self._status = event.status_code
                elif isinstance(event, h11.InformationalResponse):
                    self._informational += 1
                    if self._informational > _MOST_INFORMATIONAL:
                        self._settle(Problem("no HTTP answer"))
                elif isinstance(event, h11.Data):
                    self._body += event.data
                else:  # the end; or paused, where a proxy has let this through
                    self._settle(self._answer(bytes(self._body)))
        except h11.RemoteProtocolError:
            ended = self._http.trailing_data[1]
            self._settle(self._broken(None) if ended else Problem("no HTTP answer"))

    def _answer(self, body: bytes | None) -> Answer:
        return Answer(self._status, body, self._headers)

    def _broken(self, fault: Exception | None) -> Problem:
        return (Problem if self._read else Unanswered)("the connection broke off", fault)

    def _settle(self, outcome: Answer | Problem) -> None:
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_result(outcome)  # never as an exception: one that nobody came to fetch would be logged
