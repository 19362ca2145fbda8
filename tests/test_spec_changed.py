"""A spec that shares less than before, or than another version of it: what was captured by the other one follows."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from cmdorc_telemetry.pipeline import Pipeline
from cmdorc_telemetry.plugins import PluginHost
from cmdorc_telemetry.situation import Situation
from cmdorc_telemetry.spec import Shapes, parse_toml, shared_names

from .acme import Acme

NOTE = 'note = { type = "string", pattern = ".*", max_length = 40'


def text(note: str = "", *, version: str = "1.0.0", event: str = "") -> str:
    return f"""
[meta]
name = "acme.app"
version = "{version}"

[[events]]
name = "paid"
version = "{version}"
semantics = {{ what = "A payment" }}
{event}

[events.properties]
amount = {{ type = "count" }}
{NOTE}{note} }}
"""


def stored(acme: Acme) -> dict[str, object] | None:
    """What is stored to be shared, once a program with that spec has looked at it."""
    pipeline = Pipeline(Situation.read(acme.environ, application=acme.application), PluginHost())
    with closing(pipeline.open_spool()) as spool:
        pipeline.pump(spool)
        row = spool.row(1)
    assert row is not None
    body = None if row.shared is None else json.loads(row.shared)
    return body and {name: body[name] for name in ("amount", "note") if name in body}


def recorded(root: Path) -> Acme:
    acme = Acme(root, text())
    tracker = acme.tracker()
    assert tracker.track_now("paid", None, {"amount": 1, "note": "secret"})
    tracker.close()
    return acme


@pytest.mark.parametrize("less", [', audience = "private"', ', level = "debug"'])
def test_what_waits_to_be_sent_loses_what_its_spec_no_longer_shares(tmp_path: Path, less: str) -> None:
    assert stored(recorded(tmp_path)) == {"amount": 1, "note": "secret"}
    assert stored(Acme(tmp_path, text(less), level=None)) == {"amount": 1}


@pytest.mark.parametrize(
    "after", [text(", redact = true"), text(", pii = true"), text(event='privacy = "sensitive"')],
    ids=["redact", "pii", "sensitive"],
)  # fmt: skip
def test_what_waits_to_be_sent_is_not_sent_where_its_spec_masks_it_now(tmp_path: Path, after: str) -> None:
    assert stored(recorded(tmp_path)) == {"amount": 1, "note": "secret"}
    assert stored(Acme(tmp_path, after, level=None)) is None


def test_what_waits_to_be_sent_stays_where_its_spec_says_the_same(tmp_path: Path) -> None:
    acme = recorded(tmp_path)
    assert stored(acme) == stored(acme) == {"amount": 1, "note": "secret"}


@pytest.mark.parametrize("less", [', audience = "private"', ', level = "debug"'])
@pytest.mark.parametrize("first", ["1.0.0", "1.1.0"])
def test_of_two_versions_that_bodies_cannot_tell_apart_each_keeps_its_secrets(less: str, first: str) -> None:
    second = "1.1.0" if first == "1.0.0" else "1.0.0"
    versions = {first: less, second: ""}
    specs = [parse_toml(text(versions[version], version=version), "x") for version in sorted(versions)]
    found = Shapes(specs).event("acme.app@1", "paid")
    assert found is not None
    assert found[0] is specs[-1]
    assert shared_names(found[1], "standard") == ["amount"]


def test_two_versions_that_share_the_same_share_all_of_it() -> None:
    specs = [parse_toml(text(version=version), "x") for version in ("1.0.0", "1.1.0")]
    assert Shapes(specs).event("acme.app@1", "paid") == (specs[1], specs[1].events[0])
