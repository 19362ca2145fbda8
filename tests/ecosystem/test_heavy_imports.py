"""What is heavy is imported by the thread of telemetry: no caller ever waits for an HTTP client or an SDK."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from .conftest import PLUGINS, TABLES

HEAVY = (
    "aiohttp", "anyio", "asyncio", "cryptography", "email", "google", "grpc", "h11", "http", "httpx", "opentelemetry",
    "posthog", "prometheus_client", "requests", "segment", "socket", "sqlite3", "ssl", "urllib3", "wsgiref", "xmlrpc",
    "zstandard",
)  # fmt: skip
"""Libraries that take longer to import than everything that telemetry does at start."""
LIGHT = {"cmdorc", "msgspec", "pluggy", "tomli", "typing_extensions"}
"""Whatever else is not Python's own, and not of this repository, is heavy, too."""
IMPORT = """
import json, os, pathlib, sys
before = set(sys.modules)
from cmdorc_telemetry.plugins import PluginHost
host = PluginHost(sys.argv[1:], cache=pathlib.Path(os.environ["CMDORC_HOME"], "plugins.json"))
host.specs(), host.listeners("cmdorc_completed")  # callers wait for no more
print(json.dumps([host.failures, sorted(set(sys.modules) - before)]))
"""
RUN = """
import json, sys, threading

importers = {}
class Look:
    def find_spec(self, name, path=None, target=None):
        importers.setdefault(name, threading.current_thread() is threading.main_thread())
sys.meta_path.insert(0, Look())

from cmdorc_telemetry import CompletedRun, Session, Telemetry
from cmdorc_telemetry.application import CMDORC

telemetry = Telemetry.start(CMDORC._replace(version="0.12.0"))
telemetry.fire("cmdorc_startup", Session(id="s", started_at=0.0))
telemetry.fire("cmdorc_completed", CompletedRun(run_id="r", command_name="Tests", state="success", duration=1.0))
done = telemetry.flush(40)
telemetry.close()
print(json.dumps([done, telemetry.failures, importers]))
"""


LOOK = """
import json, sys

looked = []
def hear(event, arguments):
    if event in ("open", "os.scandir") and arguments:
        looked.append([event, str(arguments[0])])
sys.addaudithook(hear)

from cmdorc_telemetry import CompletedRun, Telemetry
from cmdorc_telemetry.application import CMDORC

telemetry = Telemetry.start(CMDORC._replace(version="0.12.0"))
telemetry.fire("cmdorc_completed", CompletedRun(run_id="r", command_name="Tests", state="success", duration=1.0))
print(json.dumps([telemetry.recording, looked, sys.path, sorted(sys.modules)]))
"""


def heavy(names: Any) -> set[str]:
    def is_heavy(top: str) -> bool:
        ours = top.startswith(("cmdorc_", "_")) or top in LIGHT  # editable installations bring finders: _…
        return top in HEAVY or not (ours or top in sys.stdlib_module_names)

    return {name for name in names if is_heavy(name.partition(".")[0])}


def said(place: Any, code: str, *words: str) -> Any:
    """What a fresh process prints, without coverage, which imports much itself, and with what is installed known.

    To find that out imports ``email`` and more; it is remembered.
    """
    environ = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")} | place.environ
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code, *words], env=environ, capture_output=True, text=True,
                              timeout=50, check=True)  # fmt: skip
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "names", [(), *((name,) for name in PLUGINS), PLUGINS], ids=lambda names: "-".join(names) or "no"
)
def test_to_load_a_plugin_imports_nothing_heavy(place: Any, names: tuple[str, ...]) -> None:
    failures, modules = said(place, IMPORT, *names)
    assert failures == {}
    assert heavy(modules) == set()


def test_what_is_installed_and_not_enabled_is_not_even_looked_for(place: Any) -> None:
    place.enable()
    recording, looked, path, modules = said(place, LOOK)
    assert recording
    assert [where for event, where in looked if event == "os.scandir" and where in path] == []
    assert [where for _, where in looked if ".dist-info" in where or "entry_points" in where] == []
    assert [name for name in modules if name.startswith("cmdorc_telemetry_")] == []


def test_of_one_that_is_enabled_only_its_own_is_read(place: Any) -> None:
    place.enable("file")
    recording, looked, path, modules = said(place, LOOK)
    assert recording
    assert [where for event, where in looked if event == "os.scandir" and where in path] != [], "did it change?"
    assert [where for _, where in looked if ".dist-info" in where or "entry_points" in where] == [], "it is remembered"
    assert {name.partition(".")[0] for name in modules if name.startswith("cmdorc_telemetry_")} == {
        "cmdorc_telemetry_file"
    }


def test_what_delivery_needs_is_imported_by_its_own_threads(place: Any) -> None:
    place.enable(*PLUGINS)
    done, failures, importers = said(place, RUN)
    assert (done, failures) == (True, {})
    assert heavy(name for name, by_caller in importers.items() if by_caller) == set()
    elsewhere = {name.partition(".")[0] for name in heavy(importers)}
    assert elsewhere >= {"asyncio", "h11", "opentelemetry", "prometheus_client", "sqlite3"}, "it was looked for"
    assert set(TABLES) == set(PLUGINS)
