"""A telemetry server for tests and CI: takes what a server would, says what is good, what is bad, and why.

It speaks wire protocol version 1 on loopback, stores nothing but in memory, and forgets when it is told to. It is the
fault-injecting server with an answer of its own, so that whatever can go wrong can go wrong here, too.
"""

from __future__ import annotations

import json
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from ..application import CMDORC
from ..wording import clean
from .messages import Answer, Request
from .script import Faults
from .server import FaultServer
from .sources import Source, declared, registry_of
from .verdicts import WHOLE, Bad, Judge, Properties, Reason

BODY, EXPANDED, EVENTS = 2 << 20, 16 << 20, 5000
"""Bytes of a body as sent, those decompressed, and events in it: what a server takes at most."""
_MOST_DETAIL = 200
_TEXT = {"Content-Type": "text/plain; charset=utf-8"}
_USAGE = "GET /good, GET /bad, both with ?event=NAME; GET /counts; POST /reset. Events: POST /v1/report."
_KINDS = ("application/json", "application/x-ndjson")


class Collector(FaultServer):
    """A server that validates events against spec files. A context manager; or ``start`` and ``stop``.

    ``sources`` are spec files, specs, or applications; cmdorc's own spec is always there. Of good and of bad events the
    last ``keep`` are kept; all are counted. With ``accept_private``, private properties are good, as on a server of
    one's own. ``faults`` and ``tls`` are those of FaultServer.
    """

    def __init__(
        self, *sources: Source, keep: int = 10_000, accept_private: bool = False, faults: Faults = None,
        tls: bool = False, port: int = 0,
    ) -> None:  # fmt: skip
        self._registry = registry_of((CMDORC, *sources))
        self._judge = Judge(self._registry, private=accept_private)
        super().__init__(faults=faults, answer=self._answered, tls=tls, port=port)
        self.body_limit = BODY
        self._keep = keep
        self._state = threading.Lock()
        self.reset()

    # -- what a test asks ---------------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Where people and scripts ask; events go to ``endpoint``."""
        return self.endpoint.removesuffix("/v1")

    def good(self, event: str | None = None) -> list[Properties]:
        """The good events, of one name or all, oldest first: each a dictionary of its own properties.

        Raises ValueError for an event that no spec declares.
        """
        if event is not None:
            declared(self._registry, event)
        with self._state:
            return [each for each in self._good.values() if event in (None, each.event)]

    def bad(self, event: str | None = None) -> list[Bad]:
        """The bad events, of one name or all, oldest first, with every reason. No name is wrong here."""
        with self._state:
            return [each for each in self._bad if event in (None, each.event)]

    def reset(self) -> None:
        """Forget what came."""
        with self._state:
            self._good: dict[str, Properties] = {}
            self._bad: deque[Bad] = deque(maxlen=self._keep)
            self.counts = {"good": 0, "bad": 0, "duplicate": 0}
            """How many events came, those included that are no longer kept."""

    def saw(self, request: Request) -> None:
        """Requests are not kept here: a collector may run for long."""

    # -- the answers --------------------------------------------------------------------------------------------------

    def _answered(self, request: Request) -> Answer:
        try:
            parts = urlsplit(request.path)
        except ValueError as fault:
            return Answer.json({"message": f"no address: {fault}"}, 400)
        install = parts.path.removeprefix("/v1/installs/")
        if install != parts.path:
            return self._allowed(request, "DELETE", lambda: self._erased(install))
        routes: Mapping[str, tuple[str, Callable[[], Answer]]] = {
            "/v1/report": ("POST", lambda: self._reported(request)),
            "/v1/policy": ("GET", lambda: Answer.json({})),
            "/v1/health": ("GET", lambda: Answer.json({"status": "ok"})),
            "/good": ("GET", lambda: self._listed("good", parts.query)),
            "/bad": ("GET", lambda: self._listed("bad", parts.query)),
            "/reset": ("POST", self._forgotten),
            "/counts": ("GET", lambda: Answer.json(self.summary())),
            "/": ("GET", lambda: Answer(200, f"{self.report()}\n{_USAGE}\n".encode(), _TEXT)),
        }
        if parts.path not in routes:
            return Answer.json({"message": f"nothing is here; there are {', '.join(routes)}"}, 404)
        return self._allowed(request, *routes[parts.path])

    def _allowed(self, request: Request, method: str, answer: Callable[[], Answer]) -> Answer:
        if request.method == method:
            return answer()
        return Answer(405, json.dumps({"message": f"expected {method}"}).encode(),
                      {"Allow": method, "Content-Type": "application/json"})  # fmt: skip

    def _reported(self, request: Request) -> Answer:
        kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind not in _KINDS:
            return Answer.json({"message": f"Content-Type must be one of {', '.join(_KINDS)}"}, 415)
        try:
            data = request.expanded(EXPANDED + 1)
        except (ValueError, ImportError) as fault:
            return Answer.json({"message": f"not taken: {fault}"}, 415)
        except Exception as fault:  # each coding has errors of its own for what is damaged
            return Answer.json({"message": f"the body cannot be decompressed: {fault}"}, 400)
        single = kind == _KINDS[0]
        lines = [data] if single else [line for line in data.split(b"\n") if line.strip()]
        if len(data) > EXPANDED or len(lines) > EVENTS:
            return Answer.json({"message": "the batch is too large; send fewer events at once"}, 413)
        if not lines or not lines[0].strip():
            return Answer.json({"message": "the body holds no event"}, 400)
        results = [self._taken(line) for line in lines]
        if single and results[0]["status"] == "rejected":
            return Answer.json({"message": f"Not taken: {results[0]['detail']}", "stats": {}, "results": results}, 422)
        return Answer.json({"message": "Thanks!", "stats": {}, "results": results})

    def _taken(self, line: bytes) -> dict[str, str]:
        """Judge and keep one event: its result."""
        verdict = self._judge(line)
        with self._state:
            if isinstance(verdict, Bad):
                self.counts["bad"] += 1
                self._bad.append(verdict)
                first = verdict.reasons[0]
                return {
                    "event_id": verdict.event_id, "status": "rejected",
                    "reason": first.reason if first.reason in WHOLE else "invalid",
                    "detail": f"{first.property}: {first.detail}"[:_MOST_DETAIL],
                }  # fmt: skip
            event_id = verdict.base["event_id"]
            if event_id in self._good:
                self.counts["duplicate"] += 1
                return {"event_id": event_id, "status": "duplicate"}
            self.counts["good"] += 1
            self._good[event_id] = verdict
            if len(self._good) > self._keep:
                del self._good[next(iter(self._good))]
            return {"event_id": event_id, "status": "accepted"}

    def _erased(self, install: str) -> Answer:
        with self._state:
            theirs = [key for key, each in self._good.items() if each.base["anonymous_install_id"] == install]
            for key in theirs:
                del self._good[key]
        return Answer.json({"message": "Erased.", "deleted": len(theirs)})

    def _forgotten(self) -> Answer:
        self.reset()
        return Answer.json({"message": "Forgotten."})

    def _listed(self, which: str, query: str) -> Answer:
        asked = dict(parse_qsl(query, keep_blank_values=True))
        if not asked.keys() <= {"event"}:
            return Answer.json({"message": f"{', '.join(sorted(asked))}: expected event=NAME or nothing"}, 400)
        if which == "bad":
            return _encoded(which, self.bad(asked.get("event")))
        try:
            good = self.good(asked.get("event"))
        except ValueError as fault:
            return Answer.json({"message": str(fault)}, 404)
        return _encoded(which, [{"event": each.event, "spec": each.spec, "properties": each, "base": each.base}
                                for each in good])  # fmt: skip

    # -- what there is, in short --------------------------------------------------------------------------------------

    def summary(self) -> dict[str, Any]:
        """The counts, by event as far as events are kept, and why which property is bad how often."""
        with self._state:
            good, bad = Counter(each.event for each in self._good.values()), Counter(each.event for each in self._bad)
            reasons = self._reasons()
            counts = dict(self.counts)
        return {
            **counts,
            "events": {name: {"good": good[name], "bad": bad[name]} for name in sorted({*good, *bad})},
            "reasons": [{"event": event, "property": name, "reason": reason, "count": count}
                        for (event, name, reason), count in sorted(reasons.items())],
        }  # fmt: skip

    def _reasons(self) -> Counter[tuple[str, str, str]]:
        return Counter((each.event, reason.property, reason.reason) for each in self._bad for reason in each.reasons)

    def report(self) -> str:
        """The same for people, with the last value that was wrong."""
        with self._state:
            last = {(each.event, reason.property, reason.reason): reason
                    for each in self._bad for reason in each.reasons}  # fmt: skip
            reasons = self._reasons()
        told = self.summary()
        lines = [f"{told['good']} good, {told['bad']} bad, by {', '.join(spec.ref for spec in self._registry)}"]
        events = [(name or "(unreadable)", str(each["good"]), str(each["bad"]))
                  for name, each in told["events"].items()]  # fmt: skip
        if events:
            lines += ["", *_table(("event", "good", "bad"), events)]
        if reasons:
            rows = [(event or "(unreadable)", name or "–", why, str(count), _told(last[event, name, why]))
                    for (event, name, why), count in sorted(reasons.items())]  # fmt: skip
            lines += ["", *_table(("event", "property", "why it is bad", "times", "the last one"), rows)]
        return "\n".join(lines) + "\n"


def _encoded(which: str, found: Sequence[object]) -> Answer:
    body = msgspec.json.encode({"count": len(found), which: found})
    return Answer(200, body, {"Content-Type": "application/json"})


def _told(reason: Reason) -> str:
    if reason.found is msgspec.UNSET:
        return reason.detail
    value = json.dumps(reason.found)
    return f"{value if len(value) <= 60 else value[:59] + '…'}: {reason.detail}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    cells = [head, *(tuple(map(clean, row)) for row in rows)]  # names that come over the wire may be anything
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
