"""The document by itself: small, made at once, with a policy of its own; what could not be found out is a sentence."""

from __future__ import annotations

import base64
import hashlib
import re
import time

from cmdorc_telemetry.types import Ledger
from cmdorc_telemetry.view import Facts, page
from cmdorc_telemetry.view.facts import Batch, EventFacts, FieldFacts, PlaceFacts, Sent

SECTIONS = ("places", "collected", "queues", "sent", "withheld", "past")


def facts(**known: object) -> Facts:
    found = {"now": 1_795_320_480.0, "version": "1.0", "command": "telemetry", "recording": True,
             "recording_elsewhere": True, "level": "standard"}  # fmt: skip
    return Facts(**{**found, **known})  # type: ignore[arg-type]


def test_90_days_of_10_000_runs_are_a_small_page_made_at_once(person, full) -> None:
    assert full.stat().st_size < 250_000
    took = []
    with person.here():
        for _ in range(3):
            start = time.perf_counter()
            text = person("view", "--output", "-")
            took.append(time.perf_counter() - start)
    assert min(took) < 1
    assert re.search(r"10,\d\d\d runs of 5 commands in the last 90 days", text)
    assert "Your median run is slower than <b>50 %</b> of installs, as http said on" in text


def test_its_policy_allows_its_own_style_and_nothing_else(full) -> None:
    text = full.read_text(encoding="utf-8")
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)"', text)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    wanted = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert policy.replace("&#39;", "'") == wanted
    assert text.index("Content-Security-Policy") < text.index("<style>")
    for absent in ("<script", "<img", "<link", "<iframe", "url(", "@import", "style=", 'href="http', "src="):
        assert absent not in text


def test_what_could_not_be_found_out_is_a_sentence_in_its_place() -> None:
    text = page(facts(failed={name: f"No {name}." for name in SECTIONS}))
    for name in SECTIONS:
        assert f"not known</span> No {name}." in text
    assert text.count("<section") == len(SECTIONS) + 1, "and what can be done"


def test_sizes_and_reasons_are_words() -> None:
    batch = Batch(
        at=0.0, events={"a": 1_000}, fields=("os",), size=2_500_000_000, digest="sha256:ab", answer="1 accepted"
    )
    sent = Sent(name="x", whose="shared", batches=30, events=1_000, size=2_500_000_000, latest=(batch,))
    ledger = Ledger(name="x", recorded=9, acknowledged=3, pending=4, set_aside=1, dropped={"expired": 2, "new-one": 0})
    text = page(facts(sent=(sent,), places=(PlaceFacts(name="x", whose="yours", ledger=ledger),)))
    assert "2.5 GB" in text
    assert "last 1 of 30 batches" in text
    assert "<b>9</b> recorded = <b>3</b> arrived + <b>4</b> waiting (1 set aside) + <b>2</b> dropped" in text
    assert "2 <code>expired</code>. It could not be delivered within `keep_days`." in text
    assert "new-one" not in text


def test_long_values_and_parts_of_events_are_said() -> None:
    field = FieldFacts(
        name="f", about="A field", kind="text", value="x" * 500, level="minimal", state="shared", goes=("a",)
    )
    event = EventFacts(name="e", what="It was", why="To know", days=1, sampled="25% of them", fields=(field,))
    text = page(facts(events=(event,)))
    assert f"{'x' * 120}…</bdi>" in text
    assert "It was. To know. A server may keep it for 1 day. Shared: 25% of them." in text
    assert "1 kind of events, and nothing else." in text
