"""The HTTP routes. Each turns a request into values, calls what decides, and turns the outcome into a response."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from cmdorc_telemetry import clock

from . import __version__, body, openapi
from .body import Refused
from .drops import HEADER
from .reports import Reports
from .retention import keep_purging
from .settings import Settings
from .store import Store, StoreUnavailable

_INSTALL_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# FastAPI can trace and export requests, set up by variables of the environment. A path holds an install id
# here: nothing of a request may leave by that door.
_NOTHING_OBSERVED: Any = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}


def create_app(settings: Settings, store: Store, *, now: Callable[[], float] = clock.wall) -> FastAPI:
    """The application, on an open ``store`` that the caller closes. ``now``: seconds since the epoch."""
    reports = Reports(settings, store)
    policy = msgspec.json.encode(settings.policy)
    etag = f'"{hashlib.sha256(policy).hexdigest()[:16]}"'

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        purging = asyncio.create_task(keep_purging(store, settings.registry, now))
        yield
        purging.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await purging

    app = FastAPI(title="cmdorc-telemetry-server", version=__version__, lifespan=lifespan, telemetry=_NOTHING_OBSERVED)

    @app.post("/v1/report", openapi_extra=openapi.report(settings), summary="Report one event, or a batch")
    async def report(request: Request) -> Response:
        batch, coding = body.kind(request.headers.get("content-type"), request.headers.get("content-encoding"))
        reading = body.read(request.stream(), settings.body_limit)
        try:
            raw = await asyncio.wait_for(reading, settings.body_timeout)
        except asyncio.TimeoutError:
            raise Refused(408, f"the body took longer than {settings.body_timeout:g} s", body.HANG_UP) from None
        except ClientDisconnect:
            raise Refused(400, "the connection ended before the body did") from None
        data = body.expand(raw, coding, settings.expanded_limit)
        lines = body.lines(data, batch, settings.batch_limit)
        answer, wait = await reports.take(lines, request.headers.get(HEADER), now())
        statuses = {result.status for result in answer.results if result.reason != "unwanted"}
        headers = {"Retry-After": str(wait)} if wait else None
        if not batch and statuses == {"rejected"}:
            return _json(msgspec.structs.replace(answer, message=f"Not taken: {answer.results[0].detail}"), 422)
        if wait and not statuses & {"accepted", "duplicate"}:
            return _json(msgspec.structs.replace(answer, message="This install sends too much"), 429, headers)
        return _json(answer, 200, headers)

    @app.get("/v1/policy", summary="What this server wants less of")
    async def get_policy(request: Request) -> Response:
        known = request.headers.get("if-none-match", "")
        if etag in [tag.strip().removeprefix("W/") for tag in known.split(",")]:
            return Response(status_code=304, headers={"ETag": etag})
        return Response(policy, media_type="application/json", headers={"ETag": etag})

    @app.delete("/v1/installs/{anonymous_install_id}", summary="Erase what an install sent")
    async def erase(anonymous_install_id: str) -> Response:
        if not _INSTALL_ID.fullmatch(anonymous_install_id):
            raise Refused(422, "the install id is no UUID in lower case")
        return _json({"message": "Erased.", "deleted": await store.delete_installs([anonymous_install_id])})

    @app.get("/v1/health", summary="Whether reports can be stored")
    async def health() -> Response:
        await store.append([])
        return _json({"status": "ok", "malformed_drops": reports.malformed_drops})

    @app.exception_handler(Refused)
    async def refused(_: Request, fault: Refused) -> Response:
        return _json({"message": str(fault)}, fault.status, fault.headers)

    @app.exception_handler(HTTPException)
    async def http_problem(_: Request, fault: HTTPException) -> Response:
        return _json({"message": str(fault.detail)}, fault.status_code, fault.headers)

    @app.exception_handler(StoreUnavailable)
    async def unavailable(_: Request, fault: StoreUnavailable) -> Response:
        return _json({"message": "the store cannot take this now"}, 503, {"Retry-After": str(fault.after)})

    make_page = app.openapi

    def page() -> dict[str, Any]:
        schema = make_page()
        schema.setdefault("components", {}).setdefault("schemas", {}).update(openapi.components())
        return schema

    app.openapi = page  # type: ignore[method-assign]
    return app


def _json(value: object, status: int = 200, headers: Any = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")
