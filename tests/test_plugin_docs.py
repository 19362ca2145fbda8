"""What the pages for authors of plugins say is what the code has; every plugin on them keeps its contract."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from zipfile import ZipFile

import pytest
import tomlkit

from cmdorc_telemetry import decoding, hookspecs, lifecycle, scaffold, testing, types
from cmdorc_telemetry.detector import Detector
from cmdorc_telemetry.plugins import PluginHost
from cmdorc_telemetry.reporter import TelemetryReporter
from cmdorc_telemetry.testing import fixtures
from cmdorc_telemetry.testing.contracts.plugin import PluginContract

from .pages import blocks, example, page, record_table

HOOKS = page("docs/hooks.md")
WRITING = page("docs/writing-a-plugin.md")
CALLED, _, RECORDS = HOOKS.partition("\n## The records\n")
SIGNATURE = re.compile(r"^(?:async )?def \w+\(.*\) -> .*[^:\n]$", re.MULTILINE)
QUIET = "[pytest]\nasyncio_default_fixture_loop_scope = function\n"


def signature(function: Callable[..., Any]) -> str:
    """As it stands in the code, on one line."""
    word = "async def" if inspect.iscoroutinefunction(function) else "def"
    return f"{word} {function.__name__}{inspect.signature(function)}".replace("'", "")


def documented(text: str) -> list[str]:
    return [line for block in blocks(text, "python") for line in SIGNATURE.findall(block)]


def hooks() -> dict[str, Callable[..., Any]]:
    marked = f"{hookspecs.PROJECT}_spec"
    return {name: each for name, each in vars(hookspecs).items() if hasattr(each, marked)}


def methods(class_: type) -> list[str]:
    """Signatures of what a plugin may implement, in their order."""
    return [signature(each) for name, each in vars(class_).items() if inspect.isfunction(each) and name[0] != "_"]


def section(title: str, text: str = WRITING) -> str:
    found: str = re.split(rf"\n## {title}\n", text)[1].partition("\n## ")[0]
    return found


# -- hooks and methods -----------------------------------------------------------------------------------------------


def test_every_hook_is_documented_with_its_signature() -> None:
    for name, function in hooks().items():
        part = CALLED.partition(f"\n### {name}\n")[2].partition("\n##")[0]
        assert documented(part) == [signature(function)], name
    assert documented(CALLED) == [signature(hooks()[name]) for name in re.findall(r"^### (\w+)$", CALLED, re.MULTILINE)]
    assert f"this is version {hookspecs.API_VERSION} of the hooks" in HOOKS


def test_every_method_of_a_reporter_and_of_a_detector_is_documented_with_its_signature() -> None:
    for title, class_ in {"A reporter": TelemetryReporter, "A detector": Detector}.items():
        text = section(title)
        assert sorted(documented(text)) == sorted(methods(class_))
        told = re.findall(r"^\| `(\w+)` \|", text.partition("| method |")[2].partition("\n\n")[0], re.MULTILINE)
        assert [re.search(r"def (\w+)", line)[1] for line in documented(text)] == told  # type: ignore[index]
    assert documented(section("An anonymizer")) == [signature(hooks()["telemetry_anonymize"])]


def test_the_example_of_a_hook_is_a_hookimpl() -> None:
    examples = {name: re.findall(r"Example: ``(def .*?)``$", inspect.getdoc(function) or "", re.MULTILINE)
                for name, function in hooks().items()}  # fmt: skip
    assert sum(map(len, examples.values())) >= 5
    for name, lines in examples.items():
        for line in lines:
            names: dict[str, Any] = {}
            exec(line, names)
            made = type("Plugin", (), {name: hookspecs.hookimpl(names[name])})
            host = PluginHost(objects=[made() if "(self" in line else as_a_module(made, names[name])])
            assert (host.failures, host.hooks_of("Plugin")) == ({}, [name])


def test_the_first_example_of_the_page_is_a_plugin() -> None:
    module = ModuleType("example")
    exec(blocks(HOOKS, "python")[0], vars(module))
    host = PluginHost(objects=[module])
    assert (host.failures, host.hooks_of("example")) == ({}, ["cmdorc_completed"])


def as_a_module(made: type, function: Callable[..., Any]) -> object:
    """A plugin that is no object with a ``self``, as a module is."""
    plugin = made()
    vars(plugin)[function.__name__] = hookspecs.hookimpl(function)
    return plugin


def test_a_signature_that_is_wrong_would_be_found() -> None:
    wrong = CALLED.replace("def cmdorc_trigger(trigger: Trigger)", "def cmdorc_trigger(event: Trigger)")
    assert documented(wrong) != documented(CALLED)
    assert len(documented(CALLED)) == len(hooks())


# -- records ---------------------------------------------------------------------------------------------------------


def record(name: str) -> type:
    found: type = {**vars(types), **vars(lifecycle)}[name]
    return found


def test_every_record_is_there_field_by_field() -> None:
    """The page lacks something? ``record_table`` makes what stands there."""
    for name in records_on_the_page():
        assert record_table(record(name)) in RECORDS, f"{name}:\n{record_table(record(name))}"


def test_every_record_that_a_plugin_is_given_or_gives_is_there() -> None:
    passed = " ".join([*map(signature, hooks().values()), *methods(TelemetryReporter), *methods(Detector)])
    of_ours = {name for name in re.findall(r"\b[A-Z]\w+", passed) if name in {**vars(types), **vars(lifecycle)}}
    of_ours -= {"Any", "Mapping", "Struct", "Sequence", "TelemetrySpec"}
    assert of_ours | {"BatchEvent", "EventResult"} == set(records_on_the_page())
    in_lifecycle = re.findall(r"`(\w+)`", RECORDS.partition(" are in `cmdorc_telemetry.lifecycle`")[0])
    assert set(in_lifecycle) == {name for name in records_on_the_page() if hasattr(lifecycle, name)}


def records_on_the_page() -> list[str]:
    return re.findall(r"^### (\w+)$", RECORDS, re.MULTILINE)


# -- what there is ---------------------------------------------------------------------------------------------------


def test_the_kinds_are_those_that_can_be_begun_with() -> None:
    rows = dict(re.findall(r"^\| (\w+) \| ([^|`]+) \| `", WRITING, re.MULTILINE))
    assert rows == scaffold.WHAT
    for name in re.findall(r"`(\w+Contract)`", WRITING):
        assert name in testing.__all__


def test_every_fixture_is_there() -> None:
    table = set(re.findall(r"^\| `(telemetry_\w+)` \|", section("What else there is to test with"), re.MULTILINE))
    assert table == {name for name in vars(fixtures) if name.startswith("telemetry_")}


def test_the_names_that_a_plugin_may_import_are_where_the_page_says_and_not_protected() -> None:
    table = dict(re.findall(r"^\| `(cmdorc_telemetry[\w.]*)` \| (.*) \|$", section("A distribution"), re.MULTILINE))
    contracts = tomlkit.parse(page("pyproject.toml"))["tool"]["importlinter"]["contracts"]  # type: ignore[index]
    protected = {name for each in contracts for name in each.get("protected_modules", ())}
    assert len(table) > 10
    for name, what in table.items():
        assert not [each for each in protected if f"{name}.".startswith(f"{each}.")], name
        assert [word for word in re.findall(r"`(\w+)`", what) if not hasattr(import_module(name), word)] == []
    for block in blocks(WRITING, "python"):
        assert set(re.findall(r"^from (cmdorc_telemetry[\w.]*) import", block, re.MULTILINE)) <= table.keys()


def test_the_words_that_make_a_setting_a_secret_are_all_there() -> None:
    (said,) = re.findall(r"Whatever has (.*?) in its name", WRITING, re.DOTALL)
    assert re.findall(r"`(\w+)`", said) == list(decoding._CALLED)


@pytest.mark.parametrize("name", [name for name in testing.__all__ if name.endswith("Contract")])
def test_all_that_a_contract_asks_its_author_for_is_there(name: str) -> None:
    """What has a value of its own, or is under "what a subclass says"."""
    class_ = getattr(testing, name)
    told = "".join(re.findall(rf"^\| (?:`{name}`|every contract) \|.*\n(?:\| \|.*\n)*", WRITING, re.MULTILINE))
    said = [line.split("|")[2].partition(":")[0] for line in told.splitlines()]
    words = set(re.findall(r"`(\w+)(?:\(.*?\))?`", "".join(said)))
    assert asked_for(class_) | asked_for(PluginContract) <= words
    assert [word for word in words - {"plugin"} if not hasattr(class_, word)] == []


def asked_for(class_: type) -> set[str]:
    source = inspect.getsource(class_)
    said = re.search(r"# -- what a subclass \w+.*?\n(.*?)(?:# --|\Z)", source, re.DOTALL)
    names = {*re.findall(r"^    def (\w+)", said[1] if said else "", re.MULTILINE)}
    values = {name for name in inspect.get_annotations(class_) if name in vars(class_) or name == "plugin"}
    plain = {name for name, value in vars(class_).items() if isinstance(value, bool)}
    return (names | values | plain) - {"hooks", "share", "prepared"}


# -- plugins ---------------------------------------------------------------------------------------------------------


def install_from_wheel(folder: Path, name: str) -> None:
    """An example, built with the page's ``pyproject.toml``; its first line may say where the entry point leads."""
    code = example(WRITING, f"{name}.py")
    (folder / f"{name}.py").write_text(code)
    project = example(WRITING, "pyproject.toml").replace("jot", name)
    if leads := re.match(r'# [\w.]+, with the entry point "(.*)"', code):
        project = project.replace(f'{name} = "{name}"', f'{name} = "{leads[1]}"')
    (folder / "pyproject.toml").write_text(project)
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=folder, check=True)
    (folder / f"{name}.py").unlink()
    (wheel,) = folder.glob("dist/*.whl")
    ZipFile(wheel).extractall(folder / "site")


def passes(folder: Path, test: str, *options: str) -> str:
    """What pytest says of the tests of a plugin, which is installed at ``site``."""
    (folder / "test_page.py").write_text(test)
    (folder / "pytest.ini").write_text(QUIET)
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("CMDORC", "DO_NOT"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options], cwd=folder, capture_output=True,
        text=True, check=False, env={**environ, "PYTHONPATH": str(folder / "site")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["jot", "blur", "streak", "bell"])
def test_each_plugin_on_the_page_keeps_its_contract(name: str, tmp_path: Path) -> None:
    install_from_wheel(tmp_path, name)
    assert "skipped" not in passes(tmp_path, example(WRITING, f"test_{name}.py"))


def test_the_contract_over_http_needs_no_more_than_the_page_shows(tmp_path: Path) -> None:
    passes(tmp_path, example(WRITING, "test_http.py"), "-k", "not whatever_goes_wrong")
