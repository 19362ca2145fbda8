"""What the pages for authors of plugins say is what the code has: signatures, records, names, fixtures, promises."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from cmdorc_telemetry import hookspecs, lifecycle, scaffold, testing, types
from cmdorc_telemetry.detector import Detector
from cmdorc_telemetry.plugins import PluginHost
from cmdorc_telemetry.reporter import TelemetryReporter
from cmdorc_telemetry.testing import fixtures

ROOT = Path(__file__).parents[1]
HOOKS = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")
WRITING = (ROOT / "docs" / "writing-a-plugin.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
SIGNATURE = re.compile(r"^(?:async )?def \w+\(.*\) -> .*[^:\n]$", re.MULTILINE)


def signature(function: Callable[..., Any]) -> str:
    """As it stands in the code, on one line."""
    word = "async def" if inspect.iscoroutinefunction(function) else "def"
    return f"{word} {function.__name__}{inspect.signature(function)}".replace("'", "")


def documented(text: str) -> list[str]:
    return [line for block in BLOCK.findall(text) for line in SIGNATURE.findall(block)]


def hooks() -> dict[str, Callable[..., Any]]:
    marked = f"{hookspecs.PROJECT}_spec"
    return {name: each for name, each in vars(hookspecs).items() if hasattr(each, marked)}


def methods(class_: type) -> list[str]:
    """Signatures of what a plugin may implement, in their order."""
    return [signature(each) for name, each in vars(class_).items() if inspect.isfunction(each) and name[0] != "_"]


def section(title: str, text: str = WRITING) -> str:
    found: str = re.split(rf"\n## {title}\n", text)[1].partition("\n## ")[0]
    return found


def test_every_hook_is_documented_with_its_signature() -> None:
    for name, function in hooks().items():
        part = HOOKS.partition(f"\n### {name}\n")[2].partition("\n##")[0]
        assert documented(part) == [signature(function)], name
    assert documented(HOOKS) == [signature(hooks()[name]) for name in re.findall(r"^### (\w+)$", HOOKS, re.MULTILINE)]
    assert f"this is version {hookspecs.API_VERSION} of the hooks" in HOOKS


def test_every_method_of_a_reporter_and_of_a_detector_is_documented_with_its_signature() -> None:
    assert sorted(documented(section("A reporter"))) == sorted(methods(TelemetryReporter))
    assert sorted(documented(section("A detector"))) == sorted(methods(Detector))
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


def as_a_module(made: type, function: Callable[..., Any]) -> object:
    """A plugin that is no object with a ``self``, as a module is."""
    plugin = made()
    vars(plugin)[function.__name__] = hookspecs.hookimpl(function)
    return plugin


def test_a_signature_that_is_wrong_would_be_found() -> None:
    wrong = HOOKS.replace("def cmdorc_trigger(trigger: Trigger)", "def cmdorc_trigger(event: Trigger)")
    assert documented(wrong) != documented(HOOKS)
    assert len(documented(HOOKS)) == len(hooks())


def test_every_field_of_every_record_is_named() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", section("The records", HOOKS), re.MULTILINE))
    passed = {
        name
        for function in hooks().values()
        for name in re.findall(r": (\w+)", str(inspect.signature(function)).replace("'", ""))
    }
    assert table.keys() == passed
    records = {**vars(types), **vars(lifecycle)}
    for name, fields in table.items():
        assert re.findall(r"`(\w+)`", fields) == list(records[name].__struct_fields__), name


def test_the_kinds_are_those_that_can_be_begun_with() -> None:
    rows = dict(re.findall(r"^\| (\w+) \| ([^|`]+) \| `", WRITING, re.MULTILINE))
    assert rows == scaffold.WHAT
    for name in re.findall(r"`(\w+Contract)`", WRITING):
        assert name in testing.__all__


def test_every_fixture_is_there() -> None:
    table = set(re.findall(r"^\| `(telemetry_\w+)` \|", section("What else there is to test with"), re.MULTILINE))
    assert table == {name for name in vars(fixtures) if name.startswith("telemetry_")}


def test_the_modules_that_a_plugin_may_import_are_not_protected() -> None:
    sentence = re.search(r"Import these modules of `cmdorc_telemetry`, and no other: (.*?)\.\n", WRITING, re.DOTALL)
    assert sentence is not None
    named = re.findall(r"`(\w+)`", sentence[1])
    contracts = tomlkit.parse((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]  # type: ignore[index]
    (inside,) = (each for each in contracts if each["name"].startswith("The inside of the core"))
    assert not {f"cmdorc_telemetry.{name}" for name in named} & set(inside["protected_modules"])
    for name in named:
        assert (ROOT / "cmdorc_telemetry" / name).is_dir() or (ROOT / "cmdorc_telemetry" / f"{name}.py").is_file()


@pytest.mark.parametrize("name", ["HttpReporterContract", "AnonymizerContract"])
def test_the_contracts_on_the_page_pass(name: str, tmp_path: Path) -> None:
    (code,) = (block for block in BLOCK.findall(WRITING) if f"({name})" in block)
    (tmp_path / "test_page.py").write_text(code)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not whatever_goes_wrong"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
