"""The HTTP reporter: which request is made for what. Wire protocol version 1.

Meaning of answers is in ``answers.py``, the network in ``cmdorc_telemetry.http``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from cmdorc_telemetry import clock
from cmdorc_telemetry.decoding import Secret
from cmdorc_telemetry.errors import DeliveryError
from cmdorc_telemetry.http.answers import UNREADABLE, Answer
from cmdorc_telemetry.http.endpoint import check_endpoint, check_secret
from cmdorc_telemetry.http.reporter import PostingReporter
from cmdorc_telemetry.types import Batch, BatchResult

from . import __version__
from .answers import judge, judge_erasure
from .compression import Coding, codings


class HttpReporter(PostingReporter):
    """Posts one event as JSON and several as compressed NDJSON to ``{endpoint}/report``."""

    name = "http"
    agent = f"cmdorc-telemetry-http/{__version__}"

    class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """The keys of an ``http`` destination."""

        endpoint: str
        """Address of the server without ``/report``: https, or plain http to this machine."""
        token: Secret[str | None] = None
        """Sent as ``Authorization: Bearer``: for a server of one's own."""

        def __post_init__(self) -> None:
            if fault := check_endpoint(self.endpoint, "token") or check_secret("token", self.token):
                raise ValueError(fault)

        def __repr__(self) -> str:  # the token stays out of logs and tracebacks
            return f"Settings(endpoint={self.endpoint!r})"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, settings.endpoint)
        self._headers = {"Authorization": f"Bearer {settings.token}"} if settings.token else {}
        self._codings: list[Coding] = []

    async def report_batch(self, batch: Batch) -> BatchResult:
        """Send a batch. Raises RetryLater, TooLarge or Rejected."""
        if not batch.events:
            return BatchResult()
        answer = await self._post(batch)
        return judge(answer, {event.event_id for event in batch.events}, self.host, clock.wall())

    def encode(self, batch: Batch) -> bytes:
        """One event: its body. Several: a line each."""
        return batch.events[0].body if len(batch.events) == 1 else super().encode(batch)

    async def erase(self, install_ids: Sequence[str]) -> bool:
        """Ask the server to delete these installs. True: it holds nothing of them any more.

        Raises Rejected where it has nothing to erase, or no way to; RetryLater where it did not confirm.
        """
        for each in install_ids:
            judge_erasure(await self._request("DELETE", f"/installs/{quote(each, safe='')}"), self.host)
        return True

    async def fetch_policy(self, etag: str | None) -> Mapping[str, Any] | None:
        """What the operator wants less of, with its ``etag``; None where nothing is new or nothing can be had."""
        try:
            answer = await self._request("GET", "/policy", {"If-None-Match": etag} if etag else {})
            if answer.status != 200 or answer.body is None:
                return None
            policy = msgspec.json.decode(answer.body, type=dict[str, Any])
        except (DeliveryError, *UNREADABLE):
            return None
        return {**policy, "etag": answer.headers.get("ETag")}

    async def _post(self, batch: Batch) -> Answer:
        headers = {}
        if drops := "; ".join(f"{reason}={count}" for reason, count in batch.drops.items() if count):
            headers["Telemetry-Drops"] = f"epoch={batch.epoch}; {drops}"
        body = self.encode(batch)
        if len(batch.events) == 1:
            return await self._request("POST", "/report", {**headers, "Content-Type": "application/json"}, body)
        headers["Content-Type"] = "application/x-ndjson"
        self._codings = self._codings or codings()
        while True:
            name, compress = self._codings[0]
            answer = await self._request("POST", "/report", {**headers, "Content-Encoding": name}, compress(body))
            if answer.status != 415 or len(self._codings) == 1:
                return answer
            del self._codings[0]  # for as long as this reporter lives

    async def _request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        return await self.request(method, path, {**self._headers, **(headers or {})}, body)
