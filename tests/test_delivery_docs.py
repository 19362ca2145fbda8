"""``docs/delivery.md`` names every setting of delivery as it is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from cmdorc_telemetry import bounds
from cmdorc_telemetry.config import Layer, load_layer
from cmdorc_telemetry.sender import LIFE_SECONDS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "delivery.md").read_text(encoding="utf-8")


def declared() -> dict[str, tuple[str, str, str]]:
    """Every bound → its default, the unit that its name ends with, and the sentences that document it."""
    (found,) = (node for node in ast.parse(Path(bounds.__file__).read_text(encoding="utf-8")).body
                if isinstance(node, ast.ClassDef))  # fmt: skip
    lines = found.body[1:]
    units = {"kib": "KiB", "mib": "MiB"}
    rows = {}
    for field, text in zip(lines[::2], lines[1::2], strict=True):
        assert isinstance(field, ast.AnnAssign)
        assert isinstance(field.target, ast.Name)
        assert isinstance(text, ast.Expr)
        name, unit = field.target.id, field.target.id.rpartition("_")[2]
        default = getattr(bounds.DEFAULT, name)
        rows[name] = (str(default), units.get(unit, unit), " ".join(str(ast.literal_eval(text.value)).split()))
    return rows


def test_the_table_has_every_bound_as_the_code_has_it() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (\S+) \| (.*) \|$", PAGE, re.MULTILINE)
    assert {name: tuple(rest) for name, *rest in rows} == declared()
    assert tuple(name for name, *_ in rows) == bounds.NAMES


def test_the_example_is_what_it_says(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "config.toml"
    path.write_text(example)
    layer = load_layer(path)
    assert (layer.sync, layer.background) == (Layer().sync, Layer().background) == (False, False)
    assert layer.bounds == bounds.DEFAULT._replace(keep_days=7)


def test_the_sender_lives_as_long_as_the_page_says() -> None:
    assert f"after {LIFE_SECONDS:g} s the kernel ends it" in PAGE
