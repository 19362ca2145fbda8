"""Which addresses may be sent to, and what the refusal of others says."""

from __future__ import annotations

import pytest

from cmdorc_telemetry.http.endpoint import check_endpoint, check_secret, is_loopback


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://t.example/v1",
        "https://t.example/v1/",
        "https://t.example",
        "https://t.example:8443/a/b",
        "HTTPS://t.example/v1",
        "https://bücher.example/v1",
        "https://[2001:db8::1]/v1",
        "http://localhost:8080/v1",
        "http://127.0.0.1/v1",
        "http://127.1.2.3:80/v1",
        "http://[::1]:8080/v1",
    ],
)
def test_endpoints_that_are_taken(endpoint: str) -> None:
    assert check_endpoint(endpoint, "token") is None


@pytest.mark.parametrize(
    ("endpoint", "found", "expected"),
    [
        ("http://t.example/v1", "'http://t.example/v1'", "https://"),
        ("http://127.0.0.1.evil.example/", "127.0.0.1.evil.example", "https://"),
        ("http://localhost.evil.example/", "localhost.evil.example", "https://"),
        ("http://127.1/v1", "127.1", "https://"),
        ("http://0.0.0.0/v1", "0.0.0.0", "https://"),
        ("http://[::ffff:127.0.0.1]/v1", "::ffff", "https://"),
        ("http://localhost\t.evil.example/v1", "spaces", "https://"),
        ("http://localhost\\@evil.example/v1", "backslashes", "https://"),
        ("ftp://t.example/v1", "'ftp://t.example/v1'", "https://t.example/v1"),
        ("t.example/v1", "'t.example/v1'", "https://t.example/v1"),
        ("https:///v1", "'https:///v1'", "https://t.example/v1"),
        ("https://t.example:99999/v1", "Port", "https://t.example/v1"),
        ("https://bücher..example/v1", "label empty", "https://t.example/v1"),
        ("https://[::1/v1", "IPv6", "https://t.example/v1"),
        ("https://t.example/v1?key=1", "query", "ends with its path"),
        ("https://t.example/v1#top", "fragment", "ends with its path"),
        ("", "empty", "https://"),
    ],
)
def test_endpoints_that_are_refused(endpoint: str, found: str, expected: str) -> None:
    fault = check_endpoint(endpoint, "token")
    assert fault is not None
    assert fault.startswith("endpoint: found ")
    before, after = fault.split("expected")
    assert found in before
    assert expected in after


def test_credentials_are_refused_and_not_repeated() -> None:
    for endpoint in ("https://anna:hunter2@t.example/v1", "http://hunter2@127.0.0.1/v1"):
        fault = check_endpoint(endpoint, "key")
        assert fault == "endpoint: found a user name or password in the address; expected none: use the key 'key'"


def test_secrets() -> None:
    for secret in (None, "s3cret", "a~!"):
        assert check_secret("token", secret) is None
    for secret in ("", "two words", "line\nbreak", "schlüssel"):
        fault = check_secret("token", secret)
        assert fault is not None
        assert fault.startswith("token: found an empty one, or spaces or ")
        assert not secret or secret not in fault


def test_loopback() -> None:
    assert is_loopback("127.255.255.254")
    assert not is_loopback("128.0.0.1")
    assert not is_loopback("::")
