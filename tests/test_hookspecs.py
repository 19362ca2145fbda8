"""The hooks are the ten of the design, each documented, and a plugin takes of a hook only what it needs."""

from __future__ import annotations

import inspect
from typing import Any

import pluggy
import pytest

from cmdorc_telemetry import NoopReporter, hookimpl, hookspecs
from cmdorc_telemetry.detector import Detector
from cmdorc_telemetry.plugins import PluginHost
from cmdorc_telemetry.spec import TelemetrySpec, load_spec
from cmdorc_telemetry.spec.registry import CORE
from cmdorc_telemetry.types import Anomaly, Chain, CompletedRun, Event, Session, Trigger

HOOKS = {
    "cmdorc_startup": ["session"],
    "cmdorc_completed": ["run"],
    "cmdorc_trigger": ["trigger"],
    "cmdorc_chain": ["chain"],
    "cmdorc_shutdown": ["session"],
    "telemetry_specs": [],
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
