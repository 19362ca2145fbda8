"""The address that Prometheus scrapes: one process of a machine serves it, for all that ever counted something.

Whoever holds the lock serves; the others wait for it, and take over within a second when that process ends or is
killed. What is served is read from the state at each scrape: it is the same, whoever serves.
"""

from __future__ import annotations

import logging
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from io import StringIO
from ipaddress import ip_address
from typing import Any, TextIO
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from cmdorc_telemetry.files import FileLock
from cmdorc_telemetry.forks import on_fork, own_thread

from .exposition import StateCollector
from .state import State

log = logging.getLogger("cmdorc_telemetry")

LOOK_SECONDS = 1.0
"""How soon somebody else takes over, and how soon a server that was closed ends."""
_REQUEST_SECONDS = 10.0
"""How long somebody may take to ask, or to listen."""
_App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Handler(WSGIRequestHandler):
    timeout = _REQUEST_SECONDS

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: it is somebody else's terminal."""

    def get_stderr(self) -> TextIO:
        """Where what went wrong is told: nowhere, likewise. Whoever asked is given a status."""
        return StringIO()


class _Server(ThreadingWSGIServer):
    timeout = LOOK_SECONDS

    def __init__(self, host: str, port: int, app: _App) -> None:
        self.address_family = _family(host)
        super().__init__((host, port), _Handler)
        self.set_app(app)

    def server_bind(self) -> None:
        """Bind, and ask no name server what the machine is called, as the base class would."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, on a thread that may open the state."""
        with own_thread():
            super().process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: whoever asked went away, or is told by the status."""
        log.debug("a scrape failed", exc_info=True)


class Endpoint:
    """Serves the metrics of a state on a thread of its own, as soon as no other process does, until it is closed."""

    def __init__(self, host: str, port: int, state: State, say: Callable[[str], None] = lambda what: None) -> None:
        """``say`` is told who serves, whenever that is somebody else than before."""
        self._host, self._port, self._state, self._say = host, port, state, say
        self._said = ""
        self._lock = FileLock(state.serving_lock)
        self._closed = threading.Event()
        self._server: _Server | None = None
        self._told = False
        self.serving = threading.Event()
        """Set while it is this process that serves."""
        self._thread = threading.Thread(target=self._run, name="telemetry-prometheus", daemon=True)

    def start(self) -> None:
        """Start the thread. Raises RuntimeError where none can be had."""
        on_fork(self)
        self._thread.start()

    def close(self, seconds: float | None = None) -> None:
        """Serve no more; wait for the thread to end, so long at most."""
        self._closed.set()
        server = self._server
        if server is not None:
            with suppress(OSError):  # wakes it
                server.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(seconds)

    def wait(self) -> None:
        """Return when the thread has ended."""
        self._thread.join()

    def forked(self) -> None:
        """In a child: let go of what is the parent's, so that the port and the lock are free when that ends."""
        server, self._server = self._server, None
        if server is not None:
            with suppress(OSError):
                os.close(server.socket.detach())
        self._lock.release()

    def _run(self) -> None:
        with own_thread():
            while not self._closed.is_set():
                try:
                    if self._taken():
                        self._serve()
                except (OSError, TypeError) as fault:  # the latter for what can be no host
                    self._trouble(fault)
                finally:
                    self.serving.clear()
                    self._let_go()
                self._closed.wait(LOOK_SECONDS)

    def _taken(self) -> bool:
        """Whether there is something to serve, and nobody else does."""
        if not self._state.path.exists():
            self._tell("nothing was counted yet")
            return False
        if not self._lock.acquire(wait=False):
            self._tell("served by another program of yours, until that ends")
            return False
        return True

    def _tell(self, what: str) -> None:
        if what != self._said:
            self._said = what
            self._say(what)

    def _let_go(self) -> None:
        """Let somebody else serve; where the counts were erased meanwhile, nothing of them stays."""
        erased = not self._state.path.exists()
        self._lock.release(unlink=erased)
        if erased:
            with suppress(OSError):  # there are others, or it is gone
                self._state.path.parent.rmdir()

    def _serve(self) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(StateCollector(self._state))
        app: _App = make_wsgi_app(registry)
        with _Server(self._host, self._port, _guarded(app) if _is_loopback(self._host) else app) as server:
            self._server = server
            self.serving.set()
            self._tell("served")
            while not self._closed.is_set():
                server.handle_request()
        self._server = None

    def _trouble(self, fault: OSError | TypeError) -> None:
        """No other process of ours serves there: it is somebody else, or it may not be."""
        if not self._told:
            self._told = True
            what = getattr(fault, "strerror", None) or fault
            log.warning("metrics cannot be served at %s port %s: %s. They are counted; it is tried again",
                        self._host, self._port, what)  # fmt: skip


def _family(host: str) -> socket.AddressFamily:
    with suppress(ValueError):
        return socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
    return socket.AF_INET


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _guarded(app: _App) -> _App:
    """For whoever asks this machine alone: a web page whose name leads here would ask by that name."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with suppress(ValueError):
            if _is_loopback(urlsplit(f"//{environ.get('HTTP_HOST', '')}").hostname or ""):
                return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"Ask for 127.0.0.1 or localhost: this is for programs of this machine.\n"]

    return answer
