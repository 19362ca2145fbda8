"""Tables that a person wrote → checked Structs, with errors that name file, key, found, expected and nearest.

What is ``Secret`` is named by its kind alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Annotated, Any, TypeVar

import msgspec

from .errors import ConfigError, kind, nearest

T = TypeVar("T")

Secret = Annotated[T, msgspec.Meta(extra={"secret": True})]
"""The type of a setting that nobody is shown, such as ``token: Secret[str]``: no output and no error repeats it."""
_CALLED = ("token", "key", "secret", "password", "header", "dsn", "webhook")
"""What is in the name of a setting that is secret, whether its author says so or not."""

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


def unreadable(type_: Any) -> str | None:
    """Why nothing could ever be read into that type; None where something can.

    From here on it is complete: two threads that were the first to use it at the same time would crash msgspec (0.22).
    """
    try:
        msgspec.json.Decoder(type_)
    except Exception as fault:
        return f"{type(fault).__name__}: {fault}"
    return None


def secrets(type_: Any) -> frozenset[str]:
    """The keys of a Struct of settings whose values nobody is shown."""
    fields = _struct_fields(msgspec.inspect.type_info(type_))
    names = (each.encode_name for each in fields if _is_secret(each.type) or is_called_secret(each.encode_name))
    return frozenset(names)


def is_called_secret(key: str) -> bool:
    """Whether a setting is secret by its name."""
    return any(word in key.lower() for word in _CALLED)


def _explain(message: str, data: Any, type_: Any, where: object, key: str, error: type[ConfigError]) -> ConfigError:
    at = _AT.search(message)
    text = message[: at.start()] if at else message
    value, info = data, msgspec.inspect.type_info(type_)
    trail: list[str | int] = []
    secret, settings = False, error is ConfigError  # a spec has names of all kinds, and no secrets
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
        secret = secret or _is_secret(info) or (settings and is_called_secret(str(trail[-1])))
    shown = kind(value) if secret else _show(value)
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
        return error(where, key, f"found {shown}", "one of " + ", ".join(members), nearest=close)
    if expected := _EXPECTED.match(text):
        types = expected["types"]
        for theirs, ours in _WORDS:
            types = types.replace(theirs, ours)
        return error(where, key, f"found {shown}", types + expected["bounds"])
    if text == "Invalid RFC3339 encoded date":
        return error(where, key, f"found {shown}", "a date, such as 2030-12-31")
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


def _kinds(info: Any) -> Iterator[Any]:
    """The types that a value may be of."""
    if isinstance(info, msgspec.inspect.Metadata):
        yield from _kinds(info.type)
    elif isinstance(info, msgspec.inspect.UnionType):
        for each in info.types:
            yield from _kinds(each)
    else:
        yield info


def _is_secret(info: Any) -> bool:
    if isinstance(info, msgspec.inspect.UnionType):
        return any(map(_is_secret, info.types))
    return isinstance(info, msgspec.inspect.Metadata) and bool((info.extra or {}).get("secret"))


def _struct_fields(info: Any) -> tuple[Any, ...]:
    return next((each.fields for each in _kinds(info) if isinstance(each, msgspec.inspect.StructType)), ())


def _fields(info: Any) -> list[str]:
    return [field.encode_name for field in _struct_fields(info)]


def _field(info: Any, name: str) -> Any:
    return next((field.type for field in _struct_fields(info) if field.encode_name == name), msgspec.inspect.AnyType())


def _inner(info: Any) -> Any:
    attributes = ("item_type", "value_type")
    inner = (getattr(each, name) for each in _kinds(info) for name in attributes if hasattr(each, name))
    return next(inner, msgspec.inspect.AnyType())


def _members(info: Any) -> list[str]:
    kinds = (each for each in _kinds(info) if isinstance(each, msgspec.inspect.LiteralType))
    return [str(value) for each in kinds for value in each.values]


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
