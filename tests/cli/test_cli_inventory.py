"""``plugins`` in the cases that are told rather than guessed: twins, other versions and files, other applications."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from click.testing import CliRunner

from cmdorc_telemetry.config import load_layer

from ..acme import Acme
from .test_cli_plugins import LISTENER, WITH_SETTINGS, of

CONFIGURED = """
from msgspec import Struct
from cmdorc_telemetry import hookimpl

class Settings(Struct, forbid_unknown_fields=True):
    loud: bool = False
    places: int = 3

@hookimpl
def telemetry_configure(setup):
    setup.read(Settings)

@hookimpl
def cmdorc_completed(run):
    pass
"""
DETECTOR = """
from msgspec import Struct
from cmdorc_telemetry import hookimpl
from cmdorc_telemetry.detector import Detector

class Quiet(Detector):
    class Settings(Struct):
        window: int = 50

    def score_one(self, event, payload):
        return []

    def learn_one(self, event, payload):
        pass

@hookimpl
def telemetry_detectors():
    return [Quiet]
"""


def twins(machine: Any) -> None:
    machine.plugin("bell", LISTENER)
    machine.plugin("gong", LISTENER)
    (machine.site / "gong-1.0.dist-info" / "entry_points.txt").write_text("[cmdorc_telemetry]\nbell = gong\n")


def written_for(machine: Any, name: str, api: str) -> None:
    with (machine.site / f"{name}-1.0.dist-info" / "entry_points.txt").open("a") as file:
        file.write(f"[cmdorc_telemetry.api]\n{name} = {api}\n")


# -- settings ---------------------------------------------------------------------------------------------------------


def test_settings_that_a_plugin_reads_when_it_is_configured_have_defaults_too(machine: Any) -> None:
    machine.plugin("bell", CONFIGURED)
    machine.config('[telemetry]\nplugins = ["bell"]\n[telemetry.settings.bell]\nloud = true\n')
    assert of(machine, "bell")["settings"] == [
        {"name": "loud", "value": "true", "source": f"{machine.home.config} telemetry.settings.bell"},
        {"name": "places", "value": "3", "source": "default"},
    ]
    machine.config('[telemetry]\nplugins = ["bell"]\n[telemetry.settings.bell]\nluod = true\n')
    found = of(machine, "bell")
    assert (found["state"], "Did you mean 'loud'?" in found["error"]) == ("broken", True)


def test_a_detector_is_a_private_destination(machine: Any) -> None:
    machine.plugin("watcher", DETECTOR)
    machine.config('[telemetry]\nplugins = ["watcher"]\n')
    found = of(machine, "watcher")
    assert found["destinations"] == [
        {"name": "detector-watcher", "target": "", "audience": "private", "settings": [], "error": ""}
    ]
    assert found["settings"] == [{"name": "window", "value": "50", "source": "default"}]
    assert "  To detector-watcher  private, here\n" in machine("plugins").stdout


def test_short_forms_variables_and_keys_of_every_destination_say_where_they_stand(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.plugin("needy", WITH_SETTINGS)
    config = machine.config(
        '[telemetry]\nplugins = ["needy", "http"]\nendpoint = "http://127.0.0.1:9/v1"\n'
        '[telemetry.to.http]\nlevel = "minimal"\n'
        '[telemetry.to.b]\nplugin = "needy"\nurl = "x"\ntoken_env = "TOKEN"\n'
        'timeout = 2\nevents = ["command_completed"]\n[telemetry.to.b.rename]\nos = "system"\n'
    )
    (to,) = of(machine, "http")["destinations"]
    assert to["settings"][:2] == [
        {"name": "level", "value": '"minimal"', "source": f"{config} telemetry.to.http"},
        {"name": "endpoint", "value": '"http://127.0.0.1:9/v1"', "source": f"{config} telemetry.endpoint"},
    ]
    (to,) = of(machine, "needy")["destinations"]
    assert [(each["name"], each["value"]) for each in to["settings"][:3]] == [
        ("events", '["command_completed"]'), ("rename", '{"os":"system"}'), ("timeout", "2.0"),
    ]  # fmt: skip
    assert {"name": "token", "value": "$TOKEN", "source": "environment, not set"} in to["settings"]
    assert "'TOKEN' is not set; expected a set variable" in to["error"]
    assert to["error"] in machine("plugins").stdout
    monkeypatch.setenv("TOKEN", "s3cret")
    (to,) = of(machine, "needy")["destinations"]
    assert {"name": "token", "value": "$TOKEN", "source": "environment"} in to["settings"]
    assert to["error"] == ""
    assert "s3cret" not in machine("plugins").stdout


def test_where_it_is_enabled_is_told_and_an_operators_file_is_named(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.plugin("bell", LISTENER)
    operators = machine.folder / "operators.toml"
    operators.write_text('[telemetry]\nplugins = ["bell"]\n')
    monkeypatch.setenv("CMDORC_TELEMETRY_CONFIG", str(operators))
    assert of(machine, "bell")["enabled_in"] == str(operators)
    result = machine("enable", "http")
    assert load_layer(machine.home.config).plugins == ("http",)
    assert result.stderr == f"warning: an operator's file is in force, whose plugins count: {operators}\n"
    assert of(machine, "http")["state"] == "installed"
    assert "an operator's file is in force" in machine("disable", "http").stderr


# -- what is told, not guessed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("enabled", [True, False])
def test_a_name_that_two_offer_is_neithers(machine: Any, enabled: bool) -> None:
    twins(machine)
    machine.config('[telemetry]\nplugins = ["bell"]\n' if enabled else "")
    found = [each for each in machine.json("plugins") if each["name"] == "bell"]
    assert [each["distribution"] for each in found] == ["bell", "gong"]
    for each in found:
        assert each["state"] == ("broken" if enabled else "installed")
        assert "is offered twice: bell (bell 1.0, bell), bell (gong 1.0, gong)" in each["error"]
        assert "uninstall one of them" in each["error"] + each["fix"]
    shown = machine("plugins").stdout
    assert shown.count("is offered twice") == 2
    assert "enable bell" not in shown


def test_neither_of_them_is_enabled(machine: Any) -> None:
    twins(machine)
    result = machine("enable", "bell", code=2)
    assert "is offered twice: bell (bell 1.0, bell), bell (gong 1.0, gong); expected uninstall one" in result.stderr
    assert not machine.home.root.exists()


@pytest.mark.parametrize("api", ["v99", "nonsense"])
def test_a_plugin_for_another_version_of_the_hooks_is_not_enabled(machine: Any, api: str) -> None:
    machine.plugin("bell", "raise SystemExit('imported')")
    written_for(machine, "bell", api)
    found = of(machine, "bell")
    assert (found["state"], found["api"]) == ("installed", api)
    assert "was written for API" in found["error"]
    assert "enable bell" not in machine("plugins").stdout
    assert "was written for API" in machine("enable", "bell", code=2).stderr
    assert not machine.home.root.exists()
    machine.config('[telemetry]\nplugins = ["bell"]\n')
    assert of(machine, "bell")["state"] == "broken"
    assert "was written for API" in of(machine, "bell")["error"]


def test_a_broken_plugin_that_is_enabled_says_so_at_once(machine: Any) -> None:
    machine.plugin("bell", "import nothing_of_that_name")
    result = machine("enable", "bell")
    assert result.stdout.startswith("bell is enabled in ")
    assert "warning: plugin 'bell' cannot be imported: ModuleNotFoundError" in result.stderr


def test_a_broken_plugin_shows_the_destinations_that_wait_for_it(machine: Any) -> None:
    machine.plugin("needy", "import nothing_of_that_name")
    machine.config('[telemetry]\nplugins = ["needy"]\n[telemetry.to.team]\nplugin = "needy"\nurl = "x"\n')
    found = of(machine, "needy")
    assert (found["state"], [each["name"] for each in found["destinations"]]) == ("broken", ["team"])


# -- comments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("# only this\n", '# only this\n[telemetry]\nplugins = ["http"]\n'),
        ("[telemetry] # mine\nlevel = 'minimal' # enough\n",
         "[telemetry] # mine\nplugins = [\"http\"]\nlevel = 'minimal' # enough\n"),
        ("telemetry.level = 'off' # no\n[other]\nx = 1\n",
         "telemetry.level = 'off' # no\ntelemetry.plugins = [\"http\"]\n[other]\nx = 1\n"),
        ("[telemetry]\nplugins = ['bell', ] # these\n", "[telemetry]\nplugins = ['bell', \"http\", ] # these\n"),
    ],
    ids=["nothing", "table", "dotted", "list"],
)  # fmt: skip
def test_enable_keeps_what_is_written_and_disable_gives_it_back(machine: Any, text: str, after: str) -> None:
    machine.config(text)
    machine("enable", "http")
    found = machine.home.config.read_text()
    assert found.replace("\n\n", "\n") == after
    machine("disable", "http")
    assert all(comment in machine.home.config.read_text() for comment in re.findall("#.*", text))
    assert "http" not in load_layer(machine.home.config).plugins


# -- another application ----------------------------------------------------------------------------------------------


def test_another_application_has_plugins_of_its_own(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.plugin("bell", LISTENER)
    machine.config('[telemetry]\nplugins = ["http"]\n')
    monkeypatch.setenv("ACME_TELEMETRY_HOME", str(machine.folder / "acme"))
    group = Acme(machine.folder).application._replace(home=None).commands()

    def say(*words: str) -> str:
        result = CliRunner().invoke(group, words, prog_name="acme telemetry")
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "acme telemetry enable http" in say("plugins").replace("\n", " ")
    say("enable", "bell")
    assert (machine.folder / "acme" / "config.toml").read_text() == '[telemetry]\nplugins = ["bell"]\n'
    assert "  Hooks  cmdorc_completed (not called here)\n" in say("plugins")
    (found,) = [each for each in json.loads(say("plugins", "--json")) if each["name"] == "bell"]
    assert (found["state"], found["hooks"]) == ("enabled", ["cmdorc_completed"])
    assert [each["name"] for each in machine.json("plugins") if each["state"] == "enabled"] == ["http"]
