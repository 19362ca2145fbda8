"""The public names are the design's, load when they are used, and cost nothing before that."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import cmdorc_telemetry

NAMES = {
    "Application", "instrument", "TelemetryOrchestrator", "Telemetry", "TelemetryConfig", "TelemetryLevel",
    "load_telemetry_config", "TelemetryPayloadBuilder", "TelemetryReporter", "NoopReporter", "TelemetrySpec",
    "TelemetryRegistry", "TelemetryTracker", "TelemetryAnomalyMonitor", "TelemetryViolation", "ThresholdAnomaly",
    "Result", "Violation", "hookimpl", "Session", "CompletedRun", "Trigger", "Chain",
}  # fmt: skip


def test_the_names_are_those_of_the_design() -> None:
    assert set(cmdorc_telemetry.__all__) == NAMES
    assert len(cmdorc_telemetry.__all__) == len(NAMES)
    assert cmdorc_telemetry.__version__.count(".") == 2


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_name_loads_when_it_is_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(vars(cmdorc_telemetry), name, raising=False)
    value = getattr(cmdorc_telemetry, name)
    assert vars(cmdorc_telemetry)[name] is value
    module = cmdorc_telemetry._WHERE[name]
    assert getattr(sys.modules[f"cmdorc_telemetry.{module}"], name) is value


def test_another_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match="module 'cmdorc_telemetry' has no attribute 'Telemtry'"):
        cmdorc_telemetry.Telemtry  # noqa: B018 - the access is what is tested


def test_type_checkers_see_what_is_loaded() -> None:
    spec = importlib.util.find_spec("cmdorc_telemetry")
    assert spec is not None
    tree = ast.parse(Path(spec.origin or "").read_text(encoding="utf-8"))
    seen = {
        alias.name: node.module
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    assert seen == cmdorc_telemetry._WHERE
    assert set(seen) == NAMES


@pytest.mark.parametrize("code", ["", ".config", ".situation", ".identity"])
def test_nothing_beyond_the_standard_library_is_imported(code: str) -> None:
    """While telemetry is off this is all that a program pays."""
    script = f"""
import sys
before = set(sys.modules)
import cmdorc_telemetry{code}
if sys.argv[1:]:
    cmdorc_telemetry.situation.Situation.read({{"CMDORC_HOME": "/nonexistent"}}).policy()
own = {{name for name in sys.modules if name.partition(".")[0] == "cmdorc_telemetry"}}
for name in sorted(set(sys.modules) - before - own):
    if name.partition(".")[0] not in sys.stdlib_module_names:
        print(name)
print(*sorted(own))
"""
    command = [sys.executable, "-I", "-c", script, *(["read"] if code == ".situation" else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *foreign, own = done.stdout.splitlines()
    parsers = {"tomli"} if sys.version_info < (3, 11) and code else set()
    assert {name.partition(".")[0] for name in foreign} == parsers
    leaves = {".errors", ".bounds", ".files", ".config", ".toml"}
    expected = {
        "": set(),
        ".config": leaves,
        ".situation": leaves | {".application", ".clock", ".consent", ".home", ".policy", ".situation"},
        ".identity": leaves | {".application", ".erasure", ".home", ".identity"},
    }[code]
    assert set(own.split()) == {"cmdorc_telemetry", *(f"cmdorc_telemetry{name}" for name in expected)}
