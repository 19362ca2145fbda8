"""Specs by exact name and version; an event belongs to one spec only, and a conflict names both sides."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from cmdorc_telemetry import hookimpl
from cmdorc_telemetry.config import Layer
from cmdorc_telemetry.decoding import decode
from cmdorc_telemetry.errors import SpecError
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.plugins import PluginHost
from cmdorc_telemetry.situation import Situation
from cmdorc_telemetry.spec import LEVELS, Shapes, SpecFile, TelemetryRegistry, TelemetrySpec, load_spec


def spec(name: str, version: int = 1, *events: str | tuple[str, int]) -> TelemetrySpec:
    pairs = [event if isinstance(event, tuple) else (event, 1) for event in events]
    table: dict[str, Any] = {
        "meta": {"name": name, "version": version},
        "events": [
            {"name": event, "version": number, "semantics": {"what": "x"}, "properties": {}} for event, number in pairs
        ],
    }
    return decode(table, TelemetrySpec, "test")


def registry(*specs: TelemetrySpec) -> TelemetryRegistry:
    made = TelemetryRegistry()
    for each in specs:
        made.register(each, f"plugin of {each.ref}")
    return made


def test_the_core_registry_holds_cmdorcs_own_spec() -> None:
    core = TelemetryRegistry.with_core()
    assert [each.ref for each in core] == ["cmdorc.core@1"]
    assert len(core) == 1
    (found,) = core
    assert core.source(found) == "cmdorc"
    assert core.get("cmdorc.core") is found


def test_a_spec_that_is_there_already_names_both_sources() -> None:
    made = registry(spec("acme.app"))
    with pytest.raises(SpecError) as caught:
        made.register(spec("acme.app", 1, "paid"), "another-plugin")
    assert str(caught.value) == (
        "another-plugin: meta.name: spec acme.app@1 is registered already, by plugin of acme.app@1"
    )
    assert len(made) == 1
    assert made.find_event("paid") is None


def test_an_event_of_another_spec_names_both_sources() -> None:
    made = registry(spec("acme.app", 1, "paid"), spec("acme.app", 2, ("paid", 2)), spec("other", 1, "seen"))
    with pytest.raises(SpecError) as caught:
        made.register(spec("copy", 1, "seen", "paid"), "another-plugin")
    assert str(caught.value) in (
        "another-plugin: events: event 'paid' is declared already, by plugin of acme.app@1",
        "another-plugin: events: event 'seen' is declared already, by plugin of other@1",
    )
    assert made.get("copy") is None
    with pytest.raises(SpecError, match=r"event 'paid' is declared already, by plugin of acme.app@1"):
        made.register(spec("copy", 1, ("paid", 7)), "another-plugin")  # other versions of it belong there, too
    made.register(spec("acme.app", 3, "paid"), "acme")


def test_a_spec_is_found_by_its_exact_name_in_its_latest_version() -> None:
    one, three, two, longer = spec("acme.app", 1), spec("acme.app", 3), spec("acme.app", 2), spec("acme.app2", 9)
    made = registry(one, three, two, longer)
    assert made.get("acme.app") is three
    assert made.get("acme.app", 2) is two
    assert made.get("acme.app", 4) is None
    for name in ("acme", "acme.ap", "acme.app3", "Acme.app", "app", ""):
        assert made.get(name) is None
    assert list(made) == [one, two, three, longer]


def test_an_event_is_found_in_the_latest_spec_that_declares_it() -> None:
    one = spec("acme.app", 1, "paid", "refunded")
    two = spec("acme.app", 2, ("paid", 1), ("paid", 2))
    made = registry(one, two, spec("other", 5, "seen"))
    assert made.find_event("paid") == (two, two.event("paid", 2))
    assert made.find_event("paid", 1) == (two, two.event("paid", 1))
    assert made.find_event("refunded") == (one, one.event("refunded"))
    for name in ("pai", "paid.out", "PAID"):
        assert made.find_event(name) is None
    assert made.find_event("paid", 3) is None


def test_specs_may_be_registered_while_they_are_gone_through() -> None:
    made = registry(spec("a"))
    for each in made:
        if each.meta.name == "a":
            made.register(spec("b"), "b")
    assert [each.meta.name for each in made] == ["a", "b"]


# -- files -------------------------------------------------------------------------------------------------------------


def written(folder: Path, name: str, spec: str = "acme.app", event: str = "paid", version: int = 1) -> Path:
    path = folder / name
    path.write_text(
        f"meta = {{name = '{spec}', version = {version}}}\n[[events]]\nname = '{event}'\n"
        "semantics.what = 'x'\nproperties.amount = {type = 'count', level = 'minimal'}\n"
    )
    return path


def named(*paths: Path, where: str = "config.toml") -> list[SpecFile]:
    return [SpecFile(path, where, f"telemetry.specs[{number}]") for number, path in enumerate(paths)]


def test_nobody_brings_another_version_of_what_was_sealed() -> None:
    made = TelemetryRegistry.with_core()
    with pytest.raises(SpecError) as caught:
        made.register(spec("cmdorc.core", 2, "mine"), "a-plugin")
    assert str(caught.value) == "a-plugin: meta.name: spec cmdorc.core is declared already, by cmdorc"
    made.register(spec("acme.app", 1), "acme")
    made.register(spec("acme.app", 2), "acme-more")
    made.seal()
    with pytest.raises(SpecError, match=r"^x: meta.name: spec acme.app is declared already, by acme$"):
        made.register(spec("acme.app", 3), "x")
    made.register(spec("other", 1), "x")
    assert [each.ref for each in made] == ["cmdorc.core@1", "acme.app@1", "acme.app@2", "other@1"]


def test_files_are_read_once_whatever_their_name(tmp_path: Path) -> None:
    path = written(tmp_path, "a.toml")
    (tmp_path / "link.toml").symlink_to(path)
    made = TelemetryRegistry.with_core()
    made.read(named(path, path, tmp_path / "link.toml", tmp_path / ".." / tmp_path.name / "a.toml"))
    assert [(each.ref, made.source(each)) for each in made][1:] == [("acme.app@1", str(path))]


def test_a_file_that_is_wrong_names_the_configuration_its_key_and_itself(tmp_path: Path) -> None:
    one, same = written(tmp_path, "one.toml"), written(tmp_path, "same.toml")
    made = TelemetryRegistry.with_core()
    with pytest.raises(SpecError) as caught:
        made.read(named(one, same))
    assert str(caught.value) == (
        f"config.toml: telemetry.specs[1]: {same}: meta.name: spec acme.app@1 is registered already, by {one}"
    )
    assert (caught.value.where, caught.value.key) == ("config.toml", "telemetry.specs[1]")
    assert made.refused == []


def test_of_files_that_are_only_tried_the_good_ones_are_added(tmp_path: Path) -> None:
    good, more = written(tmp_path, "good.toml"), written(tmp_path, "more.toml", "acme.more", "seen")
    core, event = written(tmp_path, "core.toml", "cmdorc.core"), written(tmp_path, "e.toml", "b", "trigger_fired")
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * ((1 << 20) + 1))
    bad = [
        core,
        event,
        Path("a\0b"),
        Path("/dev/zero"),
        tmp_path,
        *(tmp_path / f"{name}.toml" for name in ("pipe", "large")),
    ]
    made = TelemetryRegistry.with_core()
    made.try_reading(named(good, *bad, more, where="cmdorc.toml"))
    assert [each.ref for each in made] == ["cmdorc.core@1", "acme.app@1", "acme.more@1"]
    assert len(made.refused) == len(bad)
    for number, (path, text) in enumerate(zip(bad, made.refused, strict=True), start=1):
        assert text.startswith(f"cmdorc.toml: telemetry.specs[{number}]: {path}: ")
        assert text.endswith(". It is left out")
    assert made.refused[-1].endswith("large.toml: is larger than 1 MiB. It is left out")


class Plugin:
    @hookimpl
    def telemetry_specs(self) -> list[TelemetrySpec]:
        return [spec("acme.app", 1, "paid"), spec("acme.plugin", 1, "seen")]


def test_the_core_comes_first_then_the_user_then_plugins_then_a_project(tmp_path: Path) -> None:
    own = written(tmp_path, "own.toml")
    operators = written(tmp_path, "operators.toml", "op", "op")
    project = [
        written(tmp_path, "p1.toml", "acme.app", "other", 2),
        written(tmp_path, "p2.toml", "acme.plugin", "o", 2),
        written(tmp_path, "p3.toml", "new", "new"),
    ]
    situation = Situation(
        Home(tmp_path), {}, Layer(tmp_path / "config.toml", specs=(own,)), None,
        project=Layer(Path("cmdorc.toml"), specs=tuple(project)), argument=Layer(specs=(project[2],)),
        other=Layer(tmp_path / "operator.toml", specs=(operators, own)),
    )  # fmt: skip
    host = PluginHost((), (Plugin(),), known=())
    made = host.registry(*situation.specs())
    assert [(each.ref, made.source(each)) for each in made] == [
        ("cmdorc.core@1", "cmdorc"), ("acme.app@1", str(own)), ("op@1", str(operators)),
        ("acme.plugin@1", "Plugin"), ("new@1", str(project[2])),
    ]  # fmt: skip
    assert list(host.failures) == ["Plugin"]
    assert f"spec acme.app@1 is registered already, by {own}" in host.failures["Plugin"]
    assert [text.partition(": meta.name")[0] for text in made.refused] == [
        f"cmdorc.toml: telemetry.specs[0]: {project[0]}", f"cmdorc.toml: telemetry.specs[1]: {project[1]}"
    ]  # fmt: skip


evil = st.sampled_from(
    [True, -1, 0, 10**19, 10**400, 1e308, float("inf"), float("nan"), "", "~", "\0", "(", "[", "x" * 5000, "enum",
     "private", [], {}, [1], ["a", "a"], {"a": 1}, [[]]]
)  # fmt: skip
names = (
    "min",
    "max",
    "members",
    "edges",
    "pattern",
    "max_length",
    "max_items",
    "type",
    "level",
    "audience",
    "required",
)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from(["count", "number", "enum", "bucket", "string", "hash"]),
    st.dictionaries(st.sampled_from(names), evil, max_size=3),
    st.dictionaries(
        st.sampled_from(["name", "version", "retention", "sampling", "rank", "semantics"]), evil, max_size=2
    ),
    st.dictionaries(st.sampled_from(["meta", "config", "operations", "zzz"]), evil, max_size=1),
)
def test_whatever_a_file_declares_it_is_a_spec_that_works_or_an_error(
    kind: str, prop: dict[str, Any], event: dict[str, Any], top: dict[str, Any]
) -> None:
    needed = {"number": {"min": 0, "max": 9}, "enum": {"members": ["a"]}, "bucket": {"edges": [1, 2]},
              "string": {"pattern": "a", "max_length": 3}}.get(kind, {})  # fmt: skip
    table = {
        "meta": {"name": "acme.app"},
        "events": [
            {"name": "paid", "semantics": {"what": "x"}, "properties": {"p": {"type": kind, **needed, **prop}}, **event}
        ],
        **top,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fuzzed.toml"
        try:
            path.write_text(tomlkit.dumps(table))
        except Exception:  # tomlkit has no way to write it
            reject()
        try:
            found = load_spec(path)
        except SpecError:
            return
    shapes = Shapes([found])
    for each in found.events:
        for level in LEVELS:
            shapes.shared(found.ref, each.name, level)
