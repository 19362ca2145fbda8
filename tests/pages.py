"""What pages show, as their tests need it: blocks of code, examples that are installed, tables of records."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import get_args, get_origin

import tomlkit

ROOT = Path(__file__).parents[1]
EntryPoints = Mapping[str, Mapping[str, str]]
"""Group → name → value."""
_DEFAULTS = {"field(default_factory=dict)": "{}", "MappingProxyType({})": "{}"}


def page(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def blocks(text: str, kind: str) -> list[str]:
    """The blocks of a kind, in their order."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def example(text: str, file: str) -> str:
    """The one block whose first line says that it is ``file``."""
    (found,) = (block for block in blocks(text, r"\w+") if re.match(rf"# {re.escape(file)}\b", block))
    return found


def entry_points(toml: str) -> EntryPoints:
    """Those of a ``pyproject.toml``."""
    points: EntryPoints = tomlkit.parse(toml).unwrap()["project"]["entry-points"]
    return points


def install(site: Path, files: Mapping[str, str], points: EntryPoints, name: str) -> None:
    """A distribution as an installer leaves it: modules and metadata."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    for path, text in files.items():
        (site / path).write_text(text, encoding="utf-8")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"[{group}]\n{name} = {value}\n" for group, each in points.items() for name, value in each.items()]
    (info / "entry_points.txt").write_text("".join(lines))


def record_table(class_: type) -> str:
    """The fields of a record as a page shows them: name, type and default, what it is. All of it from the code."""
    rows = ["| field | type | what it is |", "|---|---|---|"]
    body = ast.parse(inspect.getsource(class_)).body[0]
    assert isinstance(body, ast.ClassDef)
    for line, following in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            assert isinstance(following, ast.Expr), f"{class_.__name__}.{line.target.id} has no docstring"
            words = " ".join(str(ast.literal_eval(following.value)).split()).replace("``", "`")
            rows.append(f"| `{line.target.id}` | `{_type(class_, line)}` | {words} |")
    return "\n".join(rows)


def _type(class_: type, line: ast.AnnAssign) -> str:
    """As it stands in the code; a name for some words is the words."""
    text = ast.unparse(line.annotation)
    meant = vars(sys.modules[class_.__module__]).get(text.partition(" ")[0])
    if get_origin(meant) is not None:
        text = text.replace(text.partition(" ")[0], f"Literal{list(get_args(meant))}")
    if line.value is not None:
        default = ast.unparse(line.value)
        text += f" = {_DEFAULTS.get(default, default)}"
    return text.replace("'", '"').replace("|", r"\|")
