"""Only what the user named is imported, and no plugin can hurt the host or another plugin."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections import UserDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from cmdorc_telemetry import CompletedRun, NoopReporter, anonymizers, hookimpl, plugins
from cmdorc_telemetry.anonymizers import Anonymizer
from cmdorc_telemetry.config import Layer
from cmdorc_telemetry.detector import Detector
from cmdorc_telemetry.discovery import Installed, installed
from cmdorc_telemetry.errors import PluginError
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.plugins import PluginHost
from cmdorc_telemetry.reporter import TelemetryReporter
from cmdorc_telemetry.spec import CORE, load_spec
from cmdorc_telemetry.types import Anomaly, Event, Setup

from .waiting import until

RUN = CompletedRun(run_id="r", command_name="Tests", state="success")
EVENT = Event(spec="cmdorc.core@1", name="e", fields={"os": "linux"})
ANOMALY = Anomaly(detector="d", event="e", metric="count", kind="above", value=2, threshold=1, sample_count=5)

LISTENER = """
from cmdorc_telemetry import hookimpl
runs = []
@hookimpl
def cmdorc_completed(run):
    runs.append(run)
"""


class Site:
    """A place on sys.path with distributions of its own, as pip would have installed them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, distribution: str, code: str = LISTENER, *, name: str | None = None, version: str = "1.2") -> str:
        """A distribution with one plugin, in a module of its own. The module's name."""
        module = f"plugin_of_{distribution.replace('-', '_')}"
        (self.folder / f"{module}.py").write_text(textwrap.dedent(code))
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[cmdorc_telemetry]\n{name or distribution} = {module}\n")
        return module

    def imported(self) -> set[str]:
        return {name for name in sys.modules if name.startswith("plugin_of_")}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    made = Site(folder)
    yield made
    for name in made.imported():
        del sys.modules[name]


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING, "cmdorc_telemetry")
    return lambda: [record.getMessage() for record in caplog.records]


def fire(host: PluginHost, hook: str = "cmdorc_completed", record: object = RUN) -> None:
    for listener in host.listeners(hook):
        listener(record)


def module(**functions: Callable[..., Any]) -> ModuleType:
    """A plugin with hookimpls given as functions."""
    made = ModuleType("made")
    for name, function in functions.items():
        setattr(made, name, hookimpl(function))
    return made


def listening(seen: list[CompletedRun]) -> ModuleType:
    def keep(run: CompletedRun) -> None:
        seen.append(run)

    return module(cmdorc_completed=keep)


# -- loading -----------------------------------------------------------------------------------------------------------


def test_only_what_is_enabled_is_imported(site: Site) -> None:
    for name in ("one", "two", "three"):
        site.install(name)
    host = PluginHost(["two"])
    assert site.imported() == {"plugin_of_two"}
    assert host.names() == ["two"]
    assert host.hooks_of("two") == ["cmdorc_completed"]
    assert host.hooks_of("one") == []
    assert [name for name in ("one", "two", "three") if host._manager.is_blocked(name)] == ["one", "three"]
    assert (host.failures, host.unloaded) == ({}, set())
    fire(host)
    assert sys.modules["plugin_of_two"].runs == [RUN]
    assert PluginHost().names() == []
    assert site.imported() == {"plugin_of_two"}


def test_a_fresh_process_imports_nothing_that_is_not_enabled(site: Site) -> None:
    for name in ("one", "two"):
        site.install(name, f"print('{name} is imported')")
    code = f"""
import sys
sys.path.insert(0, {str(site.folder)!r})
from cmdorc_telemetry.plugins import PluginHost
PluginHost()
print(sorted(PluginHost(["two"]).failures))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "two is imported\n['two']\n"  # it has no hook, and is told so


def test_nothing_is_looked_for_where_nothing_is_enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "installed", lambda *_: pytest.fail("asked"))
    assert PluginHost(objects=[module(cmdorc_completed=lambda run: None)]).names() == ["made"]


def test_a_plugin_named_twice_is_loaded_once(site: Site) -> None:
    site.install("one")
    host = PluginHost(["one", "one"])
    fire(host)
    assert sys.modules["plugin_of_one"].runs == [RUN]
    assert host.failures == {"one": "is named 2 times in plugins [one 1.2, plugin_of_one] (name it once)"}
    assert host.unloaded == set()


def test_a_hook_of_another_version_may_be_optional(site: Site) -> None:
    code = "from cmdorc_telemetry import hookimpl\n@hookimpl(optionalhook=True)\ndef cmdorc_later(run): pass"
    site.install("early", code)
    host = PluginHost(["early"])
    assert (host.names(), host.failures) == (["early"], {})


# -- what cannot be loaded ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise ValueError('not today')", "ValueError: not today"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def f(:", "SyntaxError: "),
        ("import asyncio; raise asyncio.CancelledError", "CancelledError: "),
    ],
)
def test_a_broken_import_is_named_once_and_the_rest_goes_on(
    code: str, error: str, site: Site, warnings: Callable[[], list[str]]
) -> None:
    site.install("flaky-dist", code, name="flaky")
    site.install("fine")
    host = PluginHost(["flaky", "fine"])
    assert host.names() == ["fine"]
    assert host.unloaded == {"flaky"}
    (name, text), *rest = host.failures.items()
    assert (name, rest) == ("flaky", [])
    assert text.startswith(f"cannot be imported: {error}")
    assert text.endswith(" [flaky-dist 1.2, plugin_of_flaky_dist] (reinstall or upgrade it)")
    host.fail("flaky", "something else", "no")
    (warning,) = warnings()
    assert warning.startswith(f"plugin 'flaky' cannot be imported: {error}")
    assert warning.endswith("[flaky-dist 1.2, plugin_of_flaky_dist]. Fix: reinstall or upgrade it")
    assert host.failures == {name: text}


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("def cmdorc_complete(run): pass", "there is no hook 'cmdorc_complete': did you mean 'cmdorc_completed'?"),
        ("def xyzzy(): pass", "there is no hook 'xyzzy' ["),
        (
            "def cmdorc_completed(rnu): pass",
            "{'rnu'} are declared in the hookimpl but can not be found in the hookspec; expected run [",
        ),
        ("async def cmdorc_completed(run): pass", "cmdorc_completed is async or a wrapper; hooks are plain functions"),
        ("def telemetry_reporters(run): return []", "be found in the hookspec; expected no argument ["),
    ],
)
def test_a_hookimpl_that_breaks_the_rules_is_named_and_left_out(code: str, what: str, site: Site) -> None:
    site.install("odd-dist", f"from cmdorc_telemetry import hookimpl\n@hookimpl\n{code}", name="odd")
    site.install("fine")
    for order in (["odd", "fine"], ["fine", "odd"]):
        host = PluginHost(order)
        assert host.names() == ["fine"]
        assert set(host.failures) == host.unloaded == {"odd"}
        text = host.failures["odd"]
        assert text.startswith("breaks the hook rules: ")
        assert what in text
        assert "\n" not in text
        assert text.endswith(" [odd-dist 1.2, plugin_of_odd_dist] (correct the hookimpl)")
        sys.modules["plugin_of_fine"].runs.clear()
        fire(host)
        assert sys.modules["plugin_of_fine"].runs == [RUN]


@pytest.mark.parametrize("style", ["wrapper", "hookwrapper"])
def test_a_wrapper_would_wrap_nothing_and_is_refused(style: str, site: Site) -> None:
    code = f"from cmdorc_telemetry import hookimpl\n@hookimpl({style}=True)\ndef cmdorc_completed(run): yield"
    site.install("odd", code)
    assert "is async or a wrapper" in PluginHost(["odd"]).failures["odd"]


def test_a_plugin_without_hooks_is_an_error_since_its_author_thinks_otherwise(site: Site) -> None:
    site.install("bare", "def telemetry_anonymize(event): return {}")
    host = PluginHost(["bare"])
    assert host.unloaded == {"bare"}  # the gate shares nothing while an anonymizer may be missing
    assert "it has no function that is marked @hookimpl" in host.failures["bare"]


def test_a_name_offered_twice_is_nobodys(site: Site) -> None:
    site.install("one", name="bell")
    site.install("two", name="bell", version="2.0")
    host = PluginHost(["bell"])
    assert host.names() == []
    assert site.imported() == set()
    assert host.failures == {
        "bell": "is offered twice: bell (one 1.2, plugin_of_one), bell (two 2.0, plugin_of_two) (uninstall one of them)"
    }


def test_a_name_that_is_not_installed_is_told_the_nearest_and_the_fix(
    site: Site, warnings: Callable[[], list[str]]
) -> None:
    site.install("anonymous")
    known = f"correct plugins: installed are {', '.join(sorted(point.name for point in installed()))}"
    host = PluginHost(["anonymus", "xyz", "waiting"], destinations=iter(["waiting"]))
    assert host.failures == {
        "anonymus": "is not installed (correct plugins: did you mean 'anonymous'?)",
        "xyz": f"is not installed ({known})",
    }
    assert host.unloaded == {"anonymus", "xyz", "waiting"}
    assert warnings()[1] == f"plugin 'xyz' is not installed. Fix: {known}"


def test_ctrl_c_is_the_users_own(site: Site) -> None:
    site.install("one", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        PluginHost(["one"])


# -- objects given by code ---------------------------------------------------------------------------------------------


def test_objects_are_plugins_beside_the_installed_ones(site: Site) -> None:
    site.install("made")  # installed under the name of the module that is given, but not enabled
    seen: list[CompletedRun] = []

    class Bell:
        @hookimpl
        def cmdorc_completed(self, run: CompletedRun) -> None:
            seen.append(run)

    given = listening(seen)
    another = listening(seen)
    site.install("one")
    host = PluginHost(["one"], [given, Bell(), Bell(), another])
    assert host.names() == ["one", "made", "Bell", "Bell-2", "made-3"]
    fire(host)
    assert seen == [RUN] * 4
    assert site.imported() == {"plugin_of_one"}


def test_an_object_given_twice_is_called_once(site: Site) -> None:
    seen: list[CompletedRun] = []
    given = listening(seen)
    host = PluginHost(objects=[given, given])
    fire(host)
    assert seen == [RUN]
    assert host.failures == {"made-1": "is there already (give it once)"}


def test_an_object_that_breaks_the_rules_is_left_out(warnings: Callable[[], list[str]]) -> None:
    class Evil:
        def __dir__(self) -> list[str]:
            raise RuntimeError("go away")

    class Worse(Evil):
        def __dir__(self) -> list[str]:
            raise KeyboardInterrupt

    host = PluginHost(objects=[Evil(), module(cmdorc_completed=lambda rnu: None), None])
    assert host.names() == []
    assert host.failures["Evil"] == "breaks the hook rules: go away (correct the hookimpl)"
    assert "{'rnu'}" in host.failures["made"]
    assert "it has no function that is marked @hookimpl" in host.failures["NoneType"]
    with pytest.raises(KeyboardInterrupt):
        PluginHost(objects=[Worse()])


# -- lifecycle hooks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [ValueError("no"), SystemExit(1), GeneratorExit("x"), MemoryError()])
def test_what_a_listener_raises_changes_nothing_for_the_others(
    fault: BaseException, site: Site, warnings: Callable[[], list[str]]
) -> None:
    site.install("first")
    site.install("bad-dist", LISTENER.replace("runs.append(run)", "raise runs[0]"), name="bad")
    site.install("last")
    host = PluginHost(["first", "bad", "last"])
    sys.modules["plugin_of_bad_dist"].runs.append(fault)
    fire(host)
    fire(host)
    for name in ("first", "last"):
        assert sys.modules[f"plugin_of_{name}"].runs == [RUN, RUN]
    (warning,) = warnings()
    assert warning == (
        f"plugin 'bad' raised {type(fault).__name__} at plugin_of_bad_dist.py:6 [bad-dist 1.2, plugin_of_bad_dist]. "
        "Fix: report it to its author"
    )
    text = f"raised {type(fault).__name__}: {fault} [bad-dist 1.2, plugin_of_bad_dist] (report it to its author)"
    assert host.failures == {"bad": text}  # here alone: it may hold what the plugin was told


def test_the_collector_comes_first_so_that_nobody_keeps_an_event_from_it() -> None:
    heard: list[str] = []
    host = PluginHost(objects=[module(cmdorc_completed=lambda run: heard.append("one"))])
    host.add(module(cmdorc_completed=lambda run: heard.append("two")), "two")
    host.add(module(cmdorc_completed=lambda run: heard.append("ours")), "ours", trusted=True)
    fire(host)
    assert heard == ["ours", "one", "two"]


def test_elsewhere_than_on_the_main_thread_nobody_pressed_ctrl_c() -> None:
    def interrupt(run: CompletedRun) -> None:
        raise KeyboardInterrupt

    host = PluginHost(objects=[module(cmdorc_completed=interrupt)])
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(fire, host).exception() is None
    assert host.failures == {"made": "raised KeyboardInterrupt:  (report it to its author)"}


def test_ctrl_c_in_a_listener_is_the_users_own() -> None:
    def interrupt(run: CompletedRun) -> None:
        raise KeyboardInterrupt

    host = PluginHost(objects=[module(cmdorc_completed=interrupt)])
    with pytest.raises(KeyboardInterrupt):
        fire(host)
    assert host.failures == {}


class Clock:
    """A clock that plugins move on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("cmdorc_telemetry.clock.perf", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def sluggish(clock: Clock, seconds: float, calls: list[str]) -> ModuleType:
    def work(name: str) -> None:
        clock.now += seconds
        calls.append(name)

    return module(
        cmdorc_completed=lambda run: work("completed"),
        cmdorc_trigger=lambda trigger: work("trigger"),
        telemetry_anomaly=lambda anomaly: work("anomaly"),
    )


def test_a_slow_plugins_lifecycle_hooks_are_switched_off_after_three_calls(
    clock: Clock, warnings: Callable[[], list[str]]
) -> None:
    calls: list[str] = []
    quick: list[CompletedRun] = []
    host = PluginHost(objects=[sluggish(clock, 0.0051, calls), listening(quick)])
    completed, trigger = host.listeners("cmdorc_completed"), host.listeners("cmdorc_trigger")
    for _ in range(5):
        for listener in (*completed, *trigger):
            listener(RUN)
    assert calls == ["completed", "trigger", "completed"]  # the three slow calls are the plugin's, not the hook's
    assert quick == [RUN] * 5
    assert warnings() == [
        "plugin 'made' took more than 5 ms 3 times: its lifecycle hooks are off here. "
        "Fix: let it hand slow work to a thread of its own"
    ]
    for _ in range(5):
        host.announce(ANOMALY)  # not on the caller's thread
    assert calls[3:] == ["anomaly"] * 5


def test_two_slow_calls_are_forgiven(clock: Clock) -> None:
    calls: list[str] = []
    host = PluginHost(objects=[sluggish(clock, 1.0, calls)])
    fire(host)
    fire(host)
    assert (calls, host.failures) == (["completed"] * 2, {})


def test_five_milliseconds_are_allowed(clock: Clock) -> None:
    calls: list[str] = []
    host = PluginHost(objects=[sluggish(clock, 0.005, calls)])
    for _ in range(10):
        fire(host)
        clock.now = 0.0  # no sums, no rounding
    assert len(calls) == 10
    assert host.failures == {}


def test_a_plugin_that_is_slow_in_failing_is_slow(clock: Clock) -> None:
    calls: list[str] = []

    def fail(run: CompletedRun) -> None:
        clock.now += 1
        calls.append("called")
        raise ValueError("no")

    host = PluginHost(objects=[module(cmdorc_completed=fail)])
    for _ in range(5):
        fire(host)
    assert len(calls) == 3
    assert host.failures == {"made": "raised ValueError: no (report it to its author)"}  # once


def test_the_collector_is_trusted(clock: Clock) -> None:
    calls: list[str] = []
    host = PluginHost()
    host.add(sluggish(clock, 1.0, calls), "telemetry", trusted=True)
    for _ in range(10):
        fire(host)
    assert len(calls) == 10
    assert host.failures == {}


def test_an_alert_goes_to_everyone() -> None:
    seen: list[Anomaly] = []

    def fail(anomaly: Anomaly) -> None:
        raise ValueError("no")

    def keep(anomaly: Anomaly) -> None:
        seen.append(anomaly)

    host = PluginHost(objects=[module(telemetry_anomaly=fail), module(telemetry_anomaly=keep)])
    host.announce(ANOMALY)
    assert seen == [ANOMALY]
    assert list(host.failures) == ["made"]


# -- what plugins offer ------------------------------------------------------------------------------------------------


class Ntfy(NoopReporter):
    name = "ntfy"


class Watch(Detector):
    def score_one(self, event: str, payload: object) -> list[Anomaly]:
        return []

    def learn_one(self, event: str, payload: object) -> None: ...


def test_reporters_and_detectors_go_by_their_own_name_or_their_plugins() -> None:
    offers = module(telemetry_reporters=lambda: (Ntfy, NoopReporter), telemetry_detectors=lambda: iter([Watch]))
    host = PluginHost(objects=[offers])
    assert host.reporters() == {"ntfy": Ntfy, "made": NoopReporter}
    assert host.detectors() == {"made": Watch}
    assert host.failures == {}


@pytest.mark.parametrize("offer", [Ntfy(), Watch, "Ntfy", None, dict])
def test_what_is_no_reporter_class_is_a_failure_and_the_rest_counts(offer: object) -> None:
    bad, good = module(telemetry_reporters=lambda: [offer]), module(telemetry_reporters=lambda: [Ntfy])
    host = PluginHost(objects=[bad, good])
    assert host.reporters() == {"ntfy": Ntfy}
    assert host.failures == {"made": f"telemetry_reporters returned {offer!r} (return subclasses of TelemetryReporter)"}


def test_a_reporter_offered_twice_is_the_firsts() -> None:
    class Copy(TelemetryReporter):
        name = "ntfy"

        async def report(self, event: str, payload: dict[str, Any]) -> None: ...

    host = PluginHost(objects=[module(telemetry_reporters=lambda: [Ntfy]), module(telemetry_reporters=lambda: [Copy])])
    assert host.reporters() == {"ntfy": Ntfy}
    assert host.failures == {"made-1": "offers 'ntfy', which another plugin offers already (enable only one of them)"}


@pytest.mark.parametrize("name", ["history", "detector-x"])
def test_a_reporter_cannot_have_the_name_of_what_never_leaves_this_machine(name: str) -> None:
    class Posing(Ntfy):
        pass

    Posing.name = name
    host = PluginHost(objects=[module(telemetry_reporters=lambda: [Posing, Ntfy])])
    assert host.reporters() == {"ntfy": Ntfy}
    assert host.failures["made"].startswith(f"offers {name!r}, which is the name of something that is built in (")
    watch = type("Watching", (Watch,), {"name": name})
    assert PluginHost(objects=[module(telemetry_detectors=lambda: [watch])]).detectors() == {name: watch}


@pytest.mark.parametrize("hook", ["telemetry_reporters", "telemetry_detectors", "telemetry_specs"])
@pytest.mark.parametrize("fault", [ValueError("no"), SystemExit(1)])
def test_an_offer_that_raises_is_a_failure_of_its_plugin(hook: str, fault: BaseException) -> None:
    def fail() -> list[object]:
        raise fault

    host = PluginHost(objects=[module(**{hook: fail}), module(**{hook: lambda: None})])
    for offered in (host.reporters(), host.detectors(), host.specs()):
        assert not offered
    assert host.failures["made"] == f"{hook} raised {type(fault).__name__}: {fault} (report it to its author)"
    assert host.failures["made-1"].startswith(f"{hook} raised TypeError: 'NoneType' object is not iterable")


def test_ctrl_c_while_a_hook_is_waited_for_is_the_users_own() -> None:
    over = threading.Event()

    def interrupted() -> list[object]:
        os.kill(os.getpid(), signal.SIGINT)
        over.wait()
        return []

    with pytest.raises(KeyboardInterrupt):
        PluginHost(objects=[module(telemetry_specs=interrupted)]).specs()
    over.set()


def test_a_hook_that_does_not_come_back_is_given_up_until_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cmdorc_telemetry.isolation.HOOK_SECONDS", 0.05)
    over, calls = threading.Event(), []

    def hang(anomaly: Anomaly) -> None:
        calls.append(anomaly)
        over.wait()

    told = []

    def hear(anomaly: Anomaly) -> None:
        told.append(anomaly)

    host = PluginHost(objects=[module(telemetry_anomaly=hang), module(telemetry_anomaly=hear)])
    for number in (1, 2):
        host.announce(ANOMALY)
        assert (len(calls), len(told)) == (1, number)
    said = "telemetry_anomaly took more than 0.05 s and is given up (report it to its author)"
    assert host.failures == {"made": said}
    over.set()
    until(lambda: (host.announce(ANOMALY), len(calls) > 1)[1], "it is called again")


def test_specs_come_with_the_plugin_that_brings_them() -> None:
    core = load_spec(CORE)
    host = PluginHost(objects=[module(telemetry_specs=lambda: [CORE, core]), module(telemetry_specs=lambda: ())])
    assert host.specs() == [("made", core)]
    assert host.failures == {"made": f"telemetry_specs returned {CORE!r} (return objects of TelemetrySpec)"}


# -- settings ----------------------------------------------------------------------------------------------------------


class Loud(Struct, forbid_unknown_fields=True):
    loud: bool = False


def configured(host: PluginHost, settings: dict[str, Any], tmp_path: Path) -> None:
    host.configure(Layer(source=Path("c.toml"), settings=settings), Home(tmp_path), [load_spec(CORE)])


def test_each_plugin_gets_its_own_settings_and_a_folder_of_its_own(tmp_path: Path) -> None:
    setups: list[Setup] = []

    def keep(setup: Setup) -> None:
        setups.append(setup)

    host = PluginHost(objects=[module(telemetry_configure=keep), module(telemetry_configure=keep)])
    configured(host, {"made": {"loud": True}, "made-1": {"loud": False}, "http": {}}, tmp_path)
    assert host.failures == {}
    setups.sort(key=lambda setup: setup.name)
    assert [setup.name for setup in setups] == ["made", "made-1"]
    assert [setup.read(Loud).loud for setup in setups] == [True, False]
    assert setups[0].folder == tmp_path / "telemetry" / "plugins" / "made"
    assert [spec.ref for spec in setups[0].specs] == ["cmdorc.core@1"]
    assert not (tmp_path / "telemetry").exists()


def test_settings_that_are_nobodys_are_named_and_hold_back_what_they_may_have_anonymized(tmp_path: Path) -> None:
    class Watching(Detector):
        name = "lookout"

        def score_one(self, event: str, payload: object) -> list[Anomaly]:
            return []

        def learn_one(self, event: str, payload: object) -> None:
            pass

    known = [Installed("mask", "mask", "mask-dist", "1"), Installed("horn", "horn", "horn-dist", "1")]
    host = PluginHost(objects=[module(telemetry_detectors=lambda: [Watching])], known=known)
    tables = ("made", "lookout", "mask", "Mask", "hron", "anonymizer", "xyz")
    configured(host, {name: {} for name in tables}, tmp_path)

    def told(name: str, hint: str) -> str:
        return f"has settings, and is not installed (correct telemetry.settings.{name} in c.toml: {hint})"

    assert host.failures == {
        "Mask": told("Mask", "did you mean 'mask'?"),
        "anonymizer": "has settings, and is not installed (pip install cmdorc-telemetry-anonymizer)",
        "hron": told("hron", "did you mean 'horn'?"),
        "xyz": told("xyz", "installed are horn, lookout, mask"),
    }
    assert host.unloaded == set(host.failures)


def test_one_that_cannot_use_its_settings_is_out_and_holds_back_what_it_may_have_anonymized(
    tmp_path: Path, warnings: Callable[[], list[str]]
) -> None:
    def read(setup: Setup) -> None:
        setup.read(Loud)

    host = PluginHost(objects=[module(telemetry_configure=read, telemetry_anonymize=lambda event: {}), listening([])])
    configured(host, {"made": {"lout": True}}, tmp_path)
    what = "c.toml: telemetry.settings.made.lout: unknown key; expected one of loud. Did you mean 'loud'?"
    assert host.failures == {"made": f"cannot be configured: {what} (correct its settings)"}
    assert warnings() == [f"plugin 'made' cannot be configured: {what}. Fix: correct its settings"]
    assert host.unloaded == {"made"}
    assert host.names() == ["made-1"]
    assert host.anonymizers() == []


@pytest.mark.parametrize("fault", [ValueError("secret"), SystemExit("secret")])
def test_what_a_plugin_raises_while_it_is_configured_is_in_no_log(
    fault: BaseException, tmp_path: Path, warnings: Callable[[], list[str]]
) -> None:
    def fail(setup: Setup) -> None:
        raise fault

    host = PluginHost(objects=[module(telemetry_configure=fail)])
    configured(host, {}, tmp_path)
    kind = type(fault).__name__
    assert host.failures == {"made": f"telemetry_configure raised {kind}: secret (report it to its author)"}
    (warning,) = warnings()
    assert "secret" not in warning
    assert f"telemetry_configure raised {kind} at test_plugins.py:" in warning


COUNTING = """
from cmdorc_telemetry import hookimpl
class Plugin:
    def __init__(self):
        self.runs = []
    @hookimpl
    def cmdorc_completed(self, run):
        self.runs.append(run)
"""


def test_an_entry_point_that_is_a_class_is_made_anew_for_each_host(site: Site) -> None:
    module_name = site.install("counting", COUNTING)
    (points,) = site.folder.glob("*.dist-info/entry_points.txt")
    points.write_text(f"[cmdorc_telemetry]\ncounting = {module_name}:Plugin\n")
    first, second = PluginHost(["counting"]), PluginHost(["counting"])
    fire(first)
    assert (first.failures, second.failures) == ({}, {})
    assert [len(host._manager.get_plugin("counting").runs) for host in (first, second)] == [1, 0]


# -- anonymizers -------------------------------------------------------------------------------------------------------


def only(host: PluginHost) -> Anonymizer:
    (found,) = host.anonymizers()
    return found


def test_an_anonymizer_answers_from_a_thread_of_its_own(site: Site) -> None:
    threads: list[threading.Thread] = []

    def narrow(event: Event) -> dict[str, Any]:
        threads.append(threading.current_thread())
        return {"os": None, "was": event.fields["os"]}

    anonymize = only(PluginHost(objects=[module(telemetry_anonymize=narrow)]))
    assert [anonymize(EVENT), anonymize(EVENT)] == [{"os": None, "was": "linux"}] * 2
    first, second = threads
    assert first is second
    assert first is not threading.current_thread()
    assert first.daemon
    assert [thread.name for thread in threading.enumerate()].count("anonymize-made") == 1
    anonymize.close()
    first.join(10)
    assert not first.is_alive()


def test_the_thread_of_an_anonymizer_ends_when_nobody_can_call_it_any_more() -> None:
    anonymize = Anonymizer("made", lambda event: {})
    assert anonymize(EVENT) == {}
    (thread,) = (each for each in threading.enumerate() if each.name == "anonymize-made")
    del anonymize
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("fault", [ValueError("no"), SystemExit(1), KeyboardInterrupt()])
def test_an_anonymizer_that_raises_fails_for_this_event(fault: BaseException, site: Site) -> None:
    faults = [fault]

    def narrow(event: Event) -> dict[str, Any]:
        if faults:
            raise faults.pop()
        return {}

    host = PluginHost(objects=[module(telemetry_anonymize=narrow)])
    anonymize = only(host)
    with pytest.raises(PluginError, match=f"raised {type(fault).__name__}: {fault}"):
        anonymize(EVENT)
    assert host.failures == {
        "made": f"raised {type(fault).__name__}: {fault} "
        "(what it fails on is not shared: report it to its author, or disable it)"
    }
    assert anonymize(EVENT) == {}
    anonymize.close()


def test_anonymizers_run_in_the_order_of_the_users_plugins_and_by_name(site: Site) -> None:
    code = "from cmdorc_telemetry import hookimpl\n@hookimpl{}\ndef telemetry_anonymize(event): return {{}}"
    for name, mark in (("beta", ""), ("last", "(trylast=True)"), ("alpha", ""), ("first", "(tryfirst=True)")):
        site.install(name, code.format(mark))
    given = module(telemetry_anonymize=lambda event: {})
    for listed in (("last", "beta", "alpha", "first"), ("alpha", "first", "last", "beta")):
        plain = [name for name in listed if name in ("alpha", "beta")]
        names = [each.name for each in PluginHost(listed, [given]).anonymizers()]
        assert names == ["first", *plain, "made", "last"]


def test_an_answer_that_breaks_as_it_is_read_breaks_in_the_anonymizers_thread() -> None:
    class Slow(UserDict[str, Any]):
        def __iter__(self) -> Iterator[str]:
            raise RuntimeError(threading.current_thread().name)

    host = PluginHost(objects=[module(telemetry_anonymize=lambda event: Slow())])
    anonymize = only(host)
    with pytest.raises(PluginError, match="raised RuntimeError: anonymize-made"):
        anonymize(EVENT)
    anonymize.close()


@pytest.mark.parametrize("answer", [None, ["os"], "os", 5])
def test_an_answer_that_is_no_mapping_is_a_failure(answer: object) -> None:
    host = PluginHost(objects=[module(telemetry_anonymize=lambda event: answer)])
    anonymize = only(host)
    with pytest.raises(PluginError, match=f"returned {type(answer).__name__} instead of a mapping"):
        anonymize(EVENT)
    assert list(host.failures) == ["made"]
    anonymize.close()


def test_an_anonymizer_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anonymizers, "ANONYMIZE_SECONDS", 0.05)
    go_on, calls = threading.Event(), []

    def hang(event: Event) -> dict[str, Any]:
        calls.append(event)
        go_on.wait(30)
        return {}

    host = PluginHost(objects=[module(telemetry_anonymize=hang)])
    anonymize = only(host)
    with pytest.raises(PluginError, match=r"took more than 0.05 s to anonymize and is given up"):
        anonymize(EVENT)
    go_on.set()
    for _ in range(2):
        with pytest.raises(PluginError, match="did not answer before and is given up"):
            anonymize(EVENT)
    assert calls == [EVENT]
    assert list(host.failures) == ["made"]
    anonymize.close()


def test_an_anonymizer_by_itself_tells_nobody() -> None:
    anonymize = Anonymizer("alone", lambda event: 1 / 0)  # type: ignore[arg-type, return-value]
    with pytest.raises(PluginError, match="raised ZeroDivisionError"):
        anonymize(EVENT)
    anonymize.close()
    Anonymizer("never called", lambda event: {}).close()


def test_plugins_that_are_known_need_not_be_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bell_module", module(cmdorc_completed=lambda run: None))
    known = Installed("bell", "bell_module", "bell-dist", "1")
    assert PluginHost(["bell"], known=[known]).names() == ["bell"]
    assert PluginHost(["bell"], known=[]).failures


def test_settings_that_can_never_be_read_are_their_plugins_failure() -> None:
    class Odd(NoopReporter):
        class Settings(msgspec.Struct):
            unclear: list[int] | set[int]

    host = PluginHost(objects=[module(telemetry_reporters=lambda: [Odd, NoopReporter])])
    assert host.reporters() == {"made": NoopReporter}
    assert "whose Settings cannot be read: TypeError" in host.failures["made"]
