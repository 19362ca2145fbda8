"""Which settings are taken, and what the refusal of others says."""

from __future__ import annotations

import pytest

from cmdorc_telemetry.decoding import decode
from cmdorc_telemetry.errors import ConfigError
from cmdorc_telemetry.http.endpoint import is_loopback
from cmdorc_telemetry_http import HttpReporter


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
    assert HttpReporter.Settings(endpoint=endpoint).endpoint == endpoint


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
    with pytest.raises(ValueError, match="endpoint: found ") as failure:
        HttpReporter.Settings(endpoint=endpoint)
    before, after = str(failure.value).split("expected")
    assert found in before
    assert expected in after


def test_credentials_are_refused_and_not_repeated() -> None:
    for endpoint in ("https://anna:hunter2@t.example/v1", "http://hunter2@127.0.0.1/v1"):
        with pytest.raises(ValueError, match="expected none: use the key 'token'") as failure:
            HttpReporter.Settings(endpoint=endpoint)
        assert "hunter2" not in str(failure.value)


def test_token() -> None:
    assert HttpReporter.Settings(endpoint="https://t.example", token="s3cret").token == "s3cret"
    for token in ("", "two words", "line\nbreak", "schlüssel"):
        with pytest.raises(ValueError, match=r"token: found .* expected the bare token") as failure:
            HttpReporter.Settings(endpoint="https://t.example", token=token)
        assert not token or token not in str(failure.value)


def test_token_is_not_in_the_representation() -> None:
    assert "s3cret" not in repr(HttpReporter.Settings(endpoint="https://t.example", token="s3cret"))


def test_settings_from_a_file_name_file_and_key() -> None:
    with pytest.raises(ConfigError, match=r"config\.toml.*telemetry\.to\.http.*endpoint: found .*expected https://"):
        decode({"endpoint": "http://t.example"}, HttpReporter.Settings, "config.toml", key="telemetry.to.http")
    with pytest.raises(ConfigError, match="Did you mean 'endpoint'"):
        decode({"endpont": "https://t.example"}, HttpReporter.Settings, "config.toml")
    with pytest.raises(ConfigError, match="has no 'endpoint'"):
        decode({}, HttpReporter.Settings, "config.toml")


def test_loopback() -> None:
    assert is_loopback("127.255.255.254")
    assert not is_loopback("128.0.0.1")
    assert not is_loopback("::")
