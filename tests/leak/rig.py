"""One machine a round, a real server behind a proxy that keeps everything it hears, and all places that are searched.

Owns what is started, and ends it. What a round does is in ``plan``, what its program does in ``program``.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import tomlkit

from cmdorc_telemetry import TelemetryLevel, files
from cmdorc_telemetry.files import reading
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.testing import Answer, FaultServer, Forward, Request

from ..agreement import agree
from .hostile import spec
from .plan import Plan
from .search import Find, Searcher

ROOT = Path(__file__).resolve().parents[2]
SERVER = (Path(sys.executable).with_name("cmdorc-telemetry-server"), "serve")
PROGRAM = Path(__file__).with_name("program.py")
SECONDS = 120.0
_PASSED = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR")
_CONFIG = """
[telemetry]
plugins = ["http", "file", "hostile"]

[telemetry.bounds]
batch_events = {batch}

[telemetry.to.http]
endpoint = "{endpoint}"
{token}

[telemetry.to.file]
path = "{folder}/shared.jsonl"

[telemetry.to.hostile]

[telemetry.to.later]   # nothing is installed that could send to it: what it is to get stays in the spool
plugin = "absent"

[telemetry.to.mine]
plugin = "file"
path = "{folder}/mine.jsonl"
audience = "private"
"""


@dataclass
class Round:
    """What came of one round."""

    finds: list[Find] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What is wrong beside that: modes, a program that failed, a canary that was never there."""
    searched: Counter[str] = field(default_factory=Counter)
    """Bytes, by place."""
    arrived: Counter[str] = field(default_factory=Counter)
    """Events in the shared file, by name."""


@dataclass
class Heard:
    """What the proxy heard in one round."""

    plan: Plan
    bodies: list[bytes] = field(default_factory=list)
    headers: list[bytes] = field(default_factory=list)
    answered: int = 0


class Rig:
    """The server, the proxy, and a folder for rounds. A context manager."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="leak-"))
        self.store = self.folder / "reports.db"
        self._heard: dict[str, Heard] = {}
        self._lock = threading.Lock()
        self._rounds = 0
        self._server_log = self.folder / "server.log"

    def __enter__(self) -> Rig:
        declared = self.folder / "probe.telemetry.toml"
        declared.write_text(tomlkit.dumps(msgspec.to_builtins(spec())))
        with self._server_log.open("wb") as log:
            options = ["--port", "0", "--store", self.store, "--k", "1", "--rate-limit", "0", "--spec", declared]
            self._server = subprocess.Popen([*SERVER, *options], stdout=subprocess.PIPE, stderr=log, env=_kept())
        assert self._server.stdout is not None
        endpoint = self._server.stdout.readline().decode().split()[-1]
        self._forward = Forward(endpoint)
        self._proxy = FaultServer(answer=self._answer).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._proxy.stop()
        self._server.terminate()
        self._server.communicate(timeout=30)
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- between program and server -----------------------------------------------------------------------------------

    def _answer(self, request: Request) -> Answer:
        """Keep the request, and give back what the server says with canaries in it."""
        heard = self._heard[str(request.headers["Authorization"]).removeprefix("Bearer ")]
        lines = [f"{name}: {value}" for name, value in request.headers.items() if name != "Authorization"]
        with self._lock:
            heard.headers.append("\n".join([f"{request.method} {request.path}", *lines]).encode("utf-8", "replace"))
            heard.bodies += [request.body, request.plain]
            heard.answered += 1
            refusal = heard.plan.refusal if heard.answered == 1 else 0
        junk, word = heard.plan.junk, heard.plan.marks[0]
        if refusal:
            refused = Answer.json({"reason": junk, junk: junk}, refusal)
            return Answer(refusal, refused.body, {"Retry-After": "0", "X-Server": word, "Location": word})
        answer = self._forward(request)
        if answer.status != 200 or request.method != "POST":
            return answer
        body = msgspec.json.decode(answer.body)
        for result in body.get("results", ()):
            result["reason"] = junk
            if result["event_id"].endswith("f0"):
                result["status"] = "rejected"
        body.update({"message": junk, "stats": {junk: junk, "percentile_duration": 7}, junk: junk})
        return Answer(200, msgspec.json.encode(body), {**answer.headers, "ETag": f'"{word}"', "X-Server": word})

    # -- a round ------------------------------------------------------------------------------------------------------

    def run(self, plan: Plan) -> Round:
        """Do what a plan says, and search all that came of it."""
        with self._lock:
            self._rounds += 1
            folder = self.folder / f"round-{self._rounds}"
        heard = self._heard[plan.token] = Heard(plan)
        home = self._machine(plan, folder)
        done = subprocess.run(
            [sys.executable, PROGRAM, folder], env=self._environment(plan, folder), capture_output=True, check=False,
            timeout=SECONDS, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        result = Round()
        if done.returncode != 0 or done.stdout.strip() != b"flushed":
            said = done.stderr[-2000:].decode(errors="replace")
            result.faults.append(f"the program ended with {done.returncode}: {done.stdout!r}\n{said}")
            return result
        places = [("log", done.stderr), *self._left(folder, home), *(("http body", each) for each in heard.bodies),
                  *(("http headers", each) for each in heard.headers)]  # fmt: skip
        self.search(result, Searcher(plan.marks, names=plan.names, key=bytes.fromhex(plan.salt)), places)
        result.faults += [*_modes(home, folder), *_lacking(home, folder, plan, heard)]
        for line in (folder / "shared.jsonl").read_bytes().splitlines():
            result.arrived[msgspec.json.decode(line)["event"]] += 1
        if not (result.finds or result.faults):
            shutil.rmtree(folder)
            del self._heard[plan.token]
        return result

    @staticmethod
    def search(result: Round, search: Searcher, places: Iterable[tuple[str, bytes]]) -> None:
        """Note what is found in bytes of some places."""
        for place, data in places:
            result.searched[place] += len(data)
            result.finds += search(place, data)

    def at_the_server(self) -> Iterator[tuple[str, bytes]]:
        """Every byte that the server has: its store, and what it logs."""
        for path in sorted(self.folder.glob("reports.db*")):
            yield "server", path.read_bytes()
        yield "server log", self._server_log.read_bytes()

    def stored(self) -> Counter[str]:
        """Events in the server's store, by name."""
        with closing(reading(self.store)) as db:
            return Counter(dict(db.execute("SELECT event, count(*) FROM event GROUP BY event")))

    def _machine(self, plan: Plan, folder: Path) -> Home:
        """A person's machine, on which they said yes."""
        (folder / plan.folder).mkdir(parents=True)
        home = Home(folder / plan.user / ".cmdorc")
        home.root.mkdir(parents=True)
        token = 'token_env = "LEAK_TOKEN"' if plan.token_by_variable else f'token = "{plan.token}"'
        home.config.write_text(
            _CONFIG.format(endpoint=self._proxy.endpoint, token=token, folder=folder, batch=plan.batch_events)
        )
        home.salt.write_text(plan.salt + "\n")
        home.install_id.write_text(plan.install_id + "\n")
        for path in (home.salt, home.install_id):
            path.chmod(0o600)
        if plan.loose:
            _loosen(home, folder)
        for each in (None, spec(plan)):
            agree(home, TelemetryLevel(plan.level), spec=each)
        site = folder / "site" / "hostile-1.0.dist-info"
        site.mkdir(parents=True)
        (site / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile\nVersion: 1.0\n")
        (site / "entry_points.txt").write_text("[cmdorc_telemetry]\nhostile = tests.leak.hostile:plugin\n")
        (folder / "plan.json").write_bytes(plan.written())
        return home

    def _environment(self, plan: Plan, folder: Path) -> dict[str, str]:
        return {
            **_kept(),
            **plan.variables,
            "HOME": str(folder / plan.user), "USER": plan.user, "LOGNAME": plan.user, "HOSTNAME": plan.host,
            "PYTHONPATH": os.pathsep.join((str(folder / "site"), str(ROOT))), "PYTHONWARNINGS": "error",
            "LEAK_PLAN": str(folder / "plan.json"), "LEAK_TOKEN": plan.token,
        }  # fmt: skip

    def _left(self, folder: Path, home: Home) -> Iterator[tuple[str, bytes]]:
        """What is on the machine, and is not to hold what is private."""
        for path in sorted(folder.glob("shared.jsonl*")):
            yield "shared file", path.read_bytes()
        for path in sorted(each for each in home.audit.rglob("*") if each.is_file()):
            yield "audit", path.read_bytes() if path.stem != "mine" else _without_names(path)
        with closing(reading(home.spool)) as db:
            yield from (("spool", each) for (each,) in db.execute("SELECT shared FROM event WHERE shared IS NOT NULL"))
        yield from self.at_the_server()


def _kept() -> dict[str, str]:
    """What a process needs of this one's environment."""
    return {name: os.environ[name] for name in _PASSED if name in os.environ}


def _without_names(audit: Path) -> bytes:
    """The audit of a destination of the user's own, but for the names of fields: it got private ones, and may."""
    lines = map(msgspec.json.decode, audit.read_bytes().splitlines())
    return b"\n".join(msgspec.json.encode({**line, "fields": None}) for line in lines)


def _loosen(home: Home, folder: Path) -> None:
    """Let others in, before anything is there."""
    files.private_dir(home.telemetry)  # with one that others may write to, nothing would be recorded at all
    for path in (home.journal, home.locks):
        path.mkdir()
        path.chmod(0o777)
    for path in (home.spool, home.history, folder / "shared.jsonl", folder / "mine.jsonl"):
        path.touch()
        path.chmod(0o666)


def _modes(home: Home, folder: Path) -> Iterator[str]:
    """What anybody else could read or enter, of what holds names."""
    for path in (home.telemetry, *home.telemetry.rglob("*"), home.salt, home.install_id, *folder.glob("*.jsonl*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode != (0o700 if path.is_dir() else 0o600):
            yield f"{path.name} has mode {mode:o}"


def _lacking(home: Home, folder: Path, plan: Plan, heard: Heard) -> Iterator[str]:
    """Where canaries, or anything at all, should have been and were not: then the search would prove nothing."""
    mark = plan.marks[0].encode()
    if mark not in (folder / "mine.jsonl").read_bytes():
        yield "no canary reached the destination of the user's own"
    with closing(reading(home.history)) as db:
        if not any(mark in body for (body,) in db.execute("SELECT body FROM event")):
            yield "no canary reached the history"
    with closing(reading(home.spool)) as db:
        if not db.execute("SELECT count(*) FROM event WHERE shared IS NOT NULL").fetchone()[0]:
            yield "the spool holds no shared body"
    if not (heard.bodies and heard.headers):
        yield "nothing was sent"
    if {"http", "file", "hostile", "mine"} - {path.stem for path in home.audit.iterdir()}:
        yield "a destination has no audit"
