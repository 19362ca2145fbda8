"""One tree of errors, drawn in the module's docstring; a message says what is wrong, where, and what is right."""

from __future__ import annotations

import inspect
import re

import pytest

from cmdorc_telemetry import errors
from cmdorc_telemetry.errors import ConfigError, RetryLater, SpecError, TelemetryError, nearest


def test_the_tree_is_as_drawn() -> None:
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    ([│├└─ ]*)(\w+)", line):
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            drawn[found[2]] = path[depth - 1] if depth else "Exception"
    classes = {
        name: value for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)
    }
    assert drawn == {name: value.__bases__[0].__name__ for name, value in classes.items()}
    assert issubclass(ConfigError, ValueError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("f.toml", "a.b", "found 5", "a name"), "f.toml: a.b: found 5; expected a name"),
        (("f.toml", "", "cannot be read"), "f.toml: cannot be read"),
        (("", "key", "unknown key"), "key: unknown key"),
    ],
)
def test_a_message_names_where_key_found_and_expected(arguments: tuple[str, ...], message: str) -> None:
    assert str(ConfigError(*arguments)) == message
    assert str(SpecError(*arguments, nearest="name")) == f"{message}. Did you mean 'name'?"


def test_a_pause_is_in_seconds_or_unsaid() -> None:
    assert RetryLater("busy").after is None
    assert RetryLater("busy", 2.5).after == 2.5
    assert str(RetryLater("busy", 2.5)) == "busy"
    assert isinstance(RetryLater("busy"), TelemetryError)


def test_the_nearest_word_is_similar_or_none() -> None:
    assert nearest("standart", ["minimal", "standard"]) == "standard"
    assert nearest("xyz", iter(["minimal", "standard"])) is None
    assert nearest("xyz", []) is None


def test_what_a_log_may_say_of_somebody_elses_exception() -> None:
    try:
        raise ValueError("the name of a command")
    except ValueError as raised:
        fault = raised
    assert re.fullmatch(r"ValueError at test_errors\.py:\d+", errors.told(fault))
    assert errors.told(KeyError("never raised")) == "KeyError"
    assert errors.told(ValueError("a name"), ours=True) == "ValueError"
    assert errors.told(errors.StorageError("the disk is full"), ours=True) == "the disk is full"
    assert errors.told(RetryLater("what a server said")) == "RetryLater"
