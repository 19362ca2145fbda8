"""What decides, without a server: limits, medians, headers, bodies."""

from __future__ import annotations

import gzip
import json
import os
import statistics
import subprocess
import sys
import uuid
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from cmdorc_telemetry.spec import TelemetryRegistry, parse_toml
from cmdorc_telemetry_server import body, ranks
from cmdorc_telemetry_server.body import Refused
from cmdorc_telemetry_server.drops import parse
from cmdorc_telemetry_server.intake import Intake, Refusal
from cmdorc_telemetry_server.ranks import Rank, Ranks, compact, median, percentile
from cmdorc_telemetry_server.ratelimit import RateLimit
from cmdorc_telemetry_server.store import Record

# -- the rate limit


def test_a_bucket_holds_a_minute_and_fills_up_again() -> None:
    limit = RateLimit(60)
    assert [limit.take("a", 1, 0.0) for _ in range(60)] == [0.0] * 60
    assert limit.take("a", 1, 0.0) == 1.0
    assert limit.take("b", 1, 0.0) == 0.0
    assert limit.take("a", 1, 0.75) == 0.25
    assert limit.take("a", 1, 1.0) == 0.0
    assert limit.take("a", 60, 500.0) == 0.0  # never more than a minute's worth
    assert limit.take("a", 1, 500.0) == 1.0


def test_a_batch_larger_than_the_bucket_gets_through_and_is_paid_back() -> None:
    limit = RateLimit(60)
    assert limit.take("a", 180, 0.0) == 0.0
    assert limit.take("a", 1, 1.0) == 120.0
    assert limit.take("a", 1, 121.0) == 0.0


def test_the_buckets_are_bounded() -> None:
    limit = RateLimit(1, most_installs=2)
    for install in "abc":
        assert limit.take(install, 1, 0.0) == 0.0
    assert limit.take("a", 1, 0.0) == 0.0  # forgotten, least recently used
    assert limit.take("c", 1, 0.0) > 0
    assert len(limit._buckets) == 2


def test_no_limit() -> None:
    assert RateLimit(0).take("a", 10**9, 0.0) == 0.0


# -- ranks


@given(st.lists(st.integers(0, 2**53)))
def test_the_median_is_that_of_the_values(values: list[int]) -> None:
    counts = {value: values.count(value) for value in values}
    expected = statistics.median(values) if values else None
    assert median(counts) == expected


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.none() | st.integers(0, 5))))
def test_ranks_are_kept_under_changes(changes: list[tuple[str, int | None]]) -> None:
    kept, plain = Ranks(), dict[str, int]()
    for install, value in changes:
        kept.update({install.encode(): value})
        plain.pop(install, None)
        if value is not None:
            plain[install] = value
    for install in "abcdef":
        values = list(plain.values())
        own = plain.get(install)
        expected = own is not None and Rank(sum(each < own for each in values), values.count(own), len(values))
        assert kept.rank(install.encode()) == (expected or None)


def test_the_percentile_is_a_mid_rank_with_a_floor_of_installs() -> None:
    assert percentile(Rank(0, 1, 1), 1) == 50
    assert percentile(Rank(9, 1, 10), 10) == 95
    assert percentile(Rank(0, 10, 10), 10) == 50
    assert percentile(Rank(0, 9, 9), 10) is None
    assert percentile(None, 1) is None


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 10**6), st.dictionaries(st.integers(0, 2**53), st.integers(1, 9**9)))
def test_rounded_durations_stay_close(start: int, step: int, more: dict[int, int]) -> None:
    counts = {**dict.fromkeys(range(start, start + 1_500 * step, step), 1), **more}
    rounded = compact(counts)
    assert sum(rounded.values()) == sum(counts.values())
    before, after = median(counts), median(rounded)
    assert before is not None
    assert after is not None
    assert abs(after - before) <= 0.0101 * before + 0.51
    assert compact(rounded) == rounded


def test_however_many_durations_little_is_kept() -> None:
    assert len(compact(dict.fromkeys(range(0, 2**53, 2**34 + 1), 1))) < 1_900
    few = dict.fromkeys(range(ranks.MOST_DISTINCT), 1)
    assert compact(few) is few


# -- the header about drops


def test_drops() -> None:
    assert parse("epoch=a-1; expired=3; disk_full=0") == ("a-1", {"expired": 3, "disk_full": 0})
    assert parse(" epoch=a ;x=1; ") == ("a", {"x": 1})


@given(st.text())
def test_no_header_about_drops_breaks_it(header: str) -> None:
    parse(header)
    parse(f"epoch=1; {header}")


# -- bodies


def refused(status: int) -> pytest.RaisesExc[Refused]:
    return pytest.RaisesExc(Refused, check=lambda fault: fault.status == status)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_compression(coding: str) -> None:
    compress = gzip.compress if coding == "gzip" else zstandard.ZstdCompressor().compress
    for plain in (b"", b"x", os.urandom(5_000), b"line\n" * 10_000):
        assert body.expand(compress(plain), coding, len(plain)) == plain
    packed = compress(b"something or other")
    for damaged in (
        b"",
        packed[:-1],
        packed[:5],
        packed + b"x",
        packed + packed,
        packed + bytes(999),
        b"nonsense",
        b"x" + packed[1:],
    ):
        with refused(400):
            body.expand(damaged, coding, 1_000)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_what_expands_beyond_the_limit_is_cut_off_early(coding: str) -> None:
    zeros = bytes(2**20)
    if coding == "gzip":
        packer = zlib.compressobj(9, wbits=31)
        bomb = b"".join(packer.compress(zeros) for _ in range(512)) + packer.flush()
    else:
        chunks = zstandard.ZstdCompressor(level=19).compressobj()
        bomb = b"".join(chunks.compress(zeros) for _ in range(512)) + chunks.flush()
    with refused(413):
        body.expand(bomb, coding, 2**20)
    with refused(413):
        body.expand(gzip.compress(bytes(101)) if coding == "gzip" else zstandard.compress(bytes(101)), coding, 100)


def test_a_zstd_frame_that_wants_a_huge_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = stream.compress(b"x" * 100) + stream.flush()
    with refused(400):
        body.expand(packed, "zstd", 1_000)


def test_without_zstandard_gzip_is_left() -> None:
    script = "import sys; sys.modules['zstandard'] = None\n"
    script += "from cmdorc_telemetry_server import body\n"
    script += "try: body.kind('application/json', 'zstd')\n"
    script += "except body.Refused as fault: print(fault.status, fault.headers)\n"
    script += "import gzip; print(body.expand(gzip.compress(b'plain'), 'gzip', 9))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["415 {'Accept-Encoding': 'gzip'}", "b'plain'"]


def test_lines() -> None:
    assert body.lines(b"a\nb\n", False, 1) == [b"a\nb\n"]
    assert body.lines(b"a\r\n\n \nb", True, 4) == [b"a\r", b"b"]
    for too_many in (b"a\nb\nc", b"\n\n\n"):
        with refused(413):
            body.lines(too_many, True, 2)
    for nothing in (b"", b"\n \n"):
        with refused(400):
            body.lines(nothing, True, 2)
    with refused(400):
        body.lines(b" \n", False, 2)


async def test_a_body_is_read_to_its_limit() -> None:
    taken = 0

    async def chunks(number: int) -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(number):
            taken += 1
            yield b"x" * 10

    assert await body.read(chunks(10), 100) == b"x" * 100
    with refused(413):
        await body.read(chunks(11), 100)
    with pytest.raises(Refused, match="larger than 100 bytes") as caught:
        await body.read(chunks(10_000), 100)
    assert caught.value.headers == {"Connection": "close"}
    assert taken == 10 + 11 + 81


# -- events


@pytest.mark.parametrize(("timestamp", "day"), [("2026-11-20T23:59:59Z", 20_777), ("2027-06-01T00:00:00Z", 20_779)])
def test_an_event_is_of_its_own_day_but_never_of_the_future(
    event: Callable[..., dict[str, Any]], timestamp: str, day: int
) -> None:
    intake = Intake(TelemetryRegistry.with_core(), accept_private=False)
    judged = intake.judge(json.dumps(event(timestamp=timestamp)).encode(), 20_779 * 86_400 + 5.5)
    assert isinstance(judged, Record)
    assert (judged.day, judged.received) == (day, 20_779 * 86_400 + 5)


def test_a_body_of_any_version_of_an_event_is_taken() -> None:
    """It does not say which one it is of; the latest that it fits counts, and a fault is told as the latest has it."""
    registry = TelemetryRegistry()
    registry.register(parse_toml("""
[meta]
name = "acme.app"
[[events]]
name = "paid"
version = 1
semantics = { what = "A payment" }
properties.cents = { type = "count", level = "minimal" }
[[events]]
name = "paid"
version = 2
semantics = { what = "A payment" }
properties.euros = { type = "count", level = "minimal" }
""", "x"), "x")  # fmt: skip
    intake = Intake(registry, accept_private=False)
    base = {"event": "paid", "spec": "acme.app@1", "level": "standard", "timestamp": "2026-11-20T23:59:59Z",
            "anonymous_install_id": str(uuid.UUID(int=7)), "event_id": str(uuid.UUID(int=8))}  # fmt: skip
    for own in ({"cents": 5}, {"euros": 5}, {}):
        judged = intake.judge(json.dumps({**base, **own}).encode(), 1e9)
        assert isinstance(judged, Record), own
        assert json.loads(judged.body).items() >= own.items()
    judged = intake.judge(json.dumps({**base, "cents": 5, "euros": 5}).encode(), 1e9)
    assert isinstance(judged, Refusal)
    assert (judged.reason, judged.detail) == ("invalid", "Object contains unknown field `cents`")


def test_no_line_breaks_the_intake() -> None:
    intake = Intake(TelemetryRegistry.with_core(), accept_private=False)

    @given(
        st.binary() | st.text().map(str.encode) | st.binary().map(lambda tail: b'{"event":"command_completed",' + tail)
    )
    def check(line: bytes) -> None:
        assert isinstance(intake.judge(line, 1e9), Record | Refusal)

    check()
