"""Stands between the code and the operating system: any call that has an effect can be the last, or wait, or fail.

A simulated process is an object that holds descriptors and connections. When it dies, everything it does from then on
raises ``Death``, so that no ``finally`` of its own has an effect any more; then what it held is closed, as a kernel
would: locks are free, and what was not committed is not there.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from cmdorc_telemetry import clock, consent, toml

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


_loads = lru_cache(500)(toml.loads)


def _document(decided: consent.Consent, command: str) -> str:
    """``consent.toml``, as the original writes it for people, for whom it takes longer than all the rest together."""

    def table(name: str, values: Mapping[str, object]) -> list[str]:
        return [f"[{name}]", *(f"{json.dumps(key)} = {json.dumps(value)}" for key, value in values.items())]

    lines = [f'generation = "{decided.generation}"']
    lines += table("destinations", decided.destinations) + table("declined", decided.declined)
    for name, grant in decided.grants.items():
        spec = f"spec.{json.dumps(name)}"
        lines += table(spec, {"record": grant.record, "share": grant.share.value, "decided_at": grant.decided_at})
        lines += table(f"{spec}.fields", grant.fields) + table(f"{spec}.declined", grant.declined)
    for name, levels in decided.generations.items():
        lines += table(f"generations.{json.dumps(name)}", levels)
    lines += ["[later.fields]"]
    for name, specs in decided.later_fields.items():
        lines += table(f"later.fields.{json.dumps(name)}", specs)
    lines += table("later.destinations", decided.later_destinations)
    text = "\n".join(lines)
    if not _seen:
        _seen.append(text)
        assert _loads(text) == _loads(_original(decided, command)), "it is written otherwise now"
    return text


_seen: list[str] = []
_original = consent._document
START = float(int(time.time()))


class Death(BaseException):
    """The process is gone."""


@dataclass
class Body:
    """What the kernel knows of a process."""

    dead: bool = False
    fds: set[int] = field(default_factory=set)
    connections: list[sqlite3.Connection] = field(default_factory=list)

    def bury(self) -> None:
        """Close what it held."""
        self.dead = True
        for fd in self.fds:
            with suppress(OSError):
                _os_close(fd)
        for connection in self.connections:
            connection.close()
        self.fds.clear()
        self.connections.clear()


Trouble = Literal["die", "torn", "fail", "full", "yield"]


@dataclass
class Plan:
    """What happens at the ``at``-th call that has an effect, or at the first of that name (of SQL, its first word)."""

    trouble: Trouble
    at: int | str
    then: Callable[[], None] = lambda: None
    """``yield``: what others do meanwhile."""


_os_close, _os_open, _os_write, _os_fdopen, _os_dup2 = os.close, os.open, os.write, os.fdopen, os.dup2
_flock, _fcntl, _connect = fcntl.flock, fcntl.fcntl, sqlite3.connect
_PLAIN = ("rename", "replace", "unlink", "remove", "rmdir", "mkdir", "chmod", "fchmod", "utime", "fsync", "ftruncate")
_FULL_MIND = ("mkdir", "rename")


class Kernel:
    """Runs work as a process, with a plan. One at a time; those that wait are below it on the stack."""

    def __init__(self) -> None:
        self.running: Body | None = None
        self.plan: Plan | None = None
        self.calls = 0
        self.depth = 0
        self.full = False
        self.now, self.ticks = START, 1000.0
        self.chance = random.Random(0)

    def run(self, body: Body, work: Callable[[], Any], plan: Plan | None = None) -> Any:
        """What ``work`` returns; None where the process died of it, and is buried."""
        outer = self.running, self.plan, self.calls, self.full
        self.running, self.plan, self.calls, self.full = body, plan, 0, False
        self.depth += 1
        result = None
        with suppress(Death):
            result = work()
        self.depth -= 1
        self.running, self.plan, self.calls, self.full = outer
        if body.dead:
            body.bury()
        return result

    def point(self, call: str, sql: str = "") -> None:
        """Before a call that has an effect. Raises what becomes of it."""
        body = self.running
        if body is None:
            return
        if body.dead:
            raise Death
        self.calls += 1
        plan = self.plan
        if plan is not None and plan.at in (self.calls, call, sql.partition(" ")[0]):
            self.plan = None
            if plan.trouble in ("die", "torn"):
                body.dead = True
                if plan.trouble == "die" or call != "write":
                    raise Death
            elif plan.trouble == "yield":
                plan.then()
                if body.dead:
                    raise Death
            elif plan.trouble == "full":
                self.full = True
            elif call == "sql":
                if sql != "ROLLBACK":
                    raise sqlite3.OperationalError("disk I/O error")
            elif call != "report":
                raise OSError(errno.EIO, "Input/output error")
        if self.full:
            if call == "sql" and sql.startswith(("INSERT", "UPDATE", "DELETE", "COMMIT", "CREATE")):
                raise sqlite3.OperationalError("database or disk is full")
            if call in _FULL_MIND:
                raise OSError(errno.ENOSPC, "No space left on device")

    # -- the calls ------------------------------------------------------------------------------------------------

    def _open(self, path: Any, flags: int, mode: int = 0o777, **rest: Any) -> int:
        if flags & WRITING:
            self.point("open")
            if self.full and flags & os.O_CREAT and not os.path.exists(path):
                raise OSError(errno.ENOSPC, "No space left on device")
        fd = _os_open(path, flags, mode, **rest)
        if self.running is not None:
            self.running.fds.add(fd)
        return fd

    def _close(self, fd: int) -> None:
        if self.running is not None:  # also where it is dead: so would the kernel
            self.running.fds.discard(fd)
        _os_close(fd)

    def _fdopen(self, fd: int, *args: Any, **rest: Any) -> Any:
        if self.running is not None:
            self.running.fds.discard(fd)  # the file closes it, without us
        return _os_fdopen(fd, *args, **rest)

    def _write(self, fd: int, data: bytes) -> int:
        self.point("write")
        if self.running is not None and self.running.dead:
            _os_write(fd, data[: len(data) // 2])
            raise Death
        if self.full:
            flags, at = _fcntl(fd, fcntl.F_GETFL), os.lseek(fd, 0, os.SEEK_CUR)
            if flags & os.O_APPEND or at + len(data) > os.fstat(fd).st_size:  # otherwise there is room
                if self.calls % 2:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return _os_write(fd, data[: len(data) // 2])
        return _os_write(fd, data)

    def _dup2(self, fd: int, fd2: int, inheritable: bool = True) -> int:
        self.point("dup2")
        if self.running is not None:
            self.running.fds.add(fd2)
        return _os_dup2(fd, fd2, inheritable)

    def _fcntl(self, fd: int, command: int, argument: Any = 0) -> Any:
        result = _fcntl(fd, command, argument)
        if command == fcntl.F_DUPFD_CLOEXEC and self.running is not None:
            self.running.fds.add(result)
        return result

    def _flock(self, fd: int, operation: int) -> None:
        if not operation & fcntl.LOCK_UN:  # which is what the kernel does for the dead, too
            self.point("lock")
        if self.running is None or operation & (fcntl.LOCK_NB | fcntl.LOCK_UN):
            _flock(fd, operation)
            return
        try:
            _flock(fd, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            # Who holds it is below us on the stack, or else this would wait for ever.
            assert self.depth > 1, "a lock that nobody gives back"
            self.running.dead = True
            raise Death from None

    def connect(self, *args: Any, **rest: Any) -> sqlite3.Connection:
        """A connection of the running process."""
        if self.running is None:
            return _connect(*args, **rest)
        self.point("connect")
        kernel = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                kernel.point("sql", sql)
                return super().execute(sql, *values)

            def executemany(self, sql: str, *values: Any) -> sqlite3.Cursor:
                kernel.point("sql", sql)
                return super().executemany(sql, *values)

        # Who holds it is below us on the stack: waiting would not help.
        made = _connect(*args, **{**rest, "timeout": 0, "factory": Connection})
        self.running.connections.append(made)
        return made

    def _urandom(self, count: int) -> bytes:
        return self.chance.randbytes(count)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """While the body runs, everything goes through here."""
        replaced: list[tuple[Any, str, Any]] = []

        def replace(owner: Any, name: str, new: Any) -> None:
            replaced.append((owner, name, getattr(owner, name)))
            setattr(owner, name, new)

        for name in _PLAIN:
            replace(os, name, self._pointed(name, getattr(os, name)))
        for name in ("open", "close", "fdopen", "write", "dup2", "urandom"):
            replace(os, name, getattr(self, f"_{name}"))
        replace(fcntl, "flock", self._flock)
        replace(fcntl, "fcntl", self._fcntl)
        replace(sqlite3, "connect", self.connect)
        replace(toml, "loads", _loads)  # the same few files are read again and again
        replace(consent, "_document", _document)
        replace(clock, "wall", lambda: self.now)
        replace(clock, "monotonic", lambda: self.ticks)
        try:
            yield
        finally:
            for owner, name, old in reversed(replaced):
                setattr(owner, name, old)

    def _pointed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def pointed(*args: Any, **rest: Any) -> Any:
            self.point(name)
            result = call(*args, **rest)
            if name in ("unlink", "remove") and str(args[0]).endswith(".reserve"):
                self.full = False  # which made some room
            return result

        return pointed
