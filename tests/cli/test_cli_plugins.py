"""``plugins``, ``enable``, ``disable``: what is installed, what of it is used, and what is wrong with it."""

from __future__ import annotations

import re
import stat

import pytest

from cmdorc_telemetry import hookspecs
from cmdorc_telemetry.config import load_layer
from cmdorc_telemetry.discovery import installed

INSTALLED = sorted(point.name for point in installed())
"""Every plugin of this repository, however many there are by now."""
WITH_SETTINGS = """
from msgspec import Struct, field
from cmdorc_telemetry import TelemetryReporter, hookimpl

class Needy(TelemetryReporter):
    class Settings(Struct):
        url: str
        token: str | None = None
        size: int = 5
        tags: list[str] = field(default_factory=list)

    async def report(self, event, payload):
        pass

@hookimpl
def telemetry_reporters():
    return [Needy]

@hookimpl
def cmdorc_completed(run):
    pass
"""
LISTENER = """
from cmdorc_telemetry import hookimpl

@hookimpl
def cmdorc_completed(run):
    pass
"""


def of(machine, name: str):
    (found,) = [each for each in machine.json("plugins") if each["name"] == name]
    return found


def test_what_is_installed_and_not_enabled_is_not_imported(machine) -> None:
    machine.plugin("bell", "raise SystemExit('imported')")
    result = machine("plugins")
    assert result.stdout.startswith(f"{len(INSTALLED) + 1} plugins installed, 0 enabled.\n\n")
    assert "\nbell  not enabled  bell 1.0\n  telemetry enable bell\n\n" in result.stdout
    assert "\nfile  not enabled  cmdorc-telemetry-file " in result.stdout
    assert of(machine, "bell") == {
        "name": "bell", "version": "1.0", "distribution": "bell", "state": "installed", "error": "", "fix": "bell",
        "hooks": [], "destinations": [], "api": "", "deprecated": [], "settings": [], "enabled_in": "", "asked_in": "",
    }  # fmt: skip
    assert not machine.home.root.exists()


def test_settings_with_where_each_comes_from(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "y")
    machine.plugin("needy", WITH_SETTINGS)
    machine.config(
        '[telemetry]\nplugins = ["needy"]\n[telemetry.to.a]\nplugin = "needy"\nurl = "x"\ntoken = "s3cret"\n'
        '[telemetry.to.b]\nplugin = "needy"\naudience = "private"\nurl_env = "PLACE"\nsize = 7\n'
    )
    shown = machine("plugins").stdout
    config = machine.home.config
    assert (
        "needy  enabled  needy 1.0\n"
        "  Hooks    cmdorc_completed, telemetry_reporters\n"
        "  To a     shared, x\n"
        f'    url    "x"  ({config} telemetry.to.a)\n'
        f"    token  (hidden)  ({config} telemetry.to.a)\n" in shown
    )
    assert "s3cret" not in shown
    first, second = of(machine, "needy")["destinations"]
    assert first == {
        "name": "a", "target": "x", "audience": "shared", "settings": [
            {"name": "url", "value": '"x"', "source": f"{config} telemetry.to.a"},
            {"name": "token", "value": "(hidden)", "source": f"{config} telemetry.to.a"},
            {"name": "size", "value": "5", "source": "default"},
            {"name": "tags", "value": "[]", "source": "default"},
        ], "error": "",
    }  # fmt: skip
    assert [(each["name"], each["value"], each["source"]) for each in second["settings"]] == [
        ("url", "$PLACE", "environment"), ("size", "7", f"{config} telemetry.to.b"), ("token", "null", "default"),
        ("tags", "[]", "default"),
    ]  # fmt: skip


def test_a_reporter_that_no_destination_uses_shows_what_it_needs(machine) -> None:
    machine.plugin("needy", WITH_SETTINGS)
    machine.config('[telemetry]\nplugins = ["needy"]\n')
    assert of(machine, "needy")["settings"][0] == {"name": "url", "value": "", "source": "required, not set"}
    assert "\n    url    required, not set\n" in machine("plugins").stdout


def test_a_plugin_that_is_no_destination(machine) -> None:
    machine.plugin("bell", LISTENER)
    machine.config('[telemetry]\nplugins = ["bell"]\n[telemetry.settings.bell]\nloud = true\nsince = 2020-01-01\n')
    source = f"{machine.home.config} telemetry.settings.bell"
    found = of(machine, "bell")
    assert (found["state"], found["hooks"]) == ("enabled", ["cmdorc_completed"])
    assert found["error"] == f"reads no settings: telemetry.settings.bell in {machine.home.config} means nothing"
    assert found["settings"] == [
        {"name": "loud", "value": "(hidden)", "source": source},
        {"name": "since", "value": "(hidden)", "source": source},
    ]
    machine.config('[telemetry]\nplugins = ["bell"]\n')
    assert of(machine, "bell")["settings"] == []


def test_a_reporter_that_needs_nothing_has_a_destination_of_its_name(machine) -> None:
    machine.plugin("jot")
    machine.config('[telemetry]\nplugins = ["jot"]\n')
    assert "  To jot  shared, here\n" in machine("plugins").stdout


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nothing_of_that_name", "cannot be imported: ModuleNotFoundError: No module named"),
        (LISTENER.replace("(run)", "(rum)"), "breaks the hook rules: "),
        ("x = 1", "it has no function that is marked @hookimpl"),
    ],
)
def test_what_is_broken_and_why(machine, code: str, said: str) -> None:
    machine.plugin("crate", code)
    machine.config('[telemetry]\nplugins = ["crate"]\n')
    result = machine("plugins")
    assert "\ncrate  broken  crate 1.0\n  !  " in result.stdout
    assert said in of(machine, "crate")["error"]
    assert "[crate 1.0, crate]" in result.stdout
    assert result.stderr == ""


def test_what_is_asked_for_and_not_installed(machine) -> None:
    machine.config('[telemetry]\nplugins = ["htpp", "graphs"]\n[telemetry.to.board]\nplugin = "graphs"\n')
    shown = machine("plugins").stdout
    assert shown.startswith(f"{len(INSTALLED)} plugins installed, 0 enabled, 2 that cannot be used.\n")
    assert of(machine, "htpp")["fix"] == "correct plugins: did you mean 'http'?"
    assert "pip install" not in shown, "anybody could have registered a name that was a slip"
    assert of(machine, "graphs") == {
        "name": "graphs", "version": "", "distribution": "", "state": "not-installed", "error": "is not installed",
        "fix": f"correct telemetry.to.board.plugin in {machine.home.config}: installed are {', '.join(INSTALLED)}",
        "hooks": [], "api": "", "deprecated": [], "settings": [],
        "destinations": [{"name": "board", "target": "", "audience": "shared", "settings": [], "error": ""}],
        "enabled_in": str(machine.home.config), "asked_in": "",
    }  # fmt: skip
    assert f"\n  correct telemetry.to.board.plugin in {machine.home.config}: installed are anomaly, " in shown


def test_what_a_project_asks_for_is_not_enabled_and_said_to_be_asked_for(machine) -> None:
    machine.plugin("bell", "raise SystemExit('imported')")
    machine.project('[telemetry]\nplugins = ["bell", "http"]\n')
    machine.config('[telemetry]\nplugins = ["http"]\n')
    found = of(machine, "bell")
    assert (found["state"], found["asked_in"], found["fix"]) == ("installed", "cmdorc.toml", "bell")
    told = "  !  cmdorc.toml asks for it; only your own file enables plugins\n"
    assert f"\nbell  not enabled  bell 1.0\n{told}  telemetry enable bell\n" in machine("plugins").stdout
    assert of(machine, "http")["asked_in"] == ""


def test_on_a_narrow_terminal_no_word_is_broken_but_what_is_too_long(
    machine, terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    machine.config('[telemetry]\nplugins = ["fiel", "anonymizer"]\n')
    narrow = terminal("plugins", columns=44, whole=True)
    assert narrow.end() == 0
    lines = [re.sub(r"\x1b\[\d*m", "", line) for line in narrow.shown.splitlines()]
    assert "anonymizer  enabled" in lines
    assert "  correct plugins: did you mean 'file'?" in lines
    assert max(map(len, lines)) <= 44, "a path would be longer"
    assert "  cmdorc-telemetry enable posthog" in lines, "a line to copy is whole"


def test_what_was_written_for_another_api(machine) -> None:
    machine.plugin("modern", LISTENER, api="v2")
    told = "was written for API v2, and this is v1"
    shown = machine("plugins").stdout
    assert f"\nmodern  not enabled  modern 1.0\n  !  {told}\n  pip install --upgrade cmdorc-telemetry\n" in shown
    assert of(machine, "modern")["api"] == "v2"
    machine.config('[telemetry]\nplugins = ["modern"]\n')
    found = of(machine, "modern")
    assert found["state"] == "broken"
    assert found["error"] == f"{told} [modern 1.0, modern] (pip install --upgrade cmdorc-telemetry)"


def test_what_uses_what_will_be_gone(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hookspecs, "DEPRECATED", {"cmdorc_completed": hookspecs.Deprecated("0.1", "something else")})
    machine.plugin("bell", LISTENER, api="v1")
    machine.config('[telemetry]\nplugins = ["bell"]\n')
    with pytest.warns(DeprecationWarning, match="something else"):
        shown = machine("plugins").stdout
    told = "uses cmdorc_completed, which is deprecated since 0.1: use something else"
    assert f"\nbell  enabled  bell 1.0\n  !  {told}\n" in shown


# -- enable and disable -------------------------------------------------------------------------------------------


def test_enable_makes_the_file_for_its_owner_alone(machine) -> None:
    result = machine("enable", "http")
    assert result.stdout == (
        f"http is enabled in {machine.home.config}.\n"
        f"http has no destination: set endpoint in [telemetry.to.http] of {machine.home.config}.\n"
        "It shares nothing that you did not agree to. Its settings:\n"
        "  telemetry plugins\n"
    )
    assert machine.home.config.read_text() == '[telemetry]\nplugins = ["http"]\n'
    assert stat.S_IMODE(machine.home.config.stat().st_mode) == 0o600
    assert stat.S_IMODE(machine.home.root.stat().st_mode) == 0o700
    assert set(machine.files()) == {"config.toml"}


def test_enable_and_disable_keep_what_else_is_there(machine) -> None:
    text = "# mine\n[telemetry]\nplugins = [\n    'bell', # loud\n]\n\n[telemetry.to.http]\nendpoint = 'https://t.example'\n"
    machine.config(text)
    machine("enable", "http")
    assert machine.home.config.read_text() == text.replace("loud\n]", 'loud\n    "http",\n]')
    machine("disable", "http")
    assert load_layer(machine.home.config).plugins == ("bell",)
    assert "'bell', # loud\n" in machine.home.config.read_text()


def test_enabling_twice_changes_nothing(machine) -> None:
    machine("enable", "http")
    before = machine.home.config.stat().st_mtime_ns
    assert machine("enable", "http").stdout.startswith("http was enabled already in ")
    assert machine.home.config.stat().st_mtime_ns == before


def test_disable_takes_every_mention_out(machine) -> None:
    machine.config('[telemetry]\nplugins = ["http", "file", "http"]\n')
    assert machine("disable", "http").stdout == f"http is disabled in {machine.home.config}.\n"
    assert load_layer(machine.home.config).plugins == ("file",)


def test_disabling_what_anonymizes_says_that_sharing_goes_on_without_it(machine) -> None:
    machine.config('[telemetry]\nplugins = ["http", "anonymizer"]\n')
    said = "warning: what happens from now on is shared without what anonymizer did to it\n"
    assert machine("disable", "anonymizer").stderr == said
    assert machine("disable", "http").stderr == ""


def test_enabling_what_is_not_installed(machine) -> None:
    assert machine("enable", "htp", code=2).stderr == (
        f"error: plugin: htp: is not installed; expected one of {', '.join(INSTALLED)}. Did you mean 'http'?\n"
    )
    assert not machine.home.root.exists()


def test_only_what_this_project_publishes_is_to_be_installed(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cmdorc_telemetry.discovery.installed", list)
    assert machine("enable", "otlp", code=2).stderr == (
        "error: plugin: otlp: is not installed (pip install cmdorc-telemetry-otlp); expected one that is, and none is\n"
    )
    assert "pip" not in machine("enable", "graphs", code=2).stderr


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ('[telemetry.to.team]\npath = "/x"\n', "correct telemetry.to.team.plugin in {config}: installed are anomaly, "),
        ('[telemetry.to.a]\nplugin = "HTTP"\n', "correct telemetry.to.a.plugin in {config}: did you mean 'http'?"),
    ],
)
def test_where_a_destination_s_plugin_is_not_there_its_key_is_named(machine, written: str, told: str) -> None:
    config = machine.config(f"[telemetry]\n{written}")
    machine.opt_in()
    for shown in (machine("plugins").stdout, machine("status").stdout):
        assert told.format(config=config) in shown
        assert "pip install" not in shown


def test_disabling_what_is_not_enabled(machine) -> None:
    assert machine("disable", "http", code=2).stderr == (
        "error: plugin: http: is not enabled; expected one that is, and none is\n"
    )


def test_a_file_that_is_wrong_is_not_touched(machine) -> None:
    machine.config("[telemetry\n")
    for command in ("enable", "disable"):
        assert "is not valid TOML" in machine(command, "http", code=2).stderr
    assert machine.home.config.read_text() == "[telemetry\n"
