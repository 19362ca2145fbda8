"""The hooks are the ten of the design, each documented, and a plugin takes of a hook only what it needs."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pluggy
import pytest

from cmdorc_telemetry import NoopReporter, __version__, hookimpl, hookspecs
from cmdorc_telemetry.config import Layer
from cmdorc_telemetry.detector import Detector
from cmdorc_telemetry.discovery import Installed
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.hookspecs import Deprecated
from cmdorc_telemetry.lifecycle import Chain, CompletedRun, Session, Trigger
from cmdorc_telemetry.plugins import PluginHost
from cmdorc_telemetry.spec import TelemetrySpec, load_spec
from cmdorc_telemetry.spec.registry import CORE
from cmdorc_telemetry.types import Anomaly, Event, Setup

HOOKS = {
    "cmdorc_startup": ["session"],
    "cmdorc_completed": ["run"],
    "cmdorc_trigger": ["trigger"],
    "cmdorc_chain": ["chain"],
    "cmdorc_shutdown": ["session"],
    "telemetry_specs": [],
    "telemetry_configure": ["setup"],
    "telemetry_reporters": [],
    "telemetry_anonymize": ["event"],
    "telemetry_detectors": [],
    "telemetry_anomaly": ["anomaly"],
}
RECORDS: dict[str, Any] = {
    "cmdorc_startup": Session(id="s", started_at=0.0),
    "cmdorc_completed": CompletedRun(run_id="r", command_name="Tests", state="success"),
    "cmdorc_trigger": Trigger(name="t", outcome="ran"),
    "cmdorc_chain": Chain(id="c", trigger="t"),
    "cmdorc_shutdown": Session(id="s", started_at=0.0),
    "telemetry_configure": Setup(
        name="Plugin", settings={"loud": True}, where="c.toml", folder=Path("h/telemetry/plugins/Plugin")
    ),
    "telemetry_anonymize": Event(spec="cmdorc.core@1", name="e", fields={}),
    "telemetry_anomaly": Anomaly(
        detector="d", event="e", metric="count", kind="above", value=1, threshold=0, sample_count=1
    ),
}


class Quiet(Detector):
    def score_one(self, event: str, payload: object) -> list[Anomaly]:
        return []

    def learn_one(self, event: str, payload: object) -> None: ...


OFFERS: dict[str, Any] = {
    "telemetry_specs": [load_spec(CORE)],
    "telemetry_reporters": [NoopReporter],
    "telemetry_detectors": [Quiet],
    "telemetry_anonymize": {},
}


def declared() -> dict[str, Any]:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    callers = vars(manager.hook).values()
    return {caller.name: caller.spec for caller in callers}


def test_the_hooks_are_those_of_the_design() -> None:
    assert {name: list(spec.argnames) for name, spec in declared().items()} == HOOKS
    assert hookspecs.PROJECT == "cmdorc_telemetry"
    assert hookspecs.API_VERSION == 1


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_says_when_it_is_called(name: str) -> None:
    text = inspect.getdoc(getattr(hookspecs, name)) or ""
    assert "alled" in text or "thread" in text
    for argument in HOOKS[name]:
        assert argument in inspect.signature(getattr(hookspecs, name)).parameters
    assert inspect.signature(getattr(hookspecs, name)).return_annotation != inspect.Signature.empty


def plugin(name: str, calls: list[tuple[Any, ...]], *, arguments: bool) -> Any:
    """A plugin with one hookimpl, that takes its argument or leaves it out."""

    class Plugin:
        pass

    def takes(*given: Any) -> Any:
        calls.append(given)
        return OFFERS.get(name)

    text = ", ".join(HOOKS[name]) if arguments else ""
    namespace: dict[str, Any] = {"takes": takes}
    exec(f"def {name}({text}): return takes({text})", namespace)
    made = Plugin()
    setattr(made, name, hookimpl(namespace[name]))
    return made


def fire(host: PluginHost, name: str) -> Any:
    match name:
        case "telemetry_specs":
            return host.specs()
        case "telemetry_configure":
            layer = Layer(source=Path("c.toml"), settings={"Plugin": {"loud": True}, "http": {}})
            return host.configure(layer, Home(Path("h")), ())
        case "telemetry_reporters":
            return host.reporters()
        case "telemetry_detectors":
            return host.detectors()
        case "telemetry_anomaly":
            return host.announce(RECORDS[name])
        case "telemetry_anonymize":
            (anonymize,) = host.anonymizers()
            answer = anonymize(RECORDS[name])
            anonymize.close()
            return answer
        case _:
            (listener,) = host.listeners(name)
            return listener(RECORDS[name])


@pytest.mark.parametrize("arguments", [True, False], ids=["with", "without"])
@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_is_called_with_its_record_or_without_where_a_plugin_needs_none(name: str, arguments: bool) -> None:
    calls: list[tuple[Any, ...]] = []
    host = PluginHost(objects=[plugin(name, calls, arguments=arguments)])
    assert host.failures == {}
    assert host.hooks_of("Plugin") == [name]
    answer = fire(host, name)
    assert calls == [(RECORDS[name],) if arguments and HOOKS[name] else ()]
    assert host.failures == {}
    assert answer == {
        "telemetry_specs": [("Plugin", OFFERS["telemetry_specs"][0])],
        "telemetry_reporters": {"Plugin": NoopReporter},
        "telemetry_detectors": {"Plugin": Quiet},
        "telemetry_anonymize": {},
    }.get(name)


def test_a_plugin_that_is_a_class_with_methods_works_too() -> None:
    seen: list[str] = []

    class Bell:
        @hookimpl
        def cmdorc_completed(self, run: CompletedRun) -> None:
            seen.append(run.command_name)

        @hookimpl
        def telemetry_specs(self) -> list[TelemetrySpec]:
            return []

    host = PluginHost(objects=[Bell()])
    fire(host, "cmdorc_completed")
    assert seen == ["Tests"]
    assert host.hooks_of("Bell") == ["cmdorc_completed", "telemetry_specs"]


# -- the version of the hooks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("api", "current", "oldest", "said"),
    [
        ("", 1, 1, None), ("v1", 1, 1, None), ("v1", 2, 1, None), ("", 2, 1, None), ("v2", 2, 1, None),
        ("v2", 1, 1, "was written for API v2, and this is v1 (pip install --upgrade cmdorc-telemetry)"),
        ("v1", 3, 2, "was written for API v1, and this is v3 (upgrade it, or ask its author to)"),
        ("", 3, 2, "was written for API v1, and this is v3 (upgrade it, or ask its author to)"),
        ("1", 1, 1, "says that it was written for API '1', which is no version (report it to its author)"),
        ("v0", 1, 1, "says that it was written for API 'v0', which is no version (report it to its author)"),
        ("v", 1, 1, "says that it was written for API 'v', which is no version (report it to its author)"),
        ("v1.5", 1, 1, "says that it was written for API 'v1.5', which is no version (report it to its author)"),
    ],
)  # fmt: skip
def test_a_plugin_of_another_version_of_the_hooks_is_refused(
    monkeypatch: pytest.MonkeyPatch, api: str, current: int, oldest: int, said: str | None
) -> None:
    monkeypatch.setattr(hookspecs, "API_VERSION", current)
    monkeypatch.setattr(hookspecs, "OLDEST_API_VERSION", oldest)
    point = Installed("plugin", "no_such_module", "dist", "1.0", api)
    host = PluginHost(["plugin"], known=[point])
    if said is None:
        assert "cannot be imported" in host.failures["plugin"], "it was tried"
    else:
        what, _, fix = said.partition(" (")
        assert host.failures == {"plugin": f"{what} [dist 1.0, no_such_module] ({fix}"}
        assert host.unloaded == {"plugin"}, "it may have been an anonymizer"


def test_what_is_deprecated_works_and_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hookspecs, "DEPRECATED", {
        "cmdorc_trigger": Deprecated("0.1", "cmdorc_chain"), "cmdorc_completed(run)": Deprecated("0.1", "`ended`"),
    })  # fmt: skip
    for name, arguments, said in (
        ("cmdorc_trigger", False, "uses cmdorc_trigger, which is deprecated since 0.1: use cmdorc_chain"),
        ("cmdorc_completed", True, "uses cmdorc_completed(run), which is deprecated since 0.1: use `ended`"),
    ):
        calls: list[tuple[Any, ...]] = []
        with pytest.warns(DeprecationWarning, match="^" + re.escape(f"plugin 'Plugin' {said}") + "$"):
            host = PluginHost(objects=[plugin(name, calls, arguments=arguments)])
        assert host.deprecated("Plugin") == [said]
        fire(host, name)
        assert len(calls) == 1
    host = PluginHost(objects=[plugin("cmdorc_completed", [], arguments=False)])
    assert host.deprecated("Plugin") == []


def test_what_is_deprecated_is_there_and_goes_after_one_minor_version() -> None:
    major, minor = (int(part) for part in __version__.split(".")[:2])
    for what, each in hookspecs.DEPRECATED.items():
        hook, _, argument = what.rstrip(")").partition("(")
        assert hook in HOOKS
        assert not argument or argument in HOOKS[hook]
        since = [int(part) for part in each.since.split(".")[:2]]
        assert [major, minor] <= [since[0], since[1] + 1], f"{what} was to be gone by now"
        assert each.instead
