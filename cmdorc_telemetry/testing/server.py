"""The fault-injecting server: one thread that listens on loopback, and one a connection."""

from __future__ import annotations

import socket
import ssl
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from .certificates import Certificates
from .exchange import Exchange
from .faults import Fault
from .messages import Answer, Receiver, Request
from .script import Faults, Script

_HOST = "127.0.0.1"
_ACCEPT_SECONDS = 0.05
_FILL_SECONDS = 0.1
_END_SECONDS = 10.0


class FaultServer:
    """A server on a free port of 127.0.0.1 that fails as it is told. A context manager; or ``start`` and ``stop``.

    ``faults`` says what goes wrong, by the names in ``FAULTS``: one name for every request, a list for the next ones,
    or a function. ``answer`` gives the right answers, and has the effect of a request: a ``Receiver``, ``Forward(url)``
    to a real server, or any function. With ``tls``, ``authority`` is the file that makes a client trust it.
    """

    def __init__(
        self,
        *,
        faults: Faults = None,
        answer: Callable[[Request], Answer] | None = None,
        tls: bool = False,
        port: int = 0,
    ) -> None:
        self.receiver = Receiver()
        """What was taken, where ``answer`` was not given."""
        self.answer = answer or self.receiver
        self.scheme, self.port = "https" if tls else "http", port
        self.body_limit: int | None = None
        """Bytes that a request may have; 413 above it."""
        self.script = Script(faults)
        self.seen: list[Request] = []
        """Every request that was read to its end."""
        self.injected: Counter[str] = Counter()
        """How often which fault struck. Those of all connections are not counted: nobody sees who was turned away."""
        self.rejected: set[str] = set()
        """The event ids that ``some-rejected`` did not let through."""
        self.stopping = threading.Event()
        self._folder = tempfile.TemporaryDirectory(prefix="fault-server-") if tls else None
        self._certificates = Certificates(Path(self._folder.name)) if self._folder else None
        self._changed = threading.Condition()
        self._threads: set[threading.Thread] = set()
        self._open: dict[threading.Thread, Exchange] = {}
        self._errors: list[Exception] = []
        self._place: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._accepting: threading.Thread | None = None
        self._fillers: list[socket.socket] = []

    # -- what a test asks and says ------------------------------------------------------------------------------------

    @property
    def endpoint(self) -> str:
        """The address to send to."""
        return f"{self.scheme}://{_HOST}:{self.port}/v1"

    @property
    def authority(self) -> Path:
        """The certificate of the authority that vouches for this server: for ``SSL_CERT_FILE``."""
        if self._certificates is None:
            raise ValueError("a server without TLS has no certificate")
        return self._certificates.authority

    def fail(self, faults: Faults) -> None:
        """What goes wrong from now on; None for nothing. What hangs already goes on hanging."""
        before, self.script = self.script, Script(faults)
        if self.script.listen != before.listen and self._place is not None:
            self._end_listening()
            self._listen()

    def wait_for(self, condition: Callable[[FaultServer], bool], seconds: float = 20.0) -> None:
        """Wait until something is true of this server: asked when a request was read, had its effect, or hits a fault.

        Raises TimeoutError.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), seconds):
                raise TimeoutError(f"not within {seconds:g} s: {len(self.seen)} requests seen, {dict(self.injected)}")

    def start(self) -> FaultServer:
        """Listen."""
        self._place = self._bound()  # keeps the port while nobody listens on it
        self.port = self._place.getsockname()[1]
        self._listen()
        return self

    def stop(self) -> None:
        """End every connection and every thread. Raises what ``answer`` or ``faults`` raised."""
        self.stopping.set()
        self._end_listening()
        self._hang_up()
        for thread in list(self._threads):
            thread.join(_END_SECONDS)
        if self._place is not None:
            self._place.close()
        if self._folder is not None:
            self._folder.cleanup()
        if self._errors:
            raise self._errors[0]

    def __enter__(self) -> FaultServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- for exchanges ------------------------------------------------------------------------------------------------

    def saw(self, request: Request) -> None:
        """A request was read."""
        with self._changed:
            self.seen.append(request)
            self._changed.notify_all()

    def changed(self) -> None:
        """A request had its effect."""
        with self._changed:
            self._changed.notify_all()

    def note(self, fault: Fault) -> None:
        """A fault strikes."""
        with self._changed:
            self.injected[fault.name] += 1
            self._changed.notify_all()

    def context(self, certificate: str | None) -> ssl.SSLContext | None:
        """How TLS is spoken; None for not at all."""
        return None if self._certificates is None else self._certificates.context(certificate)

    def opened(self, exchange: Exchange) -> None:
        """A connection is there: it ends when the server does."""
        self._open[threading.current_thread()] = exchange
        if self.stopping.is_set():
            raise ConnectionAbortedError("the server has stopped")

    # -- listening ----------------------------------------------------------------------------------------------------

    def _bound(self) -> socket.socket:
        # With the protocol named, as asyncio wants it where it is to switch Nagle's algorithm off.
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((_HOST, self.port))
        except OSError as fault:
            bound.close()
            raise OSError(fault.errno, f"port {self.port} of {_HOST} cannot be had: {fault.strerror}") from None
        return bound

    def _listen(self) -> None:
        mode = None if self.script.listen is None else self.script.listen.name
        if mode == "refused":
            self._hang_up()
            return
        self._listener = self._bound()
        if mode == "black-hole":
            self._listener.listen(0)
            self._fill()
            self._hang_up()
            return
        self._listener.listen(128)
        self._listener.settimeout(_ACCEPT_SECONDS)
        self._accepting = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._accepting.start()

    def _end_listening(self) -> None:
        listener, self._listener = self._listener, None
        if self._accepting is not None:
            self._accepting.join()
            self._accepting = None
        for each in (*self._fillers, *([listener] if listener else ())):
            each.close()
        self._fillers.clear()

    def _fill(self) -> None:
        """Connect to ourselves, until a connection is no longer made."""
        full = False
        while not full:
            filler = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            filler.settimeout(_FILL_SECONDS)
            self._fillers.append(filler)
            try:
                filler.connect((_HOST, self.port))
            except OSError:
                full = True

    def _accept(self, listener: socket.socket) -> None:
        while self._listener is listener:
            with suppress(socket.timeout):
                connection, peer = listener.accept()
                thread = threading.Thread(target=self._serve, args=(connection, peer), daemon=True)
                self._threads.add(thread)
                thread.start()

    def _serve(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        try:
            Exchange(connection, peer, self)
        except (OSError, ssl.SSLError):
            pass  # the other side went away, or the test ended
        except Exception as fault:
            self._errors.append(fault)
        finally:
            connection.close()
            self._open.pop(threading.current_thread(), None)
            self._threads.discard(threading.current_thread())

    def _hang_up(self) -> None:
        for exchange in list(self._open.values()):
            with suppress(OSError):  # not the method of SSLSocket: its own thread is in the middle of using that
                socket.socket.shutdown(exchange.connection, socket.SHUT_RDWR)
