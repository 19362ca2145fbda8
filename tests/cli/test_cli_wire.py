"""What `show-payload` prints is what leaves, byte for byte, and what the audit has the digest of: for every reporter.

Where a batch is several requests, it is their bodies, one behind the other. Prometheus is sent nothing: of what it
reads, it is the share of the batch, sample for sample.

A reporter joins by a line in ``CASES``; one that is installed and not there fails a test.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cmdorc_telemetry import CompletedRun, Telemetry, TelemetryReporter
from cmdorc_telemetry.application import CMDORC
from cmdorc_telemetry.audit import Entry, entries
from cmdorc_telemetry.discovery import installed
from cmdorc_telemetry.plugins import PluginHost
from cmdorc_telemetry.testing import Answer, FaultServer, Forward

OWN_FORM = """
import json
from cmdorc_telemetry import TelemetryReporter, hookimpl

class Own(TelemetryReporter):
    name = "own"

    def encode(self, batch):
        return b"<" + b"|".join(event.body.upper() for event in batch.events) + b">"

    async def report(self, event, payload):
        raise AssertionError("batches are handed over")

    async def report_batch(self, batch):
        with open("arrived", "ab") as file:
            file.write(self.encode(batch))

@hookimpl
def telemetry_reporters():
    return [Own]
"""
PLAIN = """
import msgspec
from cmdorc_telemetry import TelemetryReporter, hookimpl

class Plain(TelemetryReporter):
    name = "plain"

    async def report(self, event, payload):
        with open("arrived", "ab") as file:
            file.write(msgspec.json.encode(payload) + b"\\n")

@hookimpl
def telemetry_reporters():
    return [Plain]
"""


class Case(NamedTuple):
    """One reporter, and where what it sends can be seen."""

    reporter: str
    settings: str = ""
    code: str = ""
    """Of its plugin, where that is none of this repository's."""
    answer: Answer | None = None
    """Where it sends to a server: with what that confirms; else what arrives is a file."""
    file: str = "arrived"
    read: Callable[[bytes], bytes] = bytes
    """What the one who gets that file has of it."""


FORWARDED = Answer()
"""A real server's, behind one that keeps what passes."""
OTLP = Answer(200, b"", {"Content-Type": "application/x-protobuf"})


def samples(scraped: bytes) -> bytes:
    """The samples of a scrape, a line each; of a histogram what lies in each bucket alone."""
    lines = []
    for family in text_string_to_metric_families(scraped.decode()):
        below: dict[tuple[str, ...], float] = {}
        for sample in family.samples:
            value, edge = sample.value, {name: text for name, text in sample.labels.items() if name == "le"}
            labels = {name: text for name, text in sample.labels.items() if name != "le"}
            if edge:
                series = tuple(labels.values())
                value, below[series] = value - below.get(series, 0.0), value
            if sample.name.endswith("_count") or (edge and not value):
                continue
            named = ",".join(f'{name}="{text}"' for name, text in {**labels, **edge}.items())
            lines.append(f"{sample.name}{{{named}}} {value:.15g}\n")
    return "".join(sorted(lines)).encode()


CASES = {
    "http": Case("http", 'endpoint = "{endpoint}"', answer=FORWARDED),
    "posthog": Case("posthog", 'endpoint = "{root}"\napi_key = "phc_k"', answer=Answer.json({"status": "Ok"})),
    "segment": Case("segment", 'endpoint = "{endpoint}"\nwrite_key = "k"', answer=Answer.json({"success": True})),
    "otlp": Case("otlp", 'endpoint = "{root}"', answer=OTLP),
    "prometheus": Case("prometheus", 'path = "{folder}/arrived.prom"', file="arrived.prom", read=samples),
    "file": Case("file", 'path = "{folder}/arrived"'),
    "only report": Case("plain", code=PLAIN),
    "own encode": Case("own", code=OWN_FORM),
    "renamed": Case("plain", 'rename = {{ state = "outcome", command_completed = "done", event_id = "key" }}', PLAIN),
    "less": Case("file", 'path = "{folder}/arrived"\nlevel = "minimal"'),
    "private": Case("http", 'endpoint = "{endpoint}"\naudience = "private"', answer=FORWARDED),
    "private otlp": Case("otlp", 'endpoint = "{root}"\naudience = "private"', answer=OTLP),
    "private prometheus": Case(
        "prometheus", 'path = "{folder}/arrived.prom"\naudience = "private"', file="arrived.prom", read=samples
    ),
}


@pytest.fixture(scope="module")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real server, which takes private fields too."""
    store = tmp_path_factory.mktemp("real") / "reports.db"
    command = [str(Path(sys.executable).with_name("cmdorc-telemetry-server")), "serve", "--port", "0", "--store",
               str(store), "--rate-limit", "0", "--accept-private"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process.stdout.readline().split()[-1]
    process.terminate()
    process.communicate(timeout=15)


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(machine, real_server: str, request: pytest.FixtureRequest) -> Iterator[Callable[[], bytes]]:
    """A home with one destination, ``to``. What arrived there, decompressed."""
    found: Case = request.param
    if found.code:
        machine.plugin(found.reporter, found.code)
    confirm = Forward(real_server) if found.answer is FORWARDED else lambda _: found.answer
    with FaultServer(answer=confirm) as server:
        settings = found.settings.format(endpoint=server.endpoint, root=server.endpoint.removesuffix("/v1"),
                                         folder=machine.work)  # fmt: skip
        machine.config(
            f'[telemetry]\nplugins = ["{found.reporter}"]\n'
            f'[telemetry.to.to]\nplugin = "{found.reporter}"\nevents = ["command_completed"]\n{settings}\n'
        )
        machine.opt_in("--level", "standard")

        def arrived() -> bytes:
            if found.answer is not None:
                return b"".join(request.plain for request in server.seen if request.method == "POST")
            return found.read((machine.work / found.file).read_bytes())

        yield arrived


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def left(machine) -> Entry:
    (entry,) = entries(machine.home)
    return entry


def test_what_is_shown_is_what_leaves_and_what_the_audit_tells_of(machine, case: Callable[[], bytes]) -> None:
    machine.record()
    shown = machine("show-payload", "command_completed", "--to", "to").stdout_bytes
    machine("flush")
    entry = left(machine)
    assert digest(shown) == digest(case()) == entry.digest
    assert shown == case()
    assert (entry.bytes, entry.answer, entry.events) == (len(shown), {"accepted": 1}, {"command_completed": 1})


def test_of_a_batch_the_audit_has_the_digest_of_all_that_left(machine, case: Callable[[], bytes]) -> None:
    machine.record(*(CompletedRun(run_id="r", command_name="c", state="success", duration=n) for n in range(20)))
    machine("show-payload")
    machine("flush")
    entry = left(machine)
    assert entry.digest == digest(case())
    assert entry.bytes == len(case())
    assert entry.answer == {"accepted": 20} == {"accepted": len(set(entry.event_ids))}
    machine("audit", "--verify")


def test_every_reporter_that_is_installed_is_among_these() -> None:
    host = PluginHost([point.name for point in installed()])
    assert set(host.reporters()) <= {case.reporter for case in CASES.values()}


class Kept(TelemetryReporter):
    """What code injects: ``report`` is all it has."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    async def report(self, event: str, payload: dict[str, object]) -> None:
        self.names += payload


class Alone(Kept):
    """The same, with a form of its own: a body, where it is alone."""

    def encode(self, batch) -> bytes:
        return b"\n".join(event.body for event in batch.events)


@pytest.mark.parametrize(("reporter", "end"), [(Kept(), b"\n"), (Alone(), b"")], ids=["only report", "own encode"])
def test_what_code_injected_gets_is_the_shared_body(machine, reporter: Kept, end: bytes) -> None:
    machine.config('[telemetry]\nplugins = ["http"]\nendpoint = "http://127.0.0.1:9/v1"\n')  # for which it waits
    machine.opt_in("--level", "standard")
    program = Telemetry.start(CMDORC._replace(version="0.12.0"), reporters=[reporter])
    program.fire("cmdorc_completed", machine.run)
    program.flush(20)
    program.close()
    (entry,) = (each for each in entries(machine.home) if each.destination.startswith("code-"))
    assert entry.digest == digest(machine("show-payload").stdout_bytes + end)
    assert list(entry.fields["command_completed"]) == reporter.names
    machine("audit", "--verify")
