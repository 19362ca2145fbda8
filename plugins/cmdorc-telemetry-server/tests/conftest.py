"""Real servers on loopback: in a thread of this process, or a process of their own. And events to send them."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import os
import random
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("cmdorc_telemetry_server.testing")

from cmdorc_telemetry_server import Settings, SQLiteStore, Store, create_app, serving  # noqa: E402

PROGRAM = [sys.executable, "-c", "from cmdorc_telemetry_server.cli import main; main()"]


def uuid7() -> str:
    """An event id as clients make them."""
    number = int(time.time()) * 1000 << 80 | 7 << 76 | random.getrandbits(12) << 64 | 2 << 62 | random.getrandbits(62)
    return str(uuid.UUID(int=number))


def completed(**changes: Any) -> dict[str, Any]:
    """A command_completed as a client shares it; a change to None takes the field out."""
    event = {
        "event": "command_completed", "cmdorc_version": "0.12.0", "python_version": "3.12", "os": "linux",
        "arch": "x86_64", "anonymous_install_id": str(uuid.uuid4()),
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event_id": uuid7(),
        "spec": "cmdorc.core@1", "level": "minimal", "duration_ms": 12, "state": "success", "final": True,
        "manual": True, **changes,
    }  # fmt: skip
    return {name: value for name, value in event.items() if value is not None}


@pytest.fixture(scope="session")
def event() -> Callable[..., dict[str, Any]]:
    """Makes events: ``event(duration_ms=5)``."""
    return completed


class Client:
    """A connection to a server that is kept alive."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    def another(self) -> Client:
        """A further connection to the same server."""
        return Client(self.port)

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, Any, http.client.HTTPMessage]:
        """Status, body (decoded where it is JSON) and headers."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, path, body, names)
        response = self.connection.getresponse()
        content = response.read()
        if response.headers.get_content_type() == "application/json" and content:
            return response.status, json.loads(content), response.headers
        return response.status, content, response.headers

    def report(self, event: Any, **headers: str) -> tuple[int, Any, http.client.HTTPMessage]:
        """Send one event."""
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        return self.request("POST", "/v1/report", body, **{"Content_Type": "application/json", **headers})

    def batch(self, events: list[Any] | bytes, **headers: str) -> tuple[int, Any, http.client.HTTPMessage]:
        """Send events as NDJSON."""
        body = events if isinstance(events, bytes) else b"".join(json.dumps(each).encode() + b"\n" for each in events)
        return self.request("POST", "/v1/report", body, **{"Content_Type": "application/x-ndjson", **headers})

    def statuses(self, events: list[Any] | bytes, **headers: str) -> list[str]:
        """What became of each event of a batch that was taken."""
        status, answer, _ = self.batch(events, **headers)
        assert status == 200, answer
        return [result["status"] for result in answer["results"]]


class Running(Client):
    """A client of a server in a thread of this process."""

    def __init__(self, port: int, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(port)
        self.store = store
        self._loop = loop

    def stored(self) -> list[dict[str, Any]]:
        """The bodies in the store."""

        async def read() -> list[dict[str, Any]]:
            return [json.loads(row.body) async for row in self.store.export()]

        return asyncio.run_coroutine_threadsafe(read(), self._loop).result(20)


@contextmanager
def in_thread(settings: Settings, store: Store, now: Callable[[], float] = time.time) -> Iterator[Running]:
    """A server as the command line runs it, in a thread. Fails where a request ended in an exception."""
    ready = threading.Event()
    found: dict[str, Any] = {}

    async def run() -> None:
        await store.open()
        found["loop"] = asyncio.get_running_loop()
        with serving.listen("127.0.0.1", 0) as listener:
            found["port"] = listener.getsockname()[1]
            found["server"] = serving.Server(create_app(settings, store, now=now), ready.set)
            await found["server"].serve([listener])
        await store.close()

    faults = logging.Handler(logging.ERROR)
    faults.emit = lambda record: found.setdefault("faults", []).append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("uvicorn.error").addHandler(faults)
    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(20)
    running = Running(found["port"], store, found["loop"])
    try:
        yield running
    finally:
        running.connection.close()
        found["server"].should_exit = True
        thread.join(20)
        assert not thread.is_alive()
        logging.getLogger("uvicorn.error").removeHandler(faults)
        assert "faults" not in found


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts servers: ``serve(k=1)``; ``now=`` gives them a clock, ``store=`` another store."""
    with ExitStack() as stack:

        def start(*, now: Callable[[], float] = time.time, store: Store | None = None, **settings: Any) -> Running:
            keeper = store or SQLiteStore(tmp_path / "store.db", timeout=0.2)
            return stack.enter_context(in_thread(Settings(**settings), keeper, now))

        yield start


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with default settings for tests that do not mind each other."""
    store = SQLiteStore(tmp_path_factory.mktemp("server") / "store.db")
    with in_thread(Settings(), store) as running:
        yield running


class Process(Client):
    """A client of a server that runs as a process of its own."""

    def __init__(self, *arguments: str, **options: Any) -> None:
        self.popen = subprocess.Popen(
            [*PROGRAM, "serve", "--port", "0", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            **options,
        )  # fmt: skip
        assert self.popen.stdout is not None
        self.first_line = self.popen.stdout.readline().rstrip("\n")
        assert self.first_line.startswith("listening on "), self.end()
        super().__init__(int(self.first_line.removesuffix("/v1").rpartition(":")[2]))

    def end(self) -> tuple[int, str, str]:
        """Wait for the end: exit code, the rest of stdout, stderr."""
        if hasattr(self, "connection"):
            self.connection.close()
        output, errors = self.popen.communicate(timeout=20)
        return self.popen.returncode, output, errors

    def kill(self) -> None:
        """End it at once, where it has not ended."""
        if self.popen.stdout is not None and not self.popen.stdout.closed:
            self.popen.kill()
            self.end()


@pytest.fixture
def process() -> Iterator[Callable[..., Process]]:
    """Starts server processes: ``process("--store", path)``."""
    started: list[Process] = []

    def start(*arguments: object, **options: Any) -> Process:
        started.append(Process(*map(str, arguments), **options))
        return started[-1]

    yield start
    for each in started:
        each.kill()


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line to its end."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=30, cwd=tmp_path, check=False,
            env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip

    return run
