"""An application: what its places are called, and what it costs to know it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry import Application
from cmdorc_telemetry.application import CMDORC, CORE_SPEC
from cmdorc_telemetry.errors import ConfigError, NoHome, SpecError
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.spec import CORE, dump_json, load_spec

from .conftest import Acme


def made(**options: Any) -> Application:
    return Application(**{"name": "acme", "specs": (CORE,), **options})


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "variable", "home"),
    [("acme", "ACME_TELEMETRY", ".acme"), ("my-app.io", "MY_APP_IO_TELEMETRY", ".my-app.io"),
     ("A1+b", "A1_B_TELEMETRY", ".A1+b")],
)  # fmt: skip
def test_its_places_are_called_after_it(name: str, variable: str, home: str) -> None:
    app = made(name=name)
    assert (app.variable, app.config_variable, app.home_variable) == (
        variable, f"{variable}_CONFIG", f"{variable}_HOME"
    )  # fmt: skip
    assert app.directory({}) == Path.home() / home
    assert app.command == f"{name} telemetry"
    assert not app.is_cmdorc


def test_cmdorcs_are_as_they_always_were() -> None:
    assert (CMDORC.variable, CMDORC.config_variable, CMDORC.home_variable) == (
        "CMDORC_TELEMETRY", "CMDORC_TELEMETRY_CONFIG", "CMDORC_HOME"
    )  # fmt: skip
    assert CMDORC.directory({}) == Path.home() / ".cmdorc"
    assert (CMDORC.command, CMDORC.spec, CMDORC.is_cmdorc) == ("cmdorc telemetry", "cmdorc.core", True)
    assert CMDORC.specs == (CORE,)
    assert load_spec(CORE).meta.name == CORE_SPEC
    assert CMDORC.base == {}
    assert CMDORC._replace(version="0.12.0").base == {"cmdorc_version": "0.12.0"}


def test_a_variable_leads_elsewhere_and_so_does_the_application_itself(tmp_path: Path) -> None:
    assert made(home=tmp_path).directory({}) == tmp_path
    assert made(home="~/there").directory({}) == Path.home() / "there"
    assert made(home=tmp_path).directory({"ACME_TELEMETRY_HOME": "/here"}) == Path("/here")
    assert made().directory({"ACME_TELEMETRY_HOME": "", "CMDORC_HOME": "/cmdorcs"}) == Path.home() / ".acme"
    assert Home.of(made(home=tmp_path)) == Home(tmp_path, made(home=tmp_path))


def test_a_home_that_depends_on_the_directory_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigError, match=r"^environment: ACME_TELEMETRY_HOME: found '\.\.'; expected an absolute path$"
    ):
        made().directory({"ACME_TELEMETRY_HOME": ".."})
    with pytest.raises(ConfigError, match=r"^Application: home: found 'here'; expected an absolute path$"):
        made(home="here").directory({})
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(Path, "home", classmethod(lambda cls: (_ for _ in ()).throw(RuntimeError())))
    with pytest.raises(NoHome, match="expected HOME or ACME_TELEMETRY_HOME to be set"):
        made().directory({})


@pytest.mark.parametrize("name", ["", "1st", ".hidden", "a/b", "a b", "..", "é", "a" * 65])
def test_a_name_must_be_fit_for_paths_and_variables(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^Application: name: found .*; expected a letter, then"):
        made(name=name)


@pytest.mark.parametrize("version", ["one", "v1", "1_0", "1 0", "1" * 41, "²", 2])
def test_a_version_must_be_one_that_events_can_hold(version: Any) -> None:
    with pytest.raises(ConfigError, match=r"^Application: version: found .*; expected a digit, then"):
        made(version=version)


@pytest.mark.parametrize("name", ["CMDORC", "Cmdorc"])
def test_what_an_operator_says_of_cmdorc_is_said_of_nobody_else(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^Application: name: found .*; expected a name that is not cmdorc's$"):
        made(name=name)


def test_each_of_its_specs_is_one() -> None:
    with pytest.raises(ConfigError, match=r"^Application: specs\[1\]: found 3; expected a spec, or its file$"):
        made(specs=(CORE, 3))


@pytest.mark.parametrize("specs", [(), "acme.telemetry.toml", CORE])
def test_it_has_a_spec_at_least(specs: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"^Application: specs: found .*; expected a tuple of specs, or of their files$"
    ):
        made(specs=specs)


def test_its_events_say_which_version_of_it_they_are_of() -> None:
    assert made().base == {"app_name": "acme"}
    assert made(version="2.4.1").base == {"app_name": "acme", "app_version": "2.4.1"}
    assert made().foreign_fields == {"cmdorc_version"}
    assert CMDORC.foreign_fields == {"app_name", "app_version"}


# -- the first spec ----------------------------------------------------------------------------------------------------


def test_the_first_spec_is_the_one_that_is_decided_on(acme: Acme, bolt: Acme, tmp_path: Path) -> None:
    document = tmp_path / "acme.json"
    document.write_text(dump_json(load_spec(acme.spec_file)))
    for specs in ([acme.spec_file, bolt.spec_file], [str(acme.spec_file)], [load_spec(acme.spec_file)], [document]):
        assert made(specs=tuple(specs)).spec == "acme.app"
    assert made(specs=(bolt.spec_file, acme.spec_file)).spec == "bolt.app"


@pytest.mark.parametrize("text", ["[meta", "meta = 1", "[meta]\ntitle = 'x'", "[meta]\nname = '/'\n", None])
def test_a_spec_that_is_broken_says_so(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "own.toml"
    if text is not None:
        path.write_text(text)
    app = made(specs=(path,))
    if text == "[meta]\nname = '/'\n":  # only what it is called is read for that
        assert app.spec == "/"
    else:
        with pytest.raises(SpecError, match=r"own\.toml"):
            app.spec  # noqa: B018 - that is the test


OFF = """
import sys
from acme import APP
from cmdorc_telemetry import Telemetry
telemetry = Telemetry.start(APP)
assert not telemetry.track("acme.signup", {"plan": "free"})
telemetry.close()
print(*sorted(name for name in sys.modules
              if name.partition(".")[0] in ("click", "msgspec", "pluggy", "tomlkit", "rich")
              or name.startswith(("cmdorc_telemetry.spec", "cmdorc_telemetry.plugins"))))
"""


@pytest.mark.parametrize("said", ["nothing", "no"])
def test_off_it_imports_nothing_but_the_standard_library(acme: Acme, said: str) -> None:
    if said == "no":
        acme("opt-out")
    (acme.folder / "site" / "acme" / "__init__.py").write_text(
        "from pathlib import Path\nfrom cmdorc_telemetry import Application\n"
        'APP = Application("acme", specs=(Path(__file__).with_name("acme.telemetry.toml"),))\n'
    )
    done = subprocess.run([sys.executable, "-c", OFF], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("\n", "")
