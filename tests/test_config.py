"""What a configuration says, what it may not say and in which words it is told so."""

from __future__ import annotations

import dataclasses
import os
import pwd
import re
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from cmdorc_telemetry import TelemetryConfig, TelemetryLevel, load_telemetry_config
from cmdorc_telemetry.application import CMDORC
from cmdorc_telemetry.argument import project_config
from cmdorc_telemetry.bounds import NAMES, Bounds
from cmdorc_telemetry.clock import utcnow
from cmdorc_telemetry.config import RESERVED, DestinationConfig, Layer, load_layer, read_table
from cmdorc_telemetry.errors import ConfigError
from cmdorc_telemetry.home import Home

DAY = timedelta(days=1)
LEVELS = "off, minimal, standard, debug"
KEYS = (
    "enabled, level, plugins, specs, bounds, sync, background, endpoint, local_file, to, settings, "
    "debug_consent_given, debug_consent_expires"
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cmdorc.toml"


def fault(file: Path, text: str, load: Any = load_layer) -> str:
    """What loading ``text`` is answered with, less the name of the file."""
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert isinstance(caught.value, ValueError)
    assert caught.value.where == str(file)
    return str(caught.value).removeprefix(f"{file}: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\na = 2\n", "is not valid TOML: Cannot overwrite a value (at line 2, column 6)"),
        ("telemetry = true", "telemetry: found bool; expected a table [telemetry]"),
        ("[[telemetry]]", "telemetry: found list; expected a table [telemetry]"),
        ("telemetry.levl = 'off'", f"telemetry.levl: unknown key; expected one of {KEYS}. Did you mean 'level'?"),
        ("telemetry.xyzzy = 1", f"telemetry.xyzzy: unknown key; expected one of {KEYS}"),
        ("telemetry.enabled = 1", "telemetry.enabled: found 1; expected true or false"),
        ("telemetry.enabled = 'yes'", "telemetry.enabled: found 'yes'; expected true or false"),
        ("telemetry.level = 'standart'",
         f"telemetry.level: found 'standart'; expected one of {LEVELS}. Did you mean 'standard'?"),
        ("telemetry.level = 'loud'", f"telemetry.level: found 'loud'; expected one of {LEVELS}"),
        ("telemetry.level = ''", f"telemetry.level: found ''; expected one of {LEVELS}"),
        ("telemetry.level = 2", f"telemetry.level: found 2; expected one of {LEVELS}"),
        ("telemetry.plugins = 'http'", "telemetry.plugins: found 'http'; expected a list of names"),
        ("telemetry.plugins = ['http', 5]", "telemetry.plugins[1]: found 5; expected a name"),
        ("telemetry.specs = 'a.toml'", "telemetry.specs: found 'a.toml'; expected a list of files"),
        ("telemetry.specs = [['a.toml']]", "telemetry.specs[0]: found ['a.toml']; expected a name"),
        ("telemetry.specs = ['~nobody-of-that-name/a.toml']",
         "telemetry.specs: found '~nobody-of-that-name/a.toml'; expected a path; there is no such user"),
        ('telemetry.specs = ["~\\u0000"]', "telemetry.specs: found '~\\x00'; expected a path; there is no such user"),
        ("telemetry.endpoint = 5", "telemetry.endpoint: found 5; expected a URL"),
        ("telemetry.local_file = []", "telemetry.local_file: found []; expected a path"),
        ("telemetry.to = 'http'", "telemetry.to: found 'http'; expected tables [telemetry.to.NAME]"),
        ("telemetry.to.team = 'http'", "telemetry.to.team: found a string; expected a table"),
        ("telemetry.bounds = 5", "telemetry.bounds: found 5; expected a table [telemetry.bounds]"),
        ("telemetry.bounds.spool_mb = 5", "telemetry.bounds.spool_mb: unknown key; expected one of "
         f"{', '.join(NAMES)}. Did you mean 'spool_mib'?"),
        ("telemetry.bounds.spool_mib = 0.5", "telemetry.bounds.spool_mib: found 0.5; expected a whole number"),
        ("telemetry.bounds.keep_days = true", "telemetry.bounds.keep_days: found True; expected a whole number"),
        ("telemetry.bounds.keep_days = 0", "telemetry.bounds.keep_days: found 0; expected 1 or more"),
        ("telemetry.sync = 1", "telemetry.sync: found 1; expected true or false"),
        ("telemetry.background = 'no'", "telemetry.background: found 'no'; expected true or false"),
        ("telemetry.settings = 1", "telemetry.settings: found 1; expected tables [telemetry.settings.PLUGIN]"),
        ("telemetry.settings.bell = true", "telemetry.settings.bell: found a boolean; expected a table"),
        ("telemetry.debug_consent_given = 'y'", "telemetry.debug_consent_given: found 'y'; expected true or false"),
        ("telemetry.debug_consent_expires = 2026-11-22",
         "telemetry.debug_consent_expires: found datetime.date(2026, 11, 22); expected a date and time"),
        ("telemetry.to.'my team' = {}",
         "telemetry.to.my team: found the name 'my team'; expected letters, digits, - and _ only"),
        ("telemetry.to.'a/b' = {}", "telemetry.to.a/b: found the name 'a/b'; expected letters, digits, - and _ only"),
        ("telemetry.to.'' = {}", "telemetry.to.: found the name ''; expected letters, digits, - and _ only"),
        ("telemetry.to.history = {plugin = 'file'}",
         "telemetry.to.history: found the name 'history'; expected another one: cmdorc-telemetry uses it itself"),
        ("telemetry.to.code-7 = {}",
         "telemetry.to.code-7: found the name 'code-7'; expected another one: cmdorc-telemetry uses it itself"),
        ("telemetry.to.team.plugin = 1", "telemetry.to.team.plugin: found 1; expected the name of a reporter plugin"),
        ("telemetry.to.team.audience = true", "telemetry.to.team.audience: found True; expected 'shared' or 'private'"),
        ("telemetry.to.team.audience = 'privat'",
         "telemetry.to.team.audience: found 'privat'; expected 'shared' or 'private'. Did you mean 'private'?"),
        ("telemetry.to.team.level = 'max'", f"telemetry.to.team.level: found 'max'; expected one of {LEVELS}"),
        ("telemetry.to.team.level = 1", f"telemetry.to.team.level: found 1; expected one of {LEVELS}"),
        ("telemetry.to.team.events = 'x'", "telemetry.to.team.events: found 'x'; expected a list of event names"),
        ("telemetry.to.team.events = [1]", "telemetry.to.team.events[0]: found 1; expected a name"),
        ("telemetry.to.team.rename = []", "telemetry.to.team.rename: found []; expected a table of names"),
        ("telemetry.to.team.rename.os = 1", "telemetry.to.team.rename.os: found 1; expected a name"),
        ("telemetry.to.team.timeout = '1s'", "telemetry.to.team.timeout: found '1s'; expected seconds"),
        ("telemetry.to.team.timeout = true", "telemetry.to.team.timeout: found True; expected seconds"),
        ("telemetry.to.team.timeout = 0", "telemetry.to.team.timeout: found 0; expected seconds above 0"),
        ("telemetry.to.team.timeout = -0.5", "telemetry.to.team.timeout: found -0.5; expected seconds above 0"),
        ("telemetry.to.team.timeout = nan", "telemetry.to.team.timeout: found nan; expected seconds above 0"),
        (f"telemetry.to.team.timeout = {10**400}",
         f"telemetry.to.team.timeout: found {10**400}; expected seconds above 0"),
        ("telemetry.to.team.timeout = inf", "telemetry.to.team.timeout: found inf; expected seconds above 0"),
        ("telemetry.endpoint = 'https://a'\ntelemetry.to.http.endpoint = 'https://b'",
         "telemetry.endpoint: telemetry.to.http.endpoint is there too; expected one of them"),
        ("telemetry.local_file = 'a'\ntelemetry.to.file.path = 'b'",
         "telemetry.local_file: telemetry.to.file.path is there too; expected one of them"),
        ("telemetry.to.http.endpoint = 5", "telemetry.to.http.endpoint: found 5; expected a URL"),
        ("telemetry.to.file.path = false", "telemetry.to.file.path: found False; expected a path"),
    ],
)  # fmt: skip
def test_wrong_input_is_told_what_would_be_right(text: str, message: str, file: Path) -> None:
    assert fault(file, text) == message


def test_a_file_that_is_no_text_or_no_file_is_named(tmp_path: Path, file: Path) -> None:
    file.write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match=f"^{file}: cannot be read: 'utf-8' codec can't decode"):
        load_layer(file)
    with pytest.raises(ConfigError, match=f"^{tmp_path}: cannot be read: .*it is no file"):
        read_table(tmp_path)


@pytest.mark.parametrize("text", ["a = " + "[" * 99_999, "a = 1" + "0" * 9_999], ids=["brackets", "a long number"])
def test_what_would_break_a_reader_is_an_error(text: str, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=f"^{file}: is (nested too deeply|not valid TOML)"):
        load_layer(file)


words = st.sampled_from(
    ["", "a", "http", "history", "code-1", "~", "~nobody-of-that-name/x", "~\0", "\0", "/dev/zero", "\x1b[2J", "debug"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | words | st.datetimes()
    | st.datetimes(timezones=st.just(timezone.utc)) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
).filter(lambda value: value is not None)  # fmt: skip
keys = st.sampled_from([*KEYS.split(", "), "home", "CMDORC_HOME", ""])
to_keys = st.sampled_from([*RESERVED, "endpoint", "path", "token_env", ""])
said = st.dictionaries(keys, values, max_size=4) | st.builds(
    lambda table: {"to": {"spy": table}}, st.dictionaries(to_keys, values, max_size=4)
)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(said)
def test_whatever_a_table_says_it_is_a_layer_or_an_error(table: dict[str, Any]) -> None:
    """A project that is not trusted wrote it: nothing but a ConfigError may come of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cmdorc.toml"
        try:
            path.write_text(tomlkit.dumps({"telemetry": table}), encoding="utf-8")
        except Exception:  # tomlkit has no way to write it
            reject()
        try:
            layer = load_layer(path)
            project_config(path, layer)
        except ConfigError:
            return
        assert layer.asks


def test_a_missing_file_says_nothing(tmp_path: Path, file: Path) -> None:
    assert load_layer(file) == Layer(source=file)
    file.touch()
    assert read_table(file / "below") == {}
    file.write_text("[[command]]\nname = 'x'")
    assert load_layer(file) == Layer(source=file)


def test_load_telemetry_config_wants_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/no.toml: no such file; expected a TOML file$"):
        load_telemetry_config(tmp_path / "no.toml")
    with pytest.raises(ConfigError, match="no such file"):
        load_telemetry_config(str(tmp_path))


def test_debug_in_a_file_needs_a_consent_that_still_holds(file: Path) -> None:
    load = load_telemetry_config
    consent = "opt-in --debug"
    assert (
        fault(file, "telemetry.level = 'debug'", load)
        == f"level: found 'debug' without debug_consent_given; expected a consent: {consent}"
    )
    given = "[telemetry]\nlevel = 'debug'\ndebug_consent_given = true\n"
    assert fault(file, given, load) == "debug_consent_expires: found None; expected a moment with a time zone"
    assert (
        fault(file, given + "debug_consent_expires = 2020-02-29T12:00:00Z", load)
        == f"debug_consent_expires: expired on 2020-02-29; expected a new consent: {consent}"
    )
    file.write_text(given + "debug_consent_expires = 2999-01-01T00:00:00")  # without a zone: UTC
    assert load(file).debug_consent_expires == datetime(2999, 1, 1, tzinfo=timezone.utc)
    file.write_text(given + "debug_consent_expires = 2999-01-01T00:00:00+02:00")
    assert load(file).debug_consent_expires == datetime(2998, 12, 31, 22, tzinfo=timezone.utc)


def test_debug_in_code_needs_a_consent_that_still_holds() -> None:
    debug, now = TelemetryLevel.DEBUG, utcnow()
    with pytest.raises(ValueError, match=r"^TelemetryConfig: level: found 'debug' without debug_consent_given"):
        TelemetryConfig(level=debug, debug_consent_expires=now + DAY)
    with pytest.raises(ConfigError, match="found None; expected a moment with a time zone"):
        TelemetryConfig(level=debug, debug_consent_given=True)
    naive = (now + DAY).replace(tzinfo=None)
    with pytest.raises(ConfigError, match=r"found datetime.datetime\(.*; expected a moment with a time zone"):
        TelemetryConfig(level=debug, debug_consent_given=True, debug_consent_expires=naive)
    with pytest.raises(ConfigError, match=f"debug_consent_expires: expired on {now:%Y-%m-%d}; expected a new consent"):
        TelemetryConfig(level=debug, debug_consent_given=True, debug_consent_expires=now)
    east = timezone(timedelta(hours=5))
    soon = TelemetryConfig(
        level=debug, debug_consent_given=True, debug_consent_expires=(utcnow() + DAY).astimezone(east)
    )
    assert soon.level is debug


def test_a_level_in_code_is_a_telemetry_level() -> None:
    with pytest.raises(ConfigError, match=r"^TelemetryConfig: level: found 'debug'; expected a TelemetryLevel$"):
        TelemetryConfig(level="debug")  # type: ignore[arg-type]


def test_the_config_is_frozen_and_off_by_default() -> None:
    config = TelemetryConfig()
    seeds = {
        "enabled": False,
        "level": TelemetryLevel.MINIMAL,
        "endpoint": None,
        "local_file": None,
        "debug_consent_given": False,
        "debug_consent_expires": None,
    }
    assert [field.name for field in dataclasses.fields(config)][: len(seeds)] == list(seeds)
    assert {name: getattr(config, name) for name in seeds} == seeds
    for name in seeds:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, name, None)
    assert TelemetryConfig(enabled=True).endpoint is None  # recorded locally: no destination is needed


def test_everything_a_file_may_say_arrives(file: Path) -> None:
    file.write_text(
        """
[telemetry]
enabled = true
level = "Standard"
plugins = ["http", "bell"]
specs = ["own.toml", "/abs.toml", "~/home.toml"]
endpoint = "https://t.example/v1"
local_file = "~/telemetry.jsonl"

[telemetry.to.team]
plugin = "http"
endpoint = "http://127.0.0.1:8080/v1"
audience = "private"
level = "minimal"
events = ["command_completed"]
rename = { os = "system" }
timeout = 3
token_env = "TOKEN"

[telemetry.to.http]
compress = false

[telemetry.settings.anonymizer]
drop = ["os"]
"""
    )
    home = Path.home()
    team = DestinationConfig(
        "team", "http", "private", TelemetryLevel.MINIMAL, ("command_completed",), {"os": "system"}, 3.0,
        {"endpoint": "http://127.0.0.1:8080/v1", "token_env": "TOKEN"}, str(file),
    )  # fmt: skip
    http = DestinationConfig(
        "http", "http", settings={"compress": False, "endpoint": "https://t.example/v1"}, where=str(file)
    )
    local = DestinationConfig("file", "file", settings={"path": "~/telemetry.jsonl"}, where=str(file))
    expected = TelemetryConfig(
        enabled=True,
        level=TelemetryLevel.STANDARD,
        endpoint="https://t.example/v1",
        local_file=home / "telemetry.jsonl",
        plugins=("http", "bell"),
        destinations=(team, http, local),
        settings={"anonymizer": {"drop": ["os"]}},
        specs=(file.parent / "own.toml", Path("/abs.toml"), home / "home.toml"),
        source=file,
    )
    assert load_telemetry_config(file) == expected
    layer = load_layer(file)
    assert layer._replace(keys=()) == Layer.of(expected)._replace(keys=())
    assert layer.keys == (
        "telemetry.enabled", "telemetry.level", "telemetry.plugins", "telemetry.specs", "telemetry.endpoint",
        "telemetry.local_file", "telemetry.to.team", "telemetry.to.http", "telemetry.settings.anonymizer",
    )  # fmt: skip
    assert Layer.of(expected).keys == (
        "telemetry.plugins", "telemetry.endpoint", "telemetry.local_file", "telemetry.to.team", "telemetry.to.http",
        "telemetry.to.file", "telemetry.settings.anonymizer",
    )  # fmt: skip


def test_what_an_argument_asks_for_beyond_a_level_is_known() -> None:
    assert Layer.of(TelemetryConfig(enabled=True, level=TelemetryLevel.STANDARD)).keys == ()
    every = TelemetryConfig(sync=True, background=True, bounds=Bounds(keep_days=3), specs=(Path("a.toml"),))
    assert Layer.of(every).keys == ("telemetry.sync", "telemetry.background", "telemetry.bounds")


def test_a_projects_wish_for_debug_is_left_out(file: Path) -> None:
    """It is the most there is, so that it lowers nothing; and a project's word for a consent is no consent."""
    for consent in ("", "debug_consent_given = true\ndebug_consent_expires = 2999-01-01T00:00:00Z\n"):
        file.write_text(f"[telemetry]\nlevel = 'debug'\nenabled = true\n{consent}")
        config = project_config(file, load_layer(file))
        assert (config.enabled, config.level, config.unsaid) == (True, TelemetryLevel.MINIMAL, {"level"})
        assert Layer.of(config).level is None
    file.write_text("[telemetry]\nlevel = 'standard'\n")
    assert project_config(file, load_layer(file)) == load_telemetry_config(file)


def test_a_file_that_says_little_asks_for_little(file: Path) -> None:
    file.write_text("[telemetry]\nto.file.path = '/x'")
    config = load_telemetry_config(file)
    assert (config.enabled, config.level, config.local_file) == (False, TelemetryLevel.MINIMAL, Path("/x"))
    layer = load_layer(file)
    assert (layer.asks, layer.enabled, layer.level) == (True, None, None)
    assert Layer.of(None) == Layer()


def test_an_unknown_user_in_a_path_is_an_error(file: Path) -> None:
    assert (
        fault(file, "telemetry.local_file = '~nobody-of-that-name/x'", load_telemetry_config)
        == "telemetry.to.file.path: found '~nobody-of-that-name/x'; expected a path; there is no such user"
    )


def test_secrets_come_from_the_environment() -> None:
    to = DestinationConfig("team", "http", settings={"token_env": "TOKEN", "endpoint": "e"}, where="c.toml")
    assert to.resolved({"TOKEN": "s3cret"}) == {"token": "s3cret", "endpoint": "e"}
    assert "s3cret" not in to.identity


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"token_env": "TOKEN"}, "'TOKEN' is not set; expected a set variable"),
        ({"token_env": 5}, "found a number; expected the name of a variable"),
        ({"token_env": ["TOKEN"]}, "found a list; expected the name of a variable"),
        ({"token": "a", "token_env": "HOME"}, "telemetry.to.team.token is there too; expected one of them"),
    ],
)
def test_secrets_that_cannot_be_had_are_errors(settings: dict[str, Any], message: str) -> None:
    to = DestinationConfig("team", "http", settings=settings, where="c.toml")
    environ = {name: value for name, value in os.environ.items() if name != "TOKEN"}
    with pytest.raises(ConfigError) as caught:
        to.resolved(environ)
    assert str(caught.value) == f"c.toml: telemetry.to.team.token_env: {message}"


def test_the_identity_of_a_destination_is_where_it_goes() -> None:
    def identity(plugin: str = "http", **settings: object) -> str:
        return DestinationConfig("team", plugin, settings=settings).identity

    first = identity(endpoint="https://a/v1", token="secret", compress=True)
    assert first == "http endpoint=https://a/v1"
    assert identity(endpoint="https://a/v1", token="another") == first
    others = [
        identity(endpoint="https://b/v1"),
        identity("ftp", endpoint="https://a/v1"),
        identity(endpoint_env="https://a/v1"),
        identity(url="https://a/v1"),
        identity(path="x"),
        identity(host="x"),
        identity(port=1),
        identity(),
    ]
    assert len({first, *others}) == 1 + len(others)


def test_the_identity_of_a_shared_destination_is_whose_account_it_is_too() -> None:
    def identity(audience: str = "shared", **settings: object) -> str:
        return DestinationConfig("team", "ph", audience, settings={"endpoint": "https://a", **settings}).identity

    first = identity(api_key="phc_a")
    assert re.fullmatch("ph endpoint=https://a api_key=sha256:[0-9a-f]{12}", first)
    names = ["write_key", "project", "tenant", "topic", "channel", "dsn", "webhook", "headers"]
    others = [identity(), identity(api_key="phc_b"), *(identity(**{name: "phc_a"}) for name in names)]
    assert len({first, *others}) == 1 + len(others)
    ways = [identity(headers=dict(pairs)) for pairs in ([("a", "1"), ("b", "2")], [("b", "2"), ("a", "1")])]
    assert ways[0] == ways[1] != identity(headers={"a": "1", "b": "3"})
    assert identity("private", api_key="phc_a", headers={}) == identity("private") == identity()


def test_levels_are_ordered() -> None:
    levels = list(TelemetryLevel)
    assert [level.value for level in levels] == LEVELS.split(", ")
    for low in levels:
        for high in levels:
            assert (low < high) == (levels.index(low) < levels.index(high))
            assert (low <= high) == (levels.index(low) <= levels.index(high))
    assert TelemetryLevel.parse(TelemetryLevel.DEBUG, "x", "y") is TelemetryLevel.DEBUG
    with pytest.raises(ConfigError, match=f"^x: y: found 5; expected one of {LEVELS}$"):
        TelemetryLevel.parse(5, "x", "y")


def test_home_is_in_the_home_directory_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert CMDORC.directory({}) == CMDORC.directory({"CMDORC_HOME": ""}) == tmp_path / ".cmdorc"
    assert CMDORC.directory({"CMDORC_HOME": f"{tmp_path}/elsewhere"}) == tmp_path / "elsewhere"


@pytest.mark.parametrize("said", ["elsewhere", ".cmdorc", "~/elsewhere"])
def test_no_project_brings_a_home_with_it(said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / said).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        CMDORC.directory({"CMDORC_HOME": said})
    assert str(caught.value) == f"environment: CMDORC_HOME: found {said!r}; expected an absolute path"


def test_no_home_directory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object) -> None:
        raise KeyError

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(ConfigError) as caught:
        CMDORC.directory({})
    assert str(caught.value) == "environment: HOME: no home directory; expected HOME or CMDORC_HOME to be set"
    assert CMDORC.directory({"CMDORC_HOME": "/there"}) == Path("/there")


def test_everything_of_a_user_is_below_one_directory(tmp_path: Path) -> None:
    home = Home(tmp_path)
    files = {name: getattr(home, name) for name in vars(Home) if isinstance(getattr(Home, name), property)}
    assert len(set(files.values())) == len(files)
    outside = {"config": "config.toml", "install_id": "telemetry_install_id", "salt": "telemetry_salt"}
    for name, path in files.items():
        if name in outside:
            assert path == tmp_path / outside[name]
        else:
            assert path.is_relative_to(tmp_path / "telemetry")


def test_bounds_sync_and_background_are_read_and_default_to_little(file: Path) -> None:
    assert load_layer(file).bounds == Bounds()
    file.write_text("[telemetry]\nsync = true\nbackground = true\n[telemetry.bounds]\nkeep_days = 3\n")
    layer = load_layer(file)
    assert (layer.bounds, layer.sync, layer.background) == (Bounds(keep_days=3), True, True)
    config = load_telemetry_config(file)
    assert Layer.of(config).bounds == Bounds(keep_days=3)
    assert (Layer.of(config).sync, Layer.of(config).background) == (True, True)


@pytest.mark.parametrize("key", ["endpoint", "url", "path", "host", "port", "api_key", "write_key", "headers"])
def test_no_variable_leads_what_is_shared_elsewhere(key: str, tmp_path: Path) -> None:
    """Whoever sets the environment, such as a project, would."""
    path = tmp_path / "config.toml"
    path.write_text(f'[telemetry.to.team]\nplugin = "http"\n{key}_env = "WHERE"\ntoken_env = "TOKEN"\n')
    with pytest.raises(ConfigError) as caught:
        load_layer(path)
    assert str(caught.value).startswith(
        f"{path}: telemetry.to.team.{key}_env: found 'WHERE'; expected {key} itself: whom you share with must stand"
    )
    path.write_text(path.read_text() + 'audience = "private"\n')
    assert load_layer(path).destinations[0].resolved({"WHERE": "there", "TOKEN": "t"})[key] == "there"
