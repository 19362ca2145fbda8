"""Answers from a file: a TOML table in the shape of a spec, with the wizard's defaults for what it leaves out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import SpecError, nearest
from .script import Answers, script

_LEAF = re.compile(r"config\.providers\.\d+\.config")
_BY_NAME = re.compile(r"events\.\d+\.properties")
_OPTIONAL = re.compile(r"events\.\d+\.anomaly_detection")
_NUMBER = re.compile(r"\.(\d+)(?=\.|$)")


def completed(answers: Mapping[str, Any], where: object) -> dict[str, Any]:
    """``answers`` as the script keeps them, complete. Raises SpecError for what is wrong in them."""
    given: dict[str, Any] = {}
    left = dict(_flat(answers, ""))
    for question in script(given):
        answer = left.pop(question.path, False if question.path.endswith(".more") else question.default)
        if fault := question.fault(answer):
            raise SpecError(where, _shown(question.path, given), fault)
        given[question.path] = answer
    path = next((path for path in left if not path.endswith(".more")), None)
    if path is not None:
        key = path.rpartition(".")[2]
        close = nearest(key, {each.rpartition(".")[2] for each in given} - {key, "more"})
        raise SpecError(
            where, _shown(path, {**left, **given}), "is no answer to any question that these answers lead to",
            "a key that the wizard asks for", nearest=close,
        )  # fmt: skip
    return given


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """What a value of a file says: path → answer. That a list goes on is said by the list."""
    if isinstance(value, Mapping) and not _LEAF.fullmatch(path):
        if _OPTIONAL.fullmatch(path):
            value = {"enabled": True, **value}
        if _BY_NAME.fullmatch(path):
            yield from _listed([({"name": name}, each) for name, each in value.items()], path)
            return
        for key, each in value.items():
            yield from _flat(each, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
        yield from _listed([({}, each) for each in value], path)
    else:
        yield path, value


def _listed(entries: list[tuple[dict[str, Any], Any]], path: str) -> Iterator[tuple[str, Any]]:
    for number, (more, each) in enumerate(entries):
        yield f"{path}.{number}.more", True
        yield from _flat({**more, **each} if isinstance(each, Mapping) else each, f"{path}.{number}")


def _shown(path: str, given: Answers) -> str:
    """A path as the file has it: properties by their names, what else is in a list by its number."""
    found = re.match(r"(events\.\d+\.properties)\.(\d+)(.*)", path)
    name = given.get(f"{found[1]}.{found[2]}.name") if found else None
    if found and name is not None:
        return f"{_numbered(found[1])}.{name}{_numbered(found[3])}"
    return _numbered(path)


def _numbered(path: str) -> str:
    return _NUMBER.sub(r"[\1]", path)
