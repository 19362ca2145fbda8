"""Tables that a person wrote → checked Structs, with errors that name file, key, found, expected and nearest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Any, TypeVar

import msgspec

from .errors import ConfigError, nearest

T = TypeVar("T")

_AT = re.compile(r" - at (?:`key` in )?`\$?(?P<path>[^`]*)`$")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>[^`]*)`")
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]*)`")
_EXPECTED = re.compile(r"Expected `(?P<types>[^`]+)`(?P<bounds>.*?)(?:, got `[^`]+`)?$")
_WORDS = (("object", "table"), ("array", "list"), (" | null", ""))
"""What msgspec calls a thing, and what a person who writes TOML does; TOML has no null."""
_STEP = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<index>\d+)\]|(?P<any>\[\.\.\.\])")


def decode(data: object, type_: type[T], where: object, *, key: str = "", error: type[ConfigError] = ConfigError) -> T:
    """``data`` (plain dicts, lists and values) as a ``type_``.

    ``where`` names the file for the message, ``key`` the path that ``data`` was found under.
    Raises ``error``.
    """
    try:
        return msgspec.convert(data, type_)
    except msgspec.ValidationError as failure:
        raise _explain(str(failure), data, type_, where, key, error) from None


def _explain(message: str, data: Any, type_: Any, where: object, key: str, error: type[ConfigError]) -> ConfigError:
    at = _AT.search(message)
    text = message[: at.start()] if at else message
    value, info = data, msgspec.inspect.type_info(type_)
    trail: list[str | int] = []
    for step in _STEP.finditer(at["path"] if at else ""):
        if step["index"] is not None:
            trail.append(int(step["index"]))
            key, info = f"{key}[{step['index']}]", _inner(info)
        elif step["any"] is None:
            trail.append(step["name"])
            key, info = _join(key, step["name"]), _field(info, step["name"])
        elif isinstance(value, Mapping) and (found := _culprit(message, data, trail, value, type_)):
            data, name = found
            trail.append(name)
            key, info = _join(key, name), _inner(info)
        else:
            break
        value = _item(value, trail[-1])
    if unknown := _UNKNOWN.match(text):
        fields = _fields(info)
        return error(
            where, _join(key, unknown["name"]), "unknown key", "one of " + ", ".join(fields),
            nearest=nearest(unknown["name"], fields),
        )  # fmt: skip
    if missing := _MISSING.match(text):
        return error(where, key, f"has no {missing['name']!r}", "that key, which is required")
    if members := _members(info):
        close = nearest(value, members) if isinstance(value, str) else None
        return error(where, key, f"found {_show(value)}", "one of " + ", ".join(members), nearest=close)
    if expected := _EXPECTED.match(text):
        types = expected["types"]
        for theirs, ours in _WORDS:
            types = types.replace(theirs, ours)
        return error(where, key, f"found {_show(value)}", types + expected["bounds"])
    if text == "Invalid RFC3339 encoded date":
        return error(where, key, f"found {_show(value)}", "a date, such as 2030-12-31")
    return error(where, key, text)


def _culprit(
    message: str, data: Any, trail: list[str | int], table: Mapping[str, Any], type_: Any
) -> tuple[Any, str] | None:
    """The entry of ``table`` (in ``data``, at ``trail``) that ``message`` is about, and ``data`` with no other there.

    msgspec does not say which entry it means: it is the first one that fails in the same way when it is alone.
    """
    alone = ((_replaced(data, trail, {name: table[name]}), name) for name in table)
    return next((each for each in alone if _failure(each[0], type_) == message), None)


def _failure(data: Any, type_: Any) -> str | None:
    try:
        msgspec.convert(data, type_)
    except msgspec.ValidationError as failure:
        return str(failure)
    return None


def _replaced(data: Any, trail: list[str | int], value: object) -> Any:
    """A copy of ``data`` with ``value`` at ``trail``."""
    if not trail:
        return value
    copy = data.copy()
    copy[trail[0]] = _replaced(data[trail[0]], trail[1:], value)
    return copy


def _struct(info: Any) -> Any:
    if isinstance(info, msgspec.inspect.UnionType):
        return next((kind for kind in info.types if isinstance(kind, msgspec.inspect.StructType)), info.types[0])
    return info


def _fields(info: Any) -> list[str]:
    return [field.encode_name for field in getattr(_struct(info), "fields", ())]


def _field(info: Any, name: str) -> Any:
    for field in getattr(_struct(info), "fields", ()):
        if field.encode_name == name:
            return field.type
    return msgspec.inspect.AnyType()


def _inner(info: Any) -> Any:
    kinds = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
    for kind in kinds:
        for attribute in ("item_type", "value_type"):
            if hasattr(kind, attribute):
                return getattr(kind, attribute)
    return msgspec.inspect.AnyType()


def _members(info: Any) -> list[str]:
    kinds = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
    return [str(value) for kind in kinds if isinstance(kind, msgspec.inspect.LiteralType) for value in kind.values]


def _item(value: Any, step: str | int) -> Any:
    try:
        return value[step]
    except (LookupError, TypeError):  # a name with a dot in it: the message says where, but not what was found
        return None


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _show(value: object) -> str:
    text = value.isoformat() if isinstance(value, date) else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
