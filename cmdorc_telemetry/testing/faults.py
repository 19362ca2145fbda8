"""What can go wrong, each with its name: the table ``FAULTS``."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from email.utils import formatdate
from itertools import count
from typing import TYPE_CHECKING, Literal

from .messages import Answer

if TYPE_CHECKING:
    from .exchange import Exchange

Stage = Literal["listen", "connect", "head", "request"]
Act = Callable[["Exchange"], None]

_BLOCK = 65_536


@dataclass(frozen=True)
class Fault:
    """One way to fail."""

    name: str
    what: str
    """What the client gets to see, in one line."""
    at: Stage = "request"
    """When it strikes: ``listen`` for all connections, ``connect`` before anything of a connection is read,
    ``head`` before the body of a request is, or ``request`` when it is there."""
    act: Act = lambda exchange: None
    certificate: str | None = None
    """For a failure of TLS: which certificate is shown."""
    tls: bool = False
    """Whether it needs a server with TLS."""


# -- acts: what happens to an exchange --------------------------------------------------------------------------------


def _answer(answer: Answer) -> Act:
    return lambda exchange: exchange.reply(answer)


def _status(code: int, retry_after: Callable[[], str] | None = None) -> Act:
    def act(exchange: Exchange) -> None:
        headers = {} if retry_after is None else {"Retry-After": retry_after()}
        exchange.reply(replace(Answer.json({"message": "made to fail"}, code), headers=headers))

    return act


def _slow(seconds: float) -> Act:
    def act(exchange: Exchange) -> None:
        answer = exchange.commit()
        if exchange.pause(seconds):
            exchange.reply(answer)

    return act


def _too_large(limit: int) -> Act:
    def act(exchange: Exchange) -> None:
        fits = len(exchange.message.plain) <= limit
        exchange.reply(exchange.commit() if fits else Answer.json({"message": "too large"}, 413))

    return act


def _redirect(code: int) -> Act:
    def act(exchange: Exchange) -> None:
        host, _, port = exchange.message.headers.get("Host", "").partition(":")
        other = "localhost" if host != "localhost" else "127.0.0.1"
        exchange.reply(Answer(code, headers={"Location": f"{exchange.host.scheme}://{other}:{port}/elsewhere"}))

    return act


def _part_of_the_body(end: Act) -> Act:
    def act(exchange: Exchange) -> None:
        exchange.read(int(exchange.message.headers.get("Content-Length") or 2) // 2)
        end(exchange)

    return act


def _part_of_the_answer(end: Act) -> Act:
    def act(exchange: Exchange) -> None:
        answer = exchange.commit()
        exchange.write(answer.encode()[: -max(1, len(answer.body) // 2)])
        end(exchange)

    return act


def _after_commit(end: Act) -> Act:
    def act(exchange: Exchange) -> None:
        exchange.commit()
        end(exchange)

    return act


def _wrong_coding(exchange: Exchange) -> None:
    answer = exchange.commit()
    exchange.reply(replace(answer, headers={**answer.headers, "Content-Encoding": "gzip"}))


def _unknown_ids(exchange: Exchange) -> None:
    results = [{"event_id": str(uuid.uuid4()), "status": "accepted"} for _ in range(3)]
    exchange.reply(Answer.json({"message": "Thanks!", "results": results}))


def _partial(exchange: Exchange) -> None:
    answer = exchange.commit()
    body = json.loads(answer.body)
    taken = body.get("results", [])
    asked_again = [{**result, "status": "retry"} for result in taken[1::3]]
    exchange.reply(Answer.json({**body, "results": taken[::3] + asked_again}, answer.status))


def _rejecting(exchange: Exchange) -> None:
    lines = exchange.message.plain.splitlines()
    refused = [str(json.loads(line)["event_id"]) for line in lines[2::3]]
    kept = [line for number, line in enumerate(lines) if number % 3 != 2]
    answer = exchange.commit(exchange.message.with_lines(kept))
    body = json.loads(answer.body)
    results = [{"event_id": each, "status": "rejected", "reason": "made to fail"} for each in refused]
    exchange.host.rejected.update(refused)
    exchange.reply(Answer.json({**body, "results": body.get("results", []) + results}, answer.status))


def _plain_on_tls_port(exchange: Exchange) -> None:
    exchange.write(Answer.json({"message": "this is a plain HTTP server"}, 400).encode(close=True))
    exchange.close()


def _drip(exchange: Exchange) -> None:
    for byte in exchange.commit().encode():
        exchange.write(bytes([byte]))
        if not exchange.pause(0.1):
            break
    exchange.close()


def _endless(head: bytes, *rest: bytes) -> Act:
    """``head``, and then ``rest`` for ever."""

    def act(exchange: Exchange) -> None:
        exchange.write(head)
        block = b"".join(rest)
        while True:
            exchange.write(block)

    return act


def _endless_headers(exchange: Exchange) -> None:
    exchange.write(b"HTTP/1.1 200 OK\r\n")
    numbers = count()
    while True:
        exchange.write(b"".join(b"X-%d: %b\r\n" % (next(numbers), b"x" * 1000) for _ in range(64)))


_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_DEEP = Answer(200, b'{"results":' + b"[" * 500_000, {"Content-Type": "application/json"})


# -- faults with a measure of their own -------------------------------------------------------------------------------


def status(code: int) -> Fault:
    """Answer with a status, nothing taken."""
    return Fault(str(code), f"{code}, nothing taken", act=_status(code))


def slow(seconds: float) -> Fault:
    """Answer as it should be, but so much later."""
    return Fault("slow-answer", "the right answer, late", act=_slow(seconds))


def too_large(limit: int) -> Fault:
    """413 for what is larger than ``limit`` bytes, decompressed."""
    return Fault("413", "413 for a body above a limit; what is smaller is taken", act=_too_large(limit))


def _retry_after(code: int, kind: str, what: str, value: Callable[[], str]) -> Fault:
    return Fault(f"{code}-{kind}", f"{code}, nothing taken, {what}", act=_status(code, value))


def _hang(exchange: Exchange) -> None:
    exchange.hang()


def _reset(exchange: Exchange) -> None:
    exchange.reset()


def _close(exchange: Exchange) -> None:
    exchange.close()


_RETRY_AFTER: tuple[tuple[str, str, Callable[[], str]], ...] = (
    ("seconds", "Retry-After in seconds", lambda: "1"),
    ("date", "Retry-After as an HTTP date", lambda: formatdate(time.time() + 2, usegmt=True)),  # noqa: TID251 - no clock passed in
    ("garbage", "Retry-After that says nothing", lambda: "soon, I hope"),
    ("huge", "Retry-After of three thousand years", lambda: "99999999999"),
)

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault("refused", "nobody listens", "listen"),
        Fault("black-hole", "connections are never made: the backlog is full", "listen"),
        Fault("reset-on-connect", "a connection that is reset at once", "connect", _reset),
        Fault("hang-before-reading", "a connection on which nothing happens, not even TLS", "connect", _hang),
        Fault("wrong-name", "a certificate for another name", "connect", certificate="wrong-name", tls=True),
        Fault("self-signed", "a certificate that vouches for itself", "connect", certificate="self-signed", tls=True),
        Fault("expired", "a certificate of the year before", "connect", certificate="expired", tls=True),
        Fault("plain-on-tls-port", "plain HTTP where TLS should be", "connect", _plain_on_tls_port, tls=True),
        Fault("hang-mid-request", "no answer; half of the body is read", "head", _part_of_the_body(_hang)),
        Fault("reset-mid-request", "a reset; half of the body is read", "head", _part_of_the_body(_reset)),
        Fault("hang-after-reading", "no answer, nothing taken", act=_hang),
        Fault("reset-after-reading", "a reset, nothing taken", act=_reset),
        status(408),
        too_large(4096),
        *(_retry_after(code, *each) for code in (429, 503) for each in _RETRY_AFTER),
        status(500),
        status(502),
        *(Fault(str(code), f"{code} to another host", act=_redirect(code)) for code in (301, 302, 307, 308)),
        Fault("204", "204, nothing taken", act=_answer(Answer(204))),
        Fault("empty-200", "200 without a body, nothing taken", act=_answer(Answer(200))),
        Fault("html", "200 with a page, nothing taken", act=_answer(Answer(200, b"<html>Welcome to our hotel</html>"))),
        Fault("broken-json", "200 with JSON that ends too early, nothing taken",
              act=_answer(Answer(200, b'{"message": "Thanks!", "results": ['))),
        Fault("other-shape", "200 with JSON of another shape, nothing taken", act=_answer(Answer.json({"ok": True}))),
        Fault("unknown-ids", "200 with results for events that nobody sent, nothing taken", act=_unknown_ids),
        Fault("partial-results", "all taken, but a third is asked for again and a third is not named", act=_partial),
        Fault("some-rejected", "a third of the events is rejected, the rest taken", act=_rejecting),
        slow(0.3),
        Fault("answer-lost", "all taken, and the connection ends without an answer", act=_after_commit(_close)),
        Fault("answer-reset", "all taken, and a reset instead of the answer", act=_after_commit(_reset)),
        Fault("502-after-commit", "all taken, but a gateway says 502", act=_after_commit(_status(502))),
        Fault("hang-after-commit", "all taken, and no answer", act=_after_commit(_hang)),
        Fault("hang-mid-answer", "all taken, and half of the answer", act=_part_of_the_answer(_hang)),
        Fault("reset-mid-answer", "all taken, and a reset within the answer", act=_part_of_the_answer(_reset)),
        Fault("truncated", "all taken, and an answer shorter than its Content-Length", act=_part_of_the_answer(_close)),
        Fault("wrong-content-encoding", "all taken, and an answer that is not the gzip it claims to be",
              act=_wrong_coding),
        Fault("drip", "all taken, and an answer of ten bytes a second", act=_drip),
        Fault("deep-json", "JSON nested half a million times", act=_answer(_DEEP)),
        Fault("huge-body", "an answer of 100 MB",
              act=_endless(_OK + b"Content-Length: 104857600\r\n\r\n", b" " * _BLOCK)),
        Fault("endless-body", "an answer that never ends", act=_endless(_OK + b"\r\n", b" " * _BLOCK)),
        Fault("endless-chunks", "chunks that never end",
              act=_endless(_OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n", b" " * _BLOCK, b"\r\n")),
        Fault("endless-headers", "headers that never end", act=_endless_headers),
        Fault("endless-line", "a first line that never ends", act=_endless(b"HTTP/1.1 200 O", b"K" * _BLOCK)),
        Fault("endless-informational", "100 Continue, and no end of it",
              act=_endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)),
    )
}  # fmt: skip
"""Every fault by its name."""


def randomly(
    seed: int, rate: float = 0.3, among: Iterable[str | Fault] | None = None
) -> Iterator[str | Fault | None]:  # fmt: skip
    """Faults for ever, one a request with a chance of ``rate``; the same for the same seed.

    ``among``: by default every fault that strikes single requests and ends by itself.
    """
    chance = random.Random(seed)
    names = [each for each in FAULTS.values() if each.at in ("head", "request") and "hang" not in each.name]
    choice = list(among) if among is not None else names
    while True:
        yield chance.choice(choice) if chance.random() < rate else None
