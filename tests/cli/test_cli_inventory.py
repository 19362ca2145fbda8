"""``plugins`` in the cases that are told rather than guessed: twins, other versions and files, other applications."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from click.testing import CliRunner

from cmdorc_telemetry.cli import telemetry as group
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


NOBODYS = """[telemetry]
plugins = ["file", "anonymizer"]
local_file = {out!r}
[telemetry.settings.{name}.fields]
os = {{ remove = true }}
"""


@pytest.mark.parametrize("name", ["anonymiser", "Anonymizer"])
def test_settings_of_nobody_may_be_rules_for_what_is_shared_so_nothing_is(machine: Any, name: str) -> None:
    out = machine.folder / "shared.jsonl"
    machine.config(NOBODYS.format(out=str(out), name="anonymizer"))
    machine.opt_in()
    config = machine.config(NOBODYS.format(out=str(out), name=name))
    wrong = f"correct telemetry.settings.{name} in {config}: did you mean 'anonymizer'?"
    machine.record()
    assert f"plugin {name!r} has settings, and is not installed. Fix: {wrong}" in machine("flush").stderr
    found = machine.json("status")
    assert (found["history"]["acknowledged"] > 0, out.exists()) == (True, False)
    assert found["broken_plugins"][name] == f"has settings, and is not installed ({wrong})"
    assert any("Nothing is shared" in each and name in each for each in found["problems"])
    told = of(machine, name)
    assert (told["state"], told["error"], told["fix"]) == ("not-installed", "has settings, and is not installed", wrong)

    machine.config(NOBODYS.format(out=str(out), name="anonymizer"))
    machine.record()
    machine("flush")
    shared = [json.loads(line) for line in out.read_text().splitlines()]
    assert shared
    assert not [each for each in shared if "os" in each]


def test_settings_that_nobody_reads_are_told(machine: Any) -> None:
    config = machine.config('[telemetry]\nplugins = ["file"]\n[telemetry.settings.file]\nfiles = 3\n')
    told = f"reads no settings: telemetry.settings.file in {config} means nothing"
    assert of(machine, "file")["error"] == f"{told}; a destination has its own, [telemetry.to.NAME]"
    assert f"  !  {told}" in machine("plugins").stdout.replace("  !       ", "  !  ")


def test_what_is_wrong_with_the_settings_of_a_detector_is_told(machine: Any) -> None:
    machine.config('[telemetry]\nplugins = ["anomaly"]\n[telemetry.settings.anomaly]\nwindow_minuts = 5\n')
    (to,) = of(machine, "anomaly")["destinations"]
    assert "telemetry.settings.anomaly.window_minuts: unknown key" in to["error"]
    assert "Did you mean 'window_minutes'?" in to["error"]


SECRETIVE = """
from msgspec import Struct
from cmdorc_telemetry import TelemetryReporter, hookimpl
from cmdorc_telemetry.decoding import Secret

class Safe(TelemetryReporter):
    class Settings(Struct, forbid_unknown_fields=True):
        url: str
        combination: Secret[list[int] | str] = ""
        notes: Secret[dict[str, str] | None] = None
        auth_token: str | None = None

    async def report(self, event, payload):
        pass

@hookimpl
def telemetry_reporters():
    return [Safe]
"""


@pytest.mark.parametrize("enabled", [True, False], ids=["loaded", "not loaded"])
@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('combination = "s3cret"', ""),
        ('notes = {of = "s3cret"}', ""),
        ('auth_token = "s3cret"', ""),
        ('combinaton = "s3cret"', "combinaton: unknown key"),
        ('combination_env = "s3cret"', "combination_env: what it names is not set"),
        ('combination_env = ["s3cret"]', "combination_env: found a list; expected the name of a variable"),
        ('combination = ["s3cret"]', "combination[0]: found a string; expected int"),
        ('combination = {of = "s3cret"}', "combination: found a table; expected"),
        ('notes = "s3cret"', "notes: found a string; expected table"),
        ('notes = {of = ["s3cret"]}', "notes.of: found a list; expected str"),
        ('auth_token = ["s3cret"]', "auth_token: found a list; expected str"),
    ],
)
def test_no_output_has_a_secret(machine: Any, enabled: bool, written: str, said: str) -> None:
    machine.plugin("safe", SECRETIVE)
    machine.opt_in()
    machine.config(
        f"[telemetry]\nplugins = {['safe'] if enabled else []}\n"
        f'[telemetry.to.team]\nplugin = "safe"\naudience = "private"\nurl = "u"\n{written}\n'
    )
    machine.record()
    commands = [["plugins"], ["plugins", "--json"], ["status"], ["status", "--json"], ["view", "--output", "-"],
                ["review"], ["show-payload"], ["flush"]]  # fmt: skip
    outputs = [CliRunner().invoke(group, words).output for words in commands]
    outputs += [text.decode("latin-1") for name, text in machine.files().items() if name != "config.toml"]
    assert not [each for each in outputs if "s3cret" in each]
    (to,) = of(machine, "safe")["destinations"]
    assert (said in to["error"]) if enabled else to["error"] == ""
    assert "(hidden)" in [each["value"] for each in to["settings"]]


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
    assert "is offered twice: bell (bell 1.0, bell), bell (gong 1.0, gong) (uninstall one of them)" in result.stderr
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


def test_a_broken_plugin_is_not_enabled(machine: Any) -> None:
    machine.plugin("bell", "import nothing_of_that_name")
    result = machine("enable", "bell", code=2)
    assert "warning: plugin 'bell' cannot be imported: ModuleNotFoundError" in result.stderr
    assert result.stderr.endswith(
        "error: plugin: bell: was not enabled: while a plugin cannot be loaded, nothing is shared\n"
    )
    assert not machine.home.root.exists()


def test_one_that_broke_later_stays_enabled_and_is_told_of(machine: Any) -> None:
    machine.plugin("bell", "import nothing_of_that_name")
    machine.config('[telemetry]\nplugins = ["bell"]\n')
    result = machine("enable", "bell")
    assert result.stdout.startswith("bell was enabled already in ")
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
