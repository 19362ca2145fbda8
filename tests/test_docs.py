"""Of all pages together: links lead somewhere, commands exist, configurations are accepted, no module is left out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cmdorc_telemetry.cli import telemetry

from .pages import ROOT, blocks, page

PAGES = sorted(str(path.relative_to(ROOT)) for pattern in ("*.md", "docs/*.md", "plugins/*/README.md")
               for path in ROOT.glob(pattern))  # fmt: skip
CONFIGURATIONS = [
    pytest.param(path, block, id=f"{path}-{number}") for path in PAGES
    for number, block in enumerate(filter(re.compile(r"(#.*\n)?\[telemetry").match, blocks(page(path), "toml")))
]  # fmt: skip
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")


def anchors(text: str) -> set[str]:
    """Those that a page's headings have."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES)
def test_every_link_leads_somewhere(path: str) -> None:
    for target, anchor in LINK.findall(page(path)):
        found = (ROOT / path).parent / target if target else ROOT / path
        assert found.exists(), target
        assert not anchor or anchor in anchors(found.read_text(encoding="utf-8")), f"{target}#{anchor}"


@pytest.mark.parametrize("path", PAGES)
def test_every_command_of_telemetry_that_is_shown_exists(path: str) -> None:
    for line in re.findall(r"(?:\n|`)cmdorc[ -]telemetry ([a-z][^`#|\n]*)", page(path)):
        command: click.Command = telemetry
        words = line.split()
        while words and isinstance(command, click.Group) and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        assert command is not telemetry, line
        known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
        assert {word for word in words if re.match(r"--\w", word)} <= known or command.name == "exec", line


@pytest.mark.parametrize(("path", "block"), CONFIGURATIONS)
def test_every_configuration_is_accepted(path: str, block: str, tmp_path: Path) -> None:
    for spec in ("acme.telemetry.toml", "checks.telemetry.toml"):
        (tmp_path / spec).write_text('[meta]\nname = "acme"\n')
    text = block.replace("…", "key").replace(', "bell"', "")  # a key that is left out; a plugin that is not installed
    if "plugins = " not in text:
        name = path.partition("/cmdorc-telemetry-")[2].partition("/")[0]
        text = f'[telemetry]\nplugins = ["{name or "http"}"]\n' + text.removeprefix("[telemetry]\n")
    (tmp_path / "config.toml").write_text(text)
    done = CliRunner().invoke(telemetry, ["plugins", "--json"], env={"CMDORC_HOME": str(tmp_path), "TEAM_TOKEN": "key"})
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert {each["name"] for each in shown if each["state"] == "enabled"} == set(re.findall(r'"([a-z]+)"', named(text)))
    assert [to["error"] for each in shown for to in each["destinations"] if to["error"]] == []
    assert [each["error"] for each in shown if each["error"]] == []


def named(text: str) -> str:
    """What stands behind ``plugins = ``."""
    return text.partition("plugins = ")[2].partition("]")[0]


def test_every_module_is_in_the_table() -> None:
    table = page("docs/architecture.md").partition("\n## Where things are\n")[2].partition("\n## ")[0]
    told = re.findall(r"`(\w+)(?:\.py|/|`)", table)
    modules = {path.stem for path in (ROOT / "cmdorc_telemetry").iterdir() if path.suffix in {".py", ""}}
    assert modules - {"__init__", "__pycache__"} - set(told) == set()
