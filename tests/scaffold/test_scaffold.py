"""A new plugin of each kind installs and passes unedited; three commands make a reporter that works."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from cmdorc_telemetry import __version__
from cmdorc_telemetry.cli import telemetry as group
from cmdorc_telemetry.errors import ConfigError
from cmdorc_telemetry.scaffold import KINDS, Kind, files, folder

from .conftest import Author

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "writing-a-plugin.md"
EVERYTHING = {".gitignore", ".github/workflows/ci.yml", "README.md", "pyproject.toml"}


def three_commands() -> list[str]:
    """Those that the page begins with."""
    block = re.search(r"```\n(cmdorc-telemetry new-plugin .*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    return [line.partition("  #")[0].strip() for line in block[1].splitlines()]


@pytest.mark.timeout(200)
@pytest.mark.xdist_group("author")
def test_three_commands_make_a_reporter_that_works(author: Author) -> None:
    commands = three_commands()
    assert len(commands) == 3
    start = time.monotonic()
    *_, told = [author(line) for line in commands]
    took = time.monotonic() - start
    print(f"three commands: {took:.1f} s")
    assert re.search(r"\d+ passed", told)
    assert "skipped" not in told
    home = author.folder / "home"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[telemetry]\nplugins = ["jot"]\n[telemetry.to.jot]\npath = "{author.folder}/jot.db"\n'
    )
    author("cmdorc-telemetry opt-in --yes")
    author("python -c 'import asyncio; from cmdorc_telemetry.testing import run; "
           'asyncio.run(run({"Tests": ("true", ["go"])}, "go"))\'')  # fmt: skip
    assert re.search(r"jot: recorded (\d+) = acknowledged \1 \+ pending 0", author("cmdorc-telemetry flush"))
    rows = 'import sqlite3; print(*sqlite3.connect("jot.db").execute("SELECT name FROM event ORDER BY 1"))'
    assert "command_completed" in author(f"python -c '{rows}'")


@pytest.mark.timeout(200)
@pytest.mark.xdist_group("author")
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_passes_unedited(author: Author, kind: Kind) -> None:
    name = f"some-{kind}-2"
    shown = author(f"cmdorc-telemetry new-plugin {name} --kind {kind}")
    root = author.folder / f"cmdorc-telemetry-{name}"
    assert f"./cmdorc-telemetry-{name}[test]" in shown
    author(f"pip install -e '{root}[test]'")
    assert re.search(r"\d+ passed", author("pytest -p no:cacheprovider", where=root))
    author("mypy --cache-dir .mypy_cache", where=root)
    author("ruff check --no-cache && ruff format --no-cache --check", where=root)
    assert f"\n{name}  not enabled  cmdorc-telemetry-{name} 0.1.0\n" in author("cmdorc-telemetry plugins")
    author(f"cmdorc-telemetry enable {name} && cmdorc-telemetry plugins | grep -q '^{name}  enabled'")
    assert "is the name of" in bash_error(author, f"cmdorc-telemetry new-plugin {name} --output {author.folder.parent}")
    author("python -m hatchling build --target wheel", where=root)
    author(f"pip uninstall -y cmdorc-telemetry-{name}")
    author("pip install --no-deps dist/*.whl", where=root)
    assert re.search(r"\d+ passed", author("pytest -p no:cacheprovider --import-mode=importlib tests", where=root))
    author(f"pip uninstall -y cmdorc-telemetry-{name}")


def bash_error(author: Author, line: str) -> str:
    return author(f"{line} 2>&1", code=2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_distribution_has_all_that_it_should(kind: Kind) -> None:
    made = files("bell-2", kind)
    package = "cmdorc_telemetry_bell_2"
    assert made.keys() >= {*EVERYTHING, f"{package}/__init__.py", f"{package}/plugin.py", f"{package}/py.typed",
                           f"tests/test_{package}.py"}  # fmt: skip
    assert made["README.md"].startswith("# cmdorc-telemetry-bell-2\n")
    assert f'dependencies = ["cmdorc-telemetry>={__version__},<' in made["pyproject.toml"]
    assert not [path for path, text in made.items() if re.search(r"@\w+@", path + text)]


@pytest.mark.parametrize("name", ["a", "x" * 30, "one-two-three"])
def test_whatever_it_is_called_it_is_well_formatted(name: str, tmp_path: Path) -> None:
    for kind in KINDS:
        for path, text in files(name, kind).items():
            place = tmp_path / kind / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        for command in (["format", "--check"], ["check"]):
            done = subprocess.run([Path(sys.executable).with_name("ruff"), *command, "--no-cache"], cwd=tmp_path / kind,
                                  capture_output=True, text=True, check=False)  # fmt: skip
            assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "name", ["Bell", "2bell", "bell_2", "-bell", "bell-", "a--b", "x" * 31, "", "../bell", "bell "]
)
def test_names_that_none_can_have(name: str) -> None:
    with pytest.raises(ConfigError, match=r"found .*; expected at most 30 small letters"):
        folder(name)
    with pytest.raises(ConfigError):
        files(name, "reporter")


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "cmdorc-telemetry-bell").mkdir()
    done = CliRunner().invoke(group, ["new-plugin", "bell", "--output", str(tmp_path)])
    assert done.exit_code == 2
    assert "is there already; nothing was written; expected another name" in done.stderr
    assert list((tmp_path / "cmdorc-telemetry-bell").iterdir()) == []


def test_the_name_of_a_plugin_that_is_there_is_no_other_s(tmp_path: Path) -> None:
    done = CliRunner().invoke(group, ["new-plugin", "http", "--output", str(tmp_path)])
    assert done.exit_code == 2
    assert "'http' is the name of cmdorc-telemetry-http" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_where_it_was_made_and_what_comes_next(tmp_path: Path) -> None:
    done = CliRunner().invoke(group, ["new-plugin", "bell", "--kind", "lifecycle", "--output", str(tmp_path)])
    assert done.exit_code == 0
    root = tmp_path / "cmdorc-telemetry-bell"
    assert done.stdout == (
        f"{root} has {len(files('bell', 'lifecycle'))} files. To install it, and to see it keep every promise of its "
        f"kind:\n  pip install -e '{root}[test]'\n  pytest {root}\n"
    )
    assert {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()} == set(
        files("bell", "lifecycle")
    )
