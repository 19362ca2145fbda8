"""A file that is wrong is told in one line: which file, where in it, what was found, what would be right. And soon."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cmdorc_telemetry.cli import telemetry
from cmdorc_telemetry.spec import CORE, dump_json, load_spec

from ..test_spec_model import BROKEN

GOOD = '[meta]\nname = "a"\nowners = ["@a"]\n'
DOCUMENT = '{"meta": {"key": "a", "version": "1.0.0", "owners": ["@a"]}, "events": []'
BOM = "\ufeff"
SOON = 8.0
"""Seconds of this process's own: what is quadratic takes minutes."""


def lint(path: Path, *options: str, code: int) -> str:
    """What ``spec lint`` says of a file."""
    done = CliRunner().invoke(telemetry, ["spec", "lint", *options, str(path)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    assert done.exit_code == code, done.output
    return done.stdout


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_a_broken_spec_is_told_by_the_lint_too(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "acme.telemetry.toml"
    path.write_text(text, encoding="utf-8")
    found = json.loads(lint(path, "--json", code=2))
    said = ": ".join(part for part in (found["at"], found["message"]) if part)
    assert (found["file"], found["lint"], said) == (str(path), "no-spec", message)
    assert 1 <= found["line"] <= text.count("\n") + 1
    (line,) = lint(path, code=2).splitlines()
    assert line.startswith(f"{path}: ")
    assert line.endswith("[contradiction: no-spec]")


def changed(path: str, value: Any) -> dict[str, Any]:
    """A document of ContractSpec's with one value replaced, or, where it is None, left out."""
    document: Any = {
        "meta": {"key": "a", "version": "1.0.0", "owners": ["@a"], "stability": "beta"},
        "config": {"defaultRetentionDays": 3, "providers": [{"type": "posthog", "config": {}}],
                   "anomalyDetection": {"enabled": True}},
        "events": [{"key": "paid", "version": "1.0.0", "semantics": {"what": "x"}, "privacy": "internal",
                    "properties": {"n": {"type": "number"}}, "retention": {"days": 3}, "sampling": {"rate": 1},
                    "anomalyDetection": {"enabled": True, "thresholds": [{"metric": "n", "max": 3}]}}],
    }  # fmt: skip
    *way, last = [int(step) if step.isdecimal() else step for step in path.split("/")]
    part = document
    for step in way:
        part = part[step]
    if value is None:
        del part[last]
    else:
        part[last] = value
    return document  # type: ignore[no-any-return]


@pytest.mark.parametrize(("path", "value", "message"), [
    ("meta", None, "has no 'meta'; expected that key, which is required"),
    ("events", None, "has no 'events'; expected that key, which is required"),
    ("events", {}, "events: found {}; expected list"),
    ("events/0", "paid", "events[0]: found 'paid'; expected table"),
    ("meta/key", 3, "meta.key: found 3; expected str"),
    ("meta/key", None, "meta: has neither 'key' nor 'name'; expected one of them"),
    ("meta/version", True, "meta.version: found True; expected int | str"),
    ("meta/version", 1.5, "meta.version: found 1.5; expected int | str"),
    ("meta/version", "1.0", "meta: found version '1.0'; expected a whole number, or three such as '1.0.0'"),
    ("meta/owners", "@a", "meta.owners: found '@a'; expected list"),
    ("meta/stability", "alpha", "meta.stability: found 'alpha'; expected one of "
     "beta, deprecated, experimental, idea, in_creation, stable"),
    ("events/0/key", None, "events[0]: has neither 'key' nor 'name'; expected one of them"),
    ("events/0/key", "pa id", "events[0]: 'pa id' is no name; expected letters, digits and $ _ . - only"),
    ("events/0/version", 0, "events[0]: found version 0; expected 1 to 999999"),
    ("events/0/semantics", None, "events[0]: has no 'semantics'; expected that key, which is required"),
    ("events/0/semantics", {}, "events[0].semantics: has no 'what'; expected that key, which is required"),
    ("events/0/privacy", None, "events[0]: has no 'privacy'; expected that key, which is required"),
    ("events/0/privacy", "secret", "events[0].privacy: found 'secret'; expected one of "
     "internal, pii, public, sensitive"),
    ("events/0/properties", [], "events[0].properties: found []; expected table"),
    ("events/0/properties/n", "number", "events[0].properties.n: found 'number'; expected table"),
    ("events/0/properties/n/type", "integer", "events[0].properties.n.type: found 'integer'; expected one of "
     "boolean, json, number, string, timestamp"),
    ("events/0/properties/n/required", "yes", "events[0].properties.n.required: found 'yes'; expected bool"),
    ("events/0/properties/n/x-cmdorc-telemetry", {"type": "enum"},
     "events[0].properties.n: type 'enum' needs 'members'"),
    ("events/0/properties/n/x-cmdorc-telemetry", {"mx": 3}, "events[0].properties.n.mx: unknown key; expected one of"),
    ("events/0/properties/os", {"type": "string"}, "events[0]: property 'os' is a base field that every event has"),
    ("events/0/retention/days", 0, "events[0].retention: found 0 days; expected 1 or more"),
    ("events/0/retention/days", None, "events[0].retention: has no 'days'; expected that key, which is required"),
    ("events/0/retention/policy", "keep", "events[0].retention.policy: found 'keep'; expected one of archive, delete"),
    ("events/0/sampling/rate", 2, "events[0].sampling: found a sampling rate of 2; expected 0 to 1"),
    ("events/0/sampling/conditions", ["n >"], "events[0].sampling: condition 'n >': found its end at character 4; "
     "expected a number, true, false or a string in quotes"),
    ("events/0/anomalyDetection/enabled", None,
     "events[0].anomalyDetection: has no 'enabled'; expected that key, which is required"),
    ("events/0/anomalyDetection/minimumSample", 0,
     "events[0].anomaly_detection: found minimum_sample 0; expected 1 or more"),
    ("events/0/anomalyDetection/thresholds", [{"metric": "n"}],
     "events[0].anomaly_detection.thresholds[0]: threshold of 'n' needs 'min', 'max' or both"),
    ("events/0/anomalyDetection/actions", ["shout"], "events[0].anomalyDetection.actions[0]: found 'shout'; expected "
     "one of alert, log, trigger_regen"),
    ("config/defaultRetentionDays", "3", "config.defaultRetentionDays: found '3'; expected int"),
    ("config/defaultSamplingRate", -1, "config: found a sampling rate of -1; expected 0 to 1"),
    ("config/providers", [{"type": "mixpanel"}], "config.providers[0].type: found 'mixpanel'; expected one of "
     "internal, opentelemetry, posthog, segment"),
    ("x-cmdorc-telemetry", {"operations": [{"name": "pay", "success": {"event": "gone"}}]},
     "operation 'pay' emits 'gone', which is not declared"),
    ("x-cmdorc-telemetry", {"operatoins": []}, "operatoins: unknown key; expected one of"),
])  # fmt: skip
def test_a_broken_document_is_told_what_is_wrong_and_where(path: str, value: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "acme.json"
    file.write_text(json.dumps(changed(path, value), indent=1))
    found = json.loads(lint(file, "--json", code=2))
    said = ": ".join(part for part in (found["at"], found["message"]) if part)
    assert (found["file"], found["lint"]) == (str(file), "no-spec")
    assert said == message or (message.endswith("expected one of") and said.startswith(message)), said


# -- files that nobody wrote by hand -----------------------------------------------------------------------------------


def event(lines: str) -> str:
    return f"{GOOD}[[events]]\nname = 'paid'\nsemantics = {{what = 'x', who = 'x', why = 'x'}}\n{lines}\n"


HOSTILE: dict[str, tuple[str | bytes, str]] = {
    "number.toml": (f"[meta]\nname = 'a'\nversion = {'9' * 900_000}", "there is a number of thousands of digits"),
    "digits.toml": (f"[meta]\nname = 'a'\nversion = {'9' * 4000}", f"found version {'9' * 60}; expected 1 to 999999"),
    "float.toml": ("meta = {name = 'a'}\nconfig = {default_sampling_rate = 1e999}", "found a sampling rate of inf"),
    "lists.toml": (f"a = {'[' * 100_000}{']' * 100_000}", "is nested too deeply"),
    "keys.toml": (f"{GOOD}a{'.a' * 100_000} = 1", "is nested too deeply"),
    "tables.toml": (f"[{'a.' * 50_000}a]", "is nested too deeply"),
    "nul.toml": (f"{GOOD}title = 'a\0b'", "(at line 4, column 11)"),
    "nuls.toml": ("\0" * 100, "is not valid TOML: "),
    "latin.toml": (f"{GOOD}title = 'é'".encode("latin-1"), "cannot be read: 'utf-8' codec can't decode byte 0xe9"),
    "utf16.toml": (GOOD.encode("utf-16"), "cannot be read: 'utf-8' codec can't decode byte 0xff in position 0"),
    "twice.toml": ("[meta]\nname = 'a'\nname = 'b'", "is not valid TOML: Cannot overwrite a value"),
    "tables_twice.toml": (f"{GOOD}[meta]\nname = 'b'", "is not valid TOML: Cannot declare ('meta',) twice"),
    "large.toml": ("#" * ((1 << 20) + 1), "is larger than 1 MiB"),
    "lines.toml": ("#x\n" * 300_000, "has no 'meta'; expected that key, which is required"),
    "empty.toml": ("", "has no 'meta'; expected that key, which is required"),
    "moment.toml": (event("expires = 2026-01-01T00:00:00Z\nproperties = {}"),
                    "events[0].expires found 2026-01-01T00:00:00+00:00; expected date"),
    "condition.toml": (event(f"sampling = {{rate = 1, conditions = ['{'(' * 200}x{')' * 200}']}}\nproperties = {{}}"),
                       "is nested deeper than 20"),
    "number.json": (DOCUMENT.replace('"1.0.0"', "9" * 900_000) + "}", "is not valid JSON: Integer value out of range"),
    "float.json": (DOCUMENT + ', "x": 1e999}', "is not valid JSON: Number out of range"),
    "nan.json": (DOCUMENT + ', "x": NaN}', "is not valid JSON: "),
    "lists.json": ("[" * 500_000, "is not valid JSON: maximum recursion depth exceeded"),
    "objects.json": (DOCUMENT + ', "x": ' + '{"a":' * 100_000 + "1" + "}" * 100_001, "maximum recursion depth"),
    "nul.json": (DOCUMENT.replace('"a"', '"a\0"') + "}", "is not valid JSON: "),
    "latin.json": (DOCUMENT.replace('"a"', '"é"').encode("latin-1"), "cannot be read: 'utf-8' codec can't decode"),
    "half.json": (DOCUMENT + ', "x": "\\ud800"}', "is not valid JSON: "),
    "twice.json": (DOCUMENT + ', "events": []}', "is not valid JSON: the key 'events' is there twice in one object"),
    "null.json": ("null", "found None; expected table"),
    "empty.json": ("", "is not valid JSON: Input data was truncated"),
}  # fmt: skip


@pytest.mark.parametrize("option", ["", "--json", "--github"])
@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_is_in_a_file_it_is_told_in_one_line_and_soon(name: str, option: str, tmp_path: Path) -> None:
    content, message = HOSTILE[name]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    begin = time.process_time()
    (line,) = lint(path, *filter(None, [option]), code=2).splitlines()
    assert time.process_time() - begin < SOON
    assert len(line) < 1000
    if option == "":
        assert line.startswith(f"{path}: ")
        assert message in line


def _looped(path: Path) -> None:
    path.symlink_to(path.name)


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(("made", "message"), [
    (os.mkdir, "cannot be read: it is no file"), (os.mkfifo, "cannot be read: it is no file"),
    (_looped, "cannot be read: Too many levels of symbolic links"),
    (_dangling, "cannot be read: No such file or directory"), (_endless, "is larger than 1 MiB"),
    (lambda path: None, "cannot be read: No such file or directory"),
])  # fmt: skip
@pytest.mark.parametrize("option", ["", "--json", "--github"])
def test_what_is_no_file_is_told_and_waited_for_by_nobody(
    made: Callable[[Path], None], message: str, option: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.toml"
    made(path)
    (line,) = lint(path, *filter(None, [option]), code=2).splitlines()
    assert message in line


@pytest.mark.parametrize("made", [
    GOOD.replace("\n", "\r\n"), BOM + GOOD, BOM + DOCUMENT + "}", (DOCUMENT + "}").replace(",", ",\r\n"),
    DOCUMENT + ', "x": ' + "[" * 300 + "]" * 300 + "}", f"{GOOD}title = '{'x' * 900_000}'",
], ids=["crlf", "bom", "bom.json", "crlf.json", "deep.json", "long"])  # fmt: skip
def test_what_is_merely_unusual_is_a_spec(made: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.json" if "{" in made else "a.toml")
    path.write_bytes(made.encode())
    assert lint(path, code=0) == ""
    assert lint(path, "--github", code=0) == ""


def test_a_file_with_very_many_findings_is_read_once(tmp_path: Path) -> None:
    properties = "\n".join(f"properties.p{number} = {{type = 'bool'}}" for number in range(1000))
    path = tmp_path / "a.toml"
    path.write_text(event(properties))
    begin = time.process_time()
    lines = lint(path, "--github", code=0).splitlines()
    assert time.process_time() - begin < SOON
    assert len(lines) >= 1000
    assert {f"line={number + 7}" in line for number, line in enumerate(lines[:1000])} == {True}


def test_the_core_spec_is_found_line_by_line_in_both_formats(tmp_path: Path) -> None:
    path = tmp_path / "core.json"
    path.write_text(dump_json(load_spec(CORE)).replace("How long", ""))
    assert lint(path, code=0) == ""
