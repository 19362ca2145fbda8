"""Applications beside each other and beside cmdorc, each a real process, or several in one."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry import (
    CompletedRun,
    NoopReporter,
    Telemetry,
    TelemetryConfig,
    TelemetryLevel,
    TelemetryReporter,
    clock,
)
from cmdorc_telemetry.application import CMDORC
from cmdorc_telemetry.consent import Grant, save_decision
from cmdorc_telemetry.declarations import new_grant
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.spec import CORE, load_spec
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.testing import FaultServer

from ..waiting import LONG, until
from .conftest import Acme

BIN = Path(sys.executable).parent
RUN = CompletedRun(run_id="r", command_name="Tests", state="success", duration=3.5)


class Keeper(TelemetryReporter):
    def __init__(self) -> None:
        super().__init__()
        self.kept: list[dict[str, Any]] = []

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        self.kept.append(payload)


class Broken(Keeper):
    async def report(self, event: str, payload: dict[str, Any]) -> None:
        raise RuntimeError("never")


def python(code: str, *args: str, **environ: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *args], env={**os.environ, **environ}, capture_output=True,
                          text=True, check=False, timeout=LONG)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def received(server: FaultServer) -> list[dict[str, Any]]:
    posts = [request for request in server.seen if request.method == "POST"]
    return [json.loads(line) for request in posts for line in request.plain.splitlines()]


def ledgers(home: Home) -> dict[str, Any]:
    with closing(Spool(home.spool, reading=True)) as spool:
        return spool.ledger()


# -- several of them ---------------------------------------------------------------------------------------------------


TRACKS = """
import sys
from importlib import import_module
from cmdorc_telemetry import Telemetry
telemetry = Telemetry.start(import_module(sys.argv[1]).APP)
print(int(bool(telemetry.track(f"{sys.argv[1]}.signup", {"plan": "team"}))))
telemetry.close()
"""


def test_each_has_a_decision_of_its_own(acme: Acme, bolt: Acme, tmp_path: Path) -> None:
    assert acme.process("opt-in", "--yes").returncode == 0
    assert python(TRACKS, "acme") == "1\n"
    assert python(TRACKS, "bolt") == "0\n"
    assert not (tmp_path / "user" / ".bolt").exists()
    assert not (tmp_path / "user" / ".cmdorc").exists()
    assert json.loads(bolt.process("status", "--json").stdout)["recording"] is False
    assert bolt.process("opt-in", "--yes", "--level", "standard").returncode == 0
    assert acme.process("opt-out").returncode == 0
    assert python(TRACKS, "acme") == "0\n"
    assert python(TRACKS, "bolt") == "1\n"
    assert bolt.home.install_id.read_text()
    assert not acme.home.install_id.exists()
    cmdorc = subprocess.run([sys.executable, "-m", "cmdorc_telemetry", "status"], capture_output=True, text=True,
                            check=True)  # fmt: skip
    assert cmdorc.stdout.startswith("Telemetry is off.")
    assert "cmdorc-telemetry opt-in" in cmdorc.stdout


def test_variables_are_each_its_own(acme: Acme, bolt: Acme) -> None:
    for name in ("CMDORC_TELEMETRY", "BOLT_TELEMETRY"):
        assert python(TRACKS, "acme", **{name: "standard"}) == "0\n"
    assert python(TRACKS, "acme", ACME_TELEMETRY="standard") == "1\n"
    assert acme.home.install_id.exists()
    assert python(TRACKS, "acme", ACME_TELEMETRY="standard", DO_NOT_TRACK="1") == "0\n"
    acme.opt_in()
    assert python(TRACKS, "acme", CMDORC_TELEMETRY="off") == "1\n"
    assert python(TRACKS, "acme", ACME_TELEMETRY="off") == "0\n"


def test_an_operator_decides_on_the_first_spec_alone(acme: Acme, bolt: Acme, monkeypatch: pytest.MonkeyPatch) -> None:
    acme.config(f'[telemetry]\nspecs = ["{bolt.spec_file}"]\n')
    monkeypatch.setenv("ACME_TELEMETRY", "minimal")
    telemetry = acme.start()
    assert telemetry.track("acme.signup", {"plan": "team"})
    assert not telemetry.track("bolt.signup", {"plan": "team"})
    telemetry.close()
    assert acme.json("status")["decided_in"] == "ACME_TELEMETRY"
    (acme.folder / "operators.toml").write_text("[telemetry]\nenabled = false\n")
    monkeypatch.setenv("ACME_TELEMETRY_CONFIG", str(acme.folder / "operators.toml"))
    assert not acme.start().recording


@pytest.fixture
def servers() -> Iterator[tuple[FaultServer, FaultServer]]:
    with FaultServer() as one, FaultServer() as other:
        yield one, other


def test_one_process_may_have_cmdorc_and_an_application(
    acme: Acme, tmp_path: Path, servers: tuple[FaultServer, FaultServer]
) -> None:
    ours, cmdorcs = servers
    acme.config(f'[telemetry]\nplugins = ["http"]\nendpoint = "{ours.endpoint}"\n')
    acme.opt_in("--level", "standard")
    home = Home.of(CMDORC)
    home.root.mkdir()
    home.config.write_text(f'[telemetry]\nplugins = ["http"]\nendpoint = "{cmdorcs.endpoint}"\n')
    subprocess.run([sys.executable, "-m", "cmdorc_telemetry", "opt-in", "--yes", "--level", "standard"], check=True,
                   capture_output=True)  # fmt: skip
    one, other = acme.start(), Telemetry.start(CMDORC._replace(version="0.12.0"))
    assert other.listening
    assert not one.listening
    other.fire("cmdorc_completed", RUN)
    one.fire("cmdorc_completed", RUN)
    assert one.track("acme.signup", {"plan": "team"})
    assert not one.track("command_completed", {"duration_ms": 1, "state": "success", "final": True, "manual": True})
    assert not other.track("acme.signup", {"plan": "team"})
    assert one.flush(LONG)
    assert other.flush(LONG)
    one.close()
    other.close()
    (signup,), (completed,) = received(ours), received(cmdorcs)
    assert (signup["event"], signup["app_name"]) == ("acme.signup", "acme")
    assert (completed["event"], completed["cmdorc_version"]) == ("command_completed", "0.12.0")
    assert "cmdorc_version" not in signup
    assert "app_name" not in completed
    assert signup["anonymous_install_id"] != completed["anonymous_install_id"]


# -- a server ----------------------------------------------------------------------------------------------------------


@contextmanager
def serving(store: Path, spec: Path) -> Iterator[str]:
    """A real server that knows the spec of an application. Its endpoint."""
    command = [BIN / "cmdorc-telemetry-server", "serve", "--port", "0", "--store", store, "--k", "1", "--spec", spec]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().split()[-1]
        finally:
            server.terminate()


def rows(store: Path) -> list[dict[str, Any]]:
    done = subprocess.run([BIN / "cmdorc-telemetry-server", "rows", "--store", store, "--json"], capture_output=True,
                          text=True, check=True)  # fmt: skip
    return [row["body"] for row in json.loads(done.stdout)]


def test_a_server_takes_the_events_of_an_application_and_erases_them(acme: Acme, tmp_path: Path) -> None:
    store = tmp_path / "reports.db"
    with serving(store, acme.spec_file) as endpoint:
        acme.config(f'[telemetry]\nplugins = ["http"]\nendpoint = "{endpoint}"\n')
        acme.opt_in("--level", "standard")
        acme.record("team", "free")
        flushed = acme("flush")
        assert "http: recorded 2 = acknowledged 2 + pending 0 + dropped 0" in flushed.stdout
        found = rows(store)
        assert {row["plan"] for row in found} == {"team", "free"}
        for row in found:
            assert (row["app_name"], row["app_version"], row["spec"], row["level"], row["locale"]) == (
                "acme", "2.4.1", "acme.app@1", "standard", "en"
            )  # fmt: skip
            assert {"who", "cmdorc_version"}.isdisjoint(row)
        assert "erased what it held" in acme("opt-out").stderr
        assert rows(store) == []


def test_a_server_that_was_not_told_of_it_takes_nothing(acme: Acme, bolt: Acme, tmp_path: Path) -> None:
    store = tmp_path / "reports.db"
    with serving(store, bolt.spec_file) as endpoint:
        acme.config(f'[telemetry]\nplugins = ["http"]\nendpoint = "{endpoint}"\n')
        acme.opt_in()
        acme.record()
        assert "http: 1 rejected and set aside" in acme("flush", code=1).stderr
        assert rows(store) == []


# -- the background sender ---------------------------------------------------------------------------------------------


LEAVES = """
import os, sys
from acme import APP
from cmdorc_telemetry import Telemetry
if sys.argv[1:]:  # a spec that is in no file
    from cmdorc_telemetry.spec import load_spec
    APP = APP._replace(specs=(load_spec(APP.specs[0]),))
telemetry = Telemetry.start(APP)
assert telemetry.track("acme.signup", {"plan": "team"})
other = Telemetry.start()  # of cmdorc: what it leaves behind, or not, is its own
telemetry.close()
"""


@pytest.mark.parametrize("how", [[], ["object"], ["operator"]])
def test_a_sender_that_is_left_behind_is_the_applications(acme: Acme, how: list[str]) -> None:
    with FaultServer() as server:
        acme.config(
            f'[telemetry]\nbackground = true\nplugins = ["http"]\nendpoint = "{server.endpoint}"\n'
            "[telemetry.bounds]\nbatch_seconds = 1\n"
        )
        if how == ["operator"]:
            python(LEAVES, ACME_TELEMETRY="minimal")
        else:
            acme.opt_in()
            python(LEAVES, *how)
        until(lambda: received(server), "what the sender sends")
        assert [(body["event"], body["plan"], body["app_name"]) for body in received(server)] == [
            ("acme.signup", "team", "acme")
        ]
        until(lambda: ledgers(acme.home)["http"].acknowledged == 1, "the acknowledgement")
        assert not Home.of(CMDORC).root.exists()


BOTH = """
from acme import APP as acme
from bolt import APP as bolt
from cmdorc_telemetry import Telemetry
for app in (acme, bolt, acme):
    telemetry = Telemetry.start(app)
    assert telemetry.track(f"{app.name}.signup", {"plan": "team"})
    telemetry.close()
"""


def test_each_application_of_a_process_leaves_its_own_behind(acme: Acme, bolt: Acme) -> None:
    with FaultServer() as server:
        for each in (acme, bolt):
            each.config(
                f'[telemetry]\nbackground = true\nplugins = ["http"]\nendpoint = "{server.endpoint}"\n'
                "[telemetry.bounds]\nbatch_seconds = 1\n"
            )
            each.opt_in()
        python(BOTH)
        until(lambda: len(received(server)) == 3, "what the senders send")
        assert sorted(body["app_name"] for body in received(server)) == ["acme", "acme", "bolt"]


# -- reporters that code gives -----------------------------------------------------------------------------------------


def test_each_reporter_is_a_destination_of_its_own(acme: Acme) -> None:
    acme.opt_in("--level", "standard")
    one, broken, other = Keeper(), Broken(), Keeper()
    telemetry = acme.start(reporters=[one, broken, other])
    assert telemetry.track("acme.signup", {"plan": "team", "who": "Ann"})
    assert not telemetry.flush(5)  # for the broken one
    for keeper in (one, other):
        assert [body["plan"] for body in keeper.kept] == ["team"]
        assert "who" not in keeper.kept[0]
    source = next(name for name in ledgers(acme.home) if re.fullmatch("code-[0-9a-f]+", name))
    names = {name: (each.recorded, each.acknowledged, each.pending) for name, each in ledgers(acme.home).items()}
    assert {source: (1, 1, 0), f"{source}-2": (1, 0, 1), f"{source}-3": (1, 1, 0)}.items() <= names.items()
    assert sorted(path.name for path in acme.home.locks.glob("code-*.owner")) == [
        f"{source}-2.owner", f"{source}-3.owner", f"{source}.owner"
    ]  # fmt: skip
    assert len(list(acme.home.audit.glob("code-*.jsonl"))) == 3
    telemetry.close()
    assert list(acme.home.locks.glob("code-*.owner")) == []
    assert ledgers(acme.home)[f"{source}-2"].dropped == {"reporter-gone": 1}


# -- the level in a stamp ----------------------------------------------------------------------------------------------


def grants(acme: Acme, spec: Path, level: TelemetryLevel) -> None:
    found = load_spec(spec)
    save_decision(acme.home, {found.meta.name: new_grant(found, level, datetime.now(timezone.utc))})


def levels(keeper: Keeper) -> dict[str, str]:
    return {body["event"]: body["level"] for body in keeper.kept}


def test_another_spec_is_shared_at_its_own_level(acme: Acme, bolt: Acme) -> None:
    acme.config(f'[telemetry]\nspecs = ["{bolt.spec_file}"]\n')
    grants(acme, acme.spec_file, TelemetryLevel.OFF)  # on this machine only
    grants(acme, bolt.spec_file, TelemetryLevel.STANDARD)
    keeper = Keeper()
    telemetry = acme.start(reporters=[keeper])
    assert telemetry.track("acme.signup", {"plan": "team"})
    assert telemetry.track("bolt.signup", {"plan": "team", "duration_ms": 3})
    assert telemetry.flush(LONG)
    telemetry.close()
    assert levels(keeper) == {"bolt.signup": "standard"}
    assert keeper.kept[0]["duration_ms"] == 3


def test_what_a_project_lowered_stays_so_for_every_spec_and_program(
    acme: Acme, bolt: Acme
) -> None:  # fmt: skip
    with FaultServer() as server:
        acme.config(f'[telemetry]\nspecs = ["{bolt.spec_file}"]\nplugins = ["http"]\nendpoint = "{server.endpoint}"\n')
        acme.opt_in("--level", "standard")
        lowered = acme.start(config=TelemetryConfig(enabled=True, level=TelemetryLevel.MINIMAL))
        for name in ("acme", "bolt"):
            assert lowered.track(f"{name}.signup", {"plan": "team", "duration_ms": 3})
        lowered.close()
        acme.record("free")
        assert acme("flush").exit_code == 0  # by another program, of no project
        found = {(body["event"], body["plan"]): body["level"] for body in received(server)}
        assert found == {
            ("acme.signup", "team"): "minimal", ("bolt.signup", "team"): "minimal", ("acme.signup", "free"): "standard",
        }  # fmt: skip


@pytest.mark.parametrize(("variable", "level"), [("minimal", "minimal"), ("standard", "standard"), ("", "standard")])
def test_what_the_environment_lowered_stays_so(
    acme: Acme, variable: str, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    with FaultServer() as server:
        acme.config(f'[telemetry]\nplugins = ["http"]\nendpoint = "{server.endpoint}"\n')
        acme.opt_in("--level", "standard")
        python(TRACKS, "acme", ACME_TELEMETRY=variable)
        assert acme("flush").exit_code == 0
        assert [body["level"] for body in received(server)] == [level]


# -- a no, and a yes ---------------------------------------------------------------------------------------------------


def test_a_program_that_saw_a_no_records_again_after_a_yes(acme: Acme, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cmdorc_telemetry.delivery.thread.LOOK_SECONDS", 0.05)
    acme.opt_in("--level", "standard")
    keeper = Keeper()
    telemetry = acme.start(reporters=[keeper, NoopReporter()])
    assert telemetry.track("acme.page", {"pages": 1})
    assert telemetry.flush(LONG)
    first = acme.home.install_id.read_text()
    acme("opt-out")
    until(lambda: not telemetry.track("acme.page", {"pages": 2}), "the no")
    until(lambda: all(thread.name != "telemetry" for thread in threading.enumerate()), "the end of delivery")
    save_decision(acme.home, {"acme.app": Grant()})  # another no is no yes
    ahead, wall = itertools.count(), clock.wall
    with monkeypatch.context() as patch:
        patch.setattr(clock, "wall", lambda: wall() + next(ahead))  # it looks once a second
        assert not any(telemetry.track("acme.page", {"pages": 3}) for _ in range(5))
    acme.opt_in("--level", "standard")
    until(lambda: telemetry.track("acme.page", {"pages": 4}), "the yes")
    assert telemetry.flush(LONG)
    telemetry.close()
    assert [body["pages"] for body in acme.stored()] == [4]
    assert acme.stored()[0]["anonymous_install_id"] == acme.home.install_id.read_text().strip() != first.strip()
    assert [body["pages"] for body in keeper.kept] == [1]  # it ended with the no


def test_a_program_that_missed_a_no_delivers_under_the_yes_after_it(acme: Acme) -> None:
    """It never looked between the two, and its spool is gone."""
    acme.opt_in("--level", "standard")
    keeper = Keeper()
    telemetry = acme.start(reporters=[keeper])
    assert telemetry.track("acme.page", {"pages": 1})
    assert telemetry.flush(LONG)
    acme("opt-out")
    acme.opt_in("--level", "standard")
    assert not telemetry.flush(LONG)  # what it had is gone
    until(lambda: telemetry.flush(LONG), "another spool")
    assert telemetry.track("acme.page", {"pages": 2})
    assert telemetry.flush(LONG)
    telemetry.close()
    assert [body["pages"] for body in acme.stored()] == [2]
    assert acme.stored()[0]["anonymous_install_id"] == acme.home.install_id.read_text().strip()
    assert [body["pages"] for body in keeper.kept] == [1]
    with closing(Spool(acme.home.spool, reading=True)) as spool:
        assert set(spool.ledger()) == {"history"}  # nothing waits for a reporter that is closed


def test_core_is_only_there_for_cmdorc(acme: Acme) -> None:
    acme.opt_in()
    telemetry = acme.start()
    assert telemetry.pipeline is not None
    assert [spec.ref for spec in telemetry.pipeline.registry] == ["acme.app@1"]
    telemetry.close()
    assert load_spec(CORE).ref not in acme.home.consent.read_text()
