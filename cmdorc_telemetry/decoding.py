"""Tables that a person wrote → checked Structs, with errors that name file, key, found, expected and nearest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from .errors import ConfigError, nearest

T = TypeVar("T")

_AT = re.compile(r" - at `\$?(?P<path>[^`]*)`$")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>[^`]*)`")
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]*)`")
_EXPECTED = re.compile(r"Expected (?P<expected>.+?)(?:, got `(?P<got>[^`]+)`)?$")
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


def _explain(message: str, data: object, type_: Any, where: object, key: str, error: type[ConfigError]) -> ConfigError:
    at = _AT.search(message)
    text = message[: at.start()] if at else message
    value, info = data, msgspec.inspect.type_info(type_)
    for step in _STEP.finditer(at["path"] if at else ""):
        if step["any"]:
            return _explain_entry(message, value, info, where, key, error)
        if step["index"] is not None:
            key, value, info = f"{key}[{step['index']}]", _item(value, int(step["index"])), _inner(info)
        else:
            key, value, info = _join(key, step["name"]), _item(value, step["name"]), _field(info, step["name"])
    if unknown := _UNKNOWN.match(text):
        fields = _fields(info)
        return error(
            where, _join(key, unknown["name"]), "unknown key", "one of " + ", ".join(fields),
            nearest=nearest(unknown["name"], fields),
        )  # fmt: skip
    if missing := _MISSING.match(text):
        return error(where, key, f"has no {missing['name']!r}", "that key, which is required")
    if expected := _EXPECTED.match(text):
        return error(where, key, f"found {_show(value)}", expected["expected"].replace("`", ""))
    choice = nearest(value, _members(info)) if isinstance(value, str) else None
    if _members(info):
        return error(where, key, f"found {_show(value)}", "one of " + ", ".join(_members(info)), nearest=choice)
    return error(where, key, text)


def _explain_entry(
    message: str, table: Any, info: Any, where: object, key: str, error: type[ConfigError]
) -> ConfigError:
    """msgspec does not say which key of a mapping is wrong: find the first entry that fails by itself."""
    inner = _inner(info)
    for name, value in table.items():
        try:
            msgspec.convert(value, _plain(inner))
        except msgspec.ValidationError as failure:
            return _explain(str(failure), value, _plain(inner), where, _join(key, str(name)), error)
    return error(where, key, message)


def _plain(info: Any) -> Any:
    """The Python type that a type_info stands for, as far as mappings in this project hold them."""
    return info.cls if isinstance(info, msgspec.inspect.StructType) else Any


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
    if isinstance(value, Mapping):
        return value.get(step)
    if isinstance(value, Sequence) and isinstance(step, int) and step < len(value):
        return value[step]
    return None


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
