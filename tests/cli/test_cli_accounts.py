"""Whose account it is at a service that many use: a key is agreed to like an address, and shown as a digest."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from cmdorc_telemetry.testing import Answer, FaultServer

SERVICE = """
import msgspec
from cmdorc_telemetry import TelemetryReporter, hookimpl

class Service(TelemetryReporter):
    class Settings(msgspec.Struct, forbid_unknown_fields=True):
        path: str
        api_key: str = ""

    async def report(self, event, payload):
        self.write(payload["duration_ms"])

    async def erase(self, install_ids):
        self.write("erased")
        return True

    def write(self, what):
        with open(self.settings.path, "a") as file:
            print(self.settings.api_key, what, file=file)

@hookimpl
def telemetry_reporters():
    return [Service]
"""
ONE, TWO = "phc_one-4f1c", "phc_two-9b7e"


def digest(key: str) -> str:
    """As people are shown it."""
    return f"api_key=sha256:{hashlib.sha256(repr(key).encode()).hexdigest()[:12]}"


class Service:
    """A service with an account for each key."""

    def __init__(self, machine) -> None:
        self.machine, self.kept = machine, machine.folder / "kept"
        machine.plugin("service", SERVICE)

    def configure(self, key: str, audience: str = "shared") -> None:
        self.machine.config(
            '[telemetry]\nplugins = ["service"]\n[telemetry.to.service]\nevents = ["command_completed"]\n'
            f'audience = "{audience}"\npath = "{self.kept}"\n{key}\n'
        )

    def got(self) -> list[str]:
        self.machine("flush")
        return self.kept.read_text().splitlines() if self.kept.exists() else []


@pytest.fixture
def service(machine) -> Service:
    return Service(machine)


def test_another_key_needs_a_yes_of_its_own(machine, service: Service, terminal) -> None:
    service.configure(f'api_key = "{ONE}"')
    shown = machine("opt-in", "--yes", "--level", "standard").output
    assert f"{service.kept} {digest(ONE)} (shared" in " ".join(shown.split())
    machine.record()
    machine("show-payload")  # now it waits in the spool
    service.configure(f'api_key = "{TWO}"')
    assert service.got() == []
    found = machine.json("status")["destinations"][-1]
    assert (found["state"], found["target"]) == ("waits-for-your-yes", f"{service.kept} {digest(TWO)}")
    asked = terminal("review")
    asked.answer("Share with service, too? [y/N] ", "y\n")
    words = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", asked.before).split())
    assert asked.end() == 0
    assert "service leads elsewhere now" in words
    assert f"Was service path={service.kept} {digest(ONE)}" in words
    assert f"{service.kept} {digest(TWO)} (shared" in words
    assert service.got() == []  # what one account was to get is not the other's
    machine.record()
    assert service.got() == [f"{TWO} 3500"]
    assert machine.json("status")["destinations"][-1]["ledger"]["dropped"] == {"destination-changed": 1}


def test_no_key_is_in_what_people_are_shown_or_in_what_is_written_down(machine, service: Service) -> None:
    service.configure(f'api_key = "{ONE}"')
    said = [machine("opt-in", "--yes", "--level", "standard").output]
    machine.record()
    service.got()
    service.configure(f'api_key = "{TWO}"')
    commands = [["status"], ["status", "--json"], ["plugins"], ["plugins", "--json"], ["audit"],
                ["audit", "--json"]]  # fmt: skip
    said += [machine(*command).output for command in commands]
    said += [machine("review", code=2).output, machine("opt-out", code=1).output]
    assert digest(TWO) in "".join(said)
    files = {name: data for name, data in machine.files().items() if name != "config.toml"}
    for key in (ONE, TWO):
        assert key not in "".join(said)
        assert [name for name, data in files.items() if key.encode() in data] == []


def test_no_other_account_is_asked_to_erase(machine, service: Service) -> None:
    service.configure(f'api_key = "{ONE}"')
    machine.opt_in("--level", "standard")
    machine.record()
    assert service.got() == [f"{ONE} 3500"]
    service.configure(f'api_key = "{TWO}"')
    told = machine("opt-out", code=1).stderr
    assert f"is not asked: it leads elsewhere now (it was service path={service.kept} {digest(ONE)})" in told
    service.configure(f'api_key = "{ONE}"')
    assert machine("erase").stderr == "service: erased what it held of this install\n"
    assert service.kept.read_text().splitlines()[1:] == [f"{ONE} erased"]


def test_no_variable_says_whose_account_it_is(machine, service: Service) -> None:
    service.configure('api_key_env = "KEY"')
    told = machine("status", code=2).stderr
    assert "telemetry.to.service.api_key_env: found 'KEY'; expected api_key itself: whom you share with must" in told


def test_a_key_to_what_is_ones_own_comes_and_goes(
    machine, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    service.configure(f'api_key = "{ONE}"', "private")
    machine.opt_in("--local")
    machine.record()
    service.configure('api_key_env = "KEY"', "private")
    monkeypatch.setenv("KEY", TWO)
    assert service.got() == [f"{TWO} 3500"]
    assert "sha256" not in machine("status").stdout


def test_headers_are_hidden_as_keys_are(machine) -> None:
    machine.config(
        '[telemetry]\nplugins = ["otlp"]\n[telemetry.to.otlp]\nendpoint = "https://o.example"\n'
        'headers = { x-team = "s3cret" }\n'
    )
    for words in (machine("plugins", "--json").stdout, machine("opt-in", "--yes").output, machine("status").stdout):
        assert "https://o.example" in words
        assert "s3cret" not in words


def test_authors_are_told_what_such_settings_are_called() -> None:
    from cmdorc_telemetry import config

    page = Path(config.__file__).parents[1].joinpath("docs", "writing-a-plugin.md").read_text(encoding="utf-8")
    (said,) = (part for part in page.split("\n\n") if part.startswith("A person agrees to who gets their events."))
    names = [*config.ADDRESS, *config._ACCOUNT]
    assert json.dumps(sorted(names)) == json.dumps(sorted(said.split("`")[1::2]))


@pytest.mark.parametrize(
    ("plugin", "settings", "confirms"),
    [("posthog", 'endpoint = "{root}"\napi_key = "k"', {"status": "Ok"}),
     ("segment", 'endpoint = "{root}/v1"\nwrite_key = "k"', {"success": True})],
)  # fmt: skip
def test_who_opts_out_is_told_that_a_service_keeps_what_it_was_sent(
    machine, plugin: str, settings: str, confirms: dict[str, object]
) -> None:
    with FaultServer(answer=lambda request: Answer.json(confirms)) as service:
        root = service.endpoint.removesuffix("/v1")
        machine.config(
            f'[telemetry]\nplugins = ["{plugin}"]\n[telemetry.to.{plugin}]\n{settings.format(root=root)}\n'
            'events = ["command_completed"]\n'
        )
        machine.opt_in("--level", "standard")
        machine.record()
        machine("flush")
        sent = json.loads(service.seen[0].plain)["batch"][0]
        install = sent.get("distinct_id") or sent["anonymousId"]
        told = f"{plugin}: has no way to erase what it was sent: whoever runs it may, by the id {install}\n"
        assert told in machine("opt-out").stderr
        assert [request.method for request in service.seen] == ["POST"]
