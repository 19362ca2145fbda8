"""Which settings are taken, and what the refusal of others says. Addresses have tests of their own."""

from __future__ import annotations

import pytest

from cmdorc_telemetry.decoding import decode
from cmdorc_telemetry.errors import ConfigError
from cmdorc_telemetry_http import HttpReporter


def test_settings_that_are_taken() -> None:
    for endpoint in ("https://t.example/v1/", "http://127.0.0.1:8080/v1"):
        assert HttpReporter.Settings(endpoint=endpoint).endpoint == endpoint


def test_addresses_that_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^endpoint: found 'http://t\.example/v1'; expected https://"):
        HttpReporter.Settings(endpoint="http://t.example/v1")
    with pytest.raises(ValueError, match="expected none: use the key 'token'"):
        HttpReporter.Settings(endpoint="https://anna:hunter2@t.example/v1")


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
