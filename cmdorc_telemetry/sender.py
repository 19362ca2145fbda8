"""The background sender: one detached process that sends what a program left behind, if the user set ``background``.

Owns how it is started, what it may inherit, and how long it lives. What it sends, and whether it may, is decided where
``flush`` decides it. Nothing is left behind on Windows: events wait for the next process there.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from time import sleep

import msgspec

from . import clock, files
from .application import Application
from .destinations import configured_destinations
from .errors import TelemetryError, told
from .plugins import PluginHost
from .policy import allowed_destinations, in_ci
from .segment import HEADER, segments
from .situation import Situation
from .spec import TelemetrySpec
from .spool import Spool

log = logging.getLogger("cmdorc_telemetry")

LIFE_SECONDS = 30.0
"""After which the kernel ends a sender, whatever it is doing."""
CLOSE_SECONDS = 2.0
"""How long before that it stops by itself."""
_NICENESS = 10
_LOCK = "sender.owner"  # not `.lock`: so end the names of the destinations' own, which opt-out waits for
_KEPT = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH",
         "SSL_CERT_FILE", "SSL_CERT_DIR")  # fmt: skip
_KEPT_PYTHON = ("PYTHONPATH", "PYTHONHOME", "PYTHONUTF8")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


# -- in the program that ends ---------------------------------------------------------------------------------------


def leave_behind(situation: Situation, host: PluginHost) -> bool:
    """Start a sender, if one is wanted, allowed, and has something to do now. Whether one was started.

    Never raises; takes some milliseconds, for which reason it looks at less than the sender will.
    """
    if sys.platform == "win32":  # pragma: no cover - Windows only
        return False
    try:
        situation = situation.again()
        return _may_send(situation, host) and _something_is_due(situation, host) and _start(situation)
    except (TelemetryError, OSError, ValueError) as fault:
        log.debug("no sender was left behind: %s", told(fault))
        return False


def _may_send(situation: Situation, host: PluginHost) -> bool:
    """Whether the user, the environment and the plugins let a sender do anything."""
    # Where an enabled plugin is missing, the gate would hold back for good what a program that has it would share.
    missing = host.unloaded - {to.plugin for to in situation.user.destinations}
    wanted = situation.user.background and not in_ci(situation.environ) and not missing
    return wanted and situation.policy(layered=False).record


def _something_is_due(situation: Situation, host: PluginHost) -> bool:
    """Whether an event waits for a destination that is not left alone after a failure."""
    names, home = _destinations(situation, host), situation.home
    paths = segments(home.journal)
    if not home.spool.exists():
        return bool(names) and any(_has_records(path, 0) for path in paths)
    with closing(Spool(home.spool, reading=True)) as spool:
        now, longest = clock.wall(), situation.user.bounds.pause_seconds
        names = {name for name in names if not now < spool.state(name)[1] <= now + longest}
        if not names:
            return False
        return spool.oldest(names) is not None or any(_has_records(path, spool.offset(path.name)) for path in paths)


def _destinations(situation: Situation, host: PluginHost) -> set[str]:
    """The names of what may receive something, and has a reporter here."""
    reporters = host.reporters()
    configured = configured_destinations(situation, reporters)
    allowed, _ = allowed_destinations(situation.policy(layered=False), situation.consent, configured)
    return {to.name for to in allowed if to.plugin in reporters}


def _has_records(path: Path, read: int | None) -> bool:
    """Whether a segment has something behind ``read`` (None: it is finished), and nobody writes it any more."""
    with suppress(OSError):  # imported this moment
        if read is not None and path.stat().st_size > max(read, HEADER):
            fd = os.open(path, os.O_RDONLY)
            try:
                return files.lock_fd(fd, wait=False)
            finally:
                os.close(fd)
    return False


def _start(situation: Situation) -> bool:
    """Start the process and hand it the lock that says it is there: no moment without one, no second one."""
    if not _is_interpreter(sys.executable):
        return False
    fd = files.open_private(files.own_dir(situation.home.locks) / _LOCK, os.O_RDWR | os.O_CREAT)
    try:
        if not files.lock_fd(fd, wait=False):
            return False
        process = subprocess.Popen(  # noqa: S603 - this interpreter, and a module of ours
            [sys.executable, "-m", __name__, str(fd), f"{LIFE_SECONDS:g}", _described(situation.application)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(fd,),
            start_new_session=True, cwd="/", env=dict(_environment(situation)),
        )  # fmt: skip
        process.returncode = 0  # it is nobody's child any more: no warning that it still runs
    finally:
        os.close(fd)  # without unlocking it: the lock is the child's now
    return True


def _is_interpreter(executable: str) -> bool:
    """Whether it can be told to run a module: in a frozen or embedding program it is that program itself."""
    return os.path.basename(executable or "").startswith(("python", "pypy")) and not hasattr(sys, "frozen")


def _environment(situation: Situation) -> Iterator[tuple[str, str]]:
    """What a sender needs to know: where things are, who decided what, the way out, and secrets of destinations."""
    kept = _KEPT if sys.flags.ignore_environment else _KEPT + _KEPT_PYTHON
    yield from ((name, text) for name, text in os.environ.items() if name in kept or name.lower() in _PROXIES)
    given, application = situation.environ, situation.application
    secrets = {str(value) for to in situation.user.destinations for key, value in to.settings.items()
               if key.endswith("_env")}  # fmt: skip
    deciding = (application.variable, "DO_NOT_TRACK")
    yield from ((name, given[name]) for name in (*deciding, *secrets) if name in given)
    yield application.home_variable, str(situation.home.root)
    if operators := given.get(application.config_variable):  # relative to a directory that the sender does not start in
        yield application.config_variable, os.path.abspath(operators)


def _described(application: Application) -> str:
    """Whose sender it is, for its command line. A spec without a file goes with it."""
    specs = [os.path.abspath(each) if isinstance(each, Path) else each for each in application.specs]
    return msgspec.json.encode((application.name, application.version, specs, application.command)).decode()


# -- in the sender ----------------------------------------------------------------------------------------------------


def main() -> None:
    """``python -m cmdorc_telemetry.sender LOCK SECONDS WHOSE``: LOCK is the number of the descriptor that is locked."""
    lock, seconds, application = int(sys.argv[1]), float(sys.argv[2]), _application(sys.argv[3])
    _end_after(seconds)
    deadline = clock.monotonic() + seconds - CLOSE_SECONDS
    os.nice(_NICENESS)
    os.set_inheritable(lock, False)
    with suppress(TelemetryError, OSError):
        _send(application, lock, deadline, seconds / 4)


def _application(described: str) -> Application:
    name, version, specs, command = msgspec.json.decode(
        described, type=tuple[str, str, list[str | TelemetrySpec], str]
    )  # fmt: skip
    return Application(name, version, tuple(specs), command=command)


def _send(application: Application, lock: int, deadline: float, patience: float) -> None:
    """Do what ``flush`` does, but keep the pauses after failures; again while something new is there."""
    from .pipeline import Pipeline

    while clock.monotonic() < deadline:
        # Processes that end meanwhile find the lock held, and leave their events to this one.
        sleep(min(Situation.read(application=application).user.bounds.batch_seconds, patience))
        situation = Situation.read(application=application)
        user, cache = situation.user, situation.home.discovered
        host = PluginHost(user.plugins, destinations=[to.plugin for to in user.destinations], cache=cache)
        if not _may_send(situation, host):
            return
        delivery = Pipeline(situation, host).delivery()
        delivery.flush(max(deadline - clock.monotonic(), CLOSE_SECONDS / 2), hurry=False)
        delivery.stop(CLOSE_SECONDS / 2)
        files.unlock_fd(lock)
        # Somebody may have found it locked after the last import: look once more without it.
        if not (_something_is_due(situation.again(), host) and files.lock_fd(lock, wait=False)):
            return


def _end_after(seconds: float) -> None:
    """Have the kernel end this process then.

    No handler, thread or lock of the interpreter takes part: the default action of SIGALRM needs none. What the
    starting program blocked or ignored would be inherited, so that is undone first.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.setitimer(signal.ITIMER_REAL, seconds)


if __name__ == "__main__":
    main()
