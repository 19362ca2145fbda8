"""A new plugin of each kind installs and passes unedited; three commands make a reporter that works."""

from __future__ import annotations

import json
import keyword
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
import tomlkit
from click.testing import CliRunner

from cmdorc_telemetry import __version__, discovery
from cmdorc_telemetry.cli import telemetry as group
from cmdorc_telemetry.errors import ConfigError
from cmdorc_telemetry.scaffold import KINDS, Kind, files, folder

from .conftest import DETACHED, Author

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "writing-a-plugin.md"
EVERYTHING = {".gitignore", ".github/workflows/ci.yml", "README.md", "pyproject.toml"}


def three_commands() -> list[str]:
    """Those that the page begins with."""
    block = re.search(r"```\n(cmdorc-telemetry new-plugin .*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    return [line.partition("  #")[0].strip() for line in block[1].splitlines()]


def test_three_commands_make_a_reporter_that_works(newcomer: Author) -> None:
    commands = three_commands()
    assert len(commands) == 3
    start = time.monotonic()
    *_, told = [newcomer(line) for line in commands]
    took = time.monotonic() - start
    print(f"three commands: {took:.1f} s")
    assert re.search(r"\d+ passed", told)
    assert "skipped" not in told
    home = newcomer.folder / "home"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[telemetry]\nplugins = ["jot"]\n[telemetry.to.jot]\npath = "{newcomer.folder}/jot.db"\n'
    )
    newcomer("cmdorc-telemetry opt-in --yes")
    newcomer("python -c 'import asyncio; from cmdorc_telemetry.testing import run; "
           'asyncio.run(run({"Tests": ("true", ["go"])}, "go"))\'')  # fmt: skip
    assert re.search(r"jot: recorded (\d+) = acknowledged \1 \+ pending 0", newcomer("cmdorc-telemetry flush"))
    rows = 'import sqlite3; print(*sqlite3.connect("jot.db").execute("SELECT name FROM event ORDER BY 1"))'
    assert "command_completed" in newcomer(f"python -c '{rows}'")


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_passes_unedited(author: Author, kind: Kind) -> None:
    name = f"some-{kind}-2"
    shown = author(f"cmdorc-telemetry new-plugin {name} --kind {kind}")
    root = author.folder / f"cmdorc-telemetry-{name}"
    assert f"./cmdorc-telemetry-{name}[test]" in shown
    told = [author(line, where=root) for line in in_ci(root)]
    assert re.search(r"\d+ passed", told[-1])
    assert f"\n{name}  not enabled  cmdorc-telemetry-{name} 0.1.0\n" in author("cmdorc-telemetry plugins")
    as_its_readme_says(author, root, name)
    assert "is the name of" in author(f"cmdorc-telemetry new-plugin {name} -o {author.folder.parent} 2>&1", code=2)
    author("python -m hatchling build --target wheel", where=root)
    author(f"pip uninstall -y cmdorc-telemetry-{name}")
    author("pip install --no-deps dist/*.whl", where=root)
    assert re.search(r"\d+ passed", author("pytest -p no:cacheprovider --import-mode=importlib tests", where=root))
    author(f"pip uninstall -y cmdorc-telemetry-{name}")


def in_ci(root: Path) -> list[str]:
    """What CI runs."""
    return re.findall(r"- run: (.*)", (root / ".github" / "workflows" / "ci.yml").read_text())


def as_its_readme_says(author: Author, root: Path, name: str) -> None:
    """It is enabled, its settings are read, and they are those of the README, with those defaults."""
    readme = (root / "README.md").read_text()
    author(next(line for line in readme.splitlines() if line.startswith("cmdorc-telemetry enable")))
    config = author.folder / "home" / "config.toml"
    assert f'plugins = ["{name}"]' in config.read_text()
    for block in re.findall(r"```toml\n(.*?)```", readme, re.DOTALL):
        config.write_text(block)
    (found,) = (each for each in json.loads(author("cmdorc-telemetry plugins --json")) if each["name"] == name)
    assert (found["state"], found["error"]) == ("enabled", "")
    settings = found["settings"] + [each for to in found["destinations"] for each in to["settings"]]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", readme, re.MULTILINE)
    assert [each["name"] for each in settings] == [key for key, _ in rows]
    config.write_text(f'[telemetry]\nplugins = ["{name}"]\n')
    (found,) = (each for each in json.loads(author("cmdorc-telemetry plugins --json")) if each["name"] == name)
    shown = {each["name"]: each["value"] or each["source"].partition(",")[0] for each in found["settings"]}
    assert shown == {key: default.strip("`") for key, default in rows}


@pytest.mark.parametrize("kind", KINDS)
def test_its_ci_file_is_one(kind: Kind, tmp_path: Path) -> None:
    file = tmp_path / "ci.yml"
    file.write_text(files("bell", kind)[".github/workflows/ci.yml"])
    command = [Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    versions = re.findall(r"python: \[(.*)\]", file.read_text())
    about = tomlkit.parse((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]  # type: ignore[index]
    known = [line.rpartition(" ")[2] for line in about if re.search(r"Python :: 3\.\d+$", line)]
    assert versions == [", ".join(f'"{version}"' for version in known)]


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
    "name",
    ["Bell", "2bell", "bell_2", "-bell", "bell-", "a--b", "x" * 31, "", "../bell", "bell ", "bell\n", "glöckchen",
     "bеll", "bell２", "@name@", "/bell"],
)  # fmt: skip
def test_names_that_none_can_have(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"found .*; expected at most 30 small letters"):
        folder(name)
    with pytest.raises(ConfigError):
        files(name, "reporter")
    assert "nothing" not in refused(tmp_path, "--", name)


@pytest.mark.parametrize("name", [*keyword.kwlist, *keyword.softkwlist, "self", "str", "list", "telemetry", "cmdorc"])
def test_words_that_mean_something_in_python_are_names_like_any(name: str) -> None:
    if name.isalpha() and name.islower():
        for kind in KINDS:
            for path, text in files(name, kind).items():
                assert not path.endswith(".py") or compile(text, path, "exec")


def refused(where: Path, *words: str) -> str:
    """What is said of a command that writes nothing."""
    before = sorted(where.rglob("*"))
    done = CliRunner().invoke(group, ["new-plugin", "--output", str(where), *words])
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert sorted(where.rglob("*")) == before
    return done.stderr


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_what_is_there_is_left_alone(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "cmdorc-telemetry-bell")
    assert "is there already; nothing was written; expected another name" in refused(tmp_path, "bell")


@pytest.mark.parametrize(
    ("name", "whose"),
    [("http", "cmdorc-telemetry-http"), ("server", "cmdorc-telemetry-server"),
     ("telemetry", "something that is built in"), ("history", "something that is built in"),
     ("detector-x", "something that is built in")],
    ids=["plugin", "distribution", "telemetry", "history", "detector"],
)  # fmt: skip
def test_the_name_of_something_that_is_there_is_no_other_s(name: str, whose: str, tmp_path: Path) -> None:
    assert f"{name!r} is the name of {whose}; expected another name" in refused(tmp_path, name)


def test_a_plugin_of_this_project_that_is_not_installed_here_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "distribution", _not_found)
    monkeypatch.setattr(discovery, "installed", list)
    assert "'otlp' is the name of cmdorc-telemetry-otlp; expected another name" in refused(tmp_path, "otlp")


def test_a_plugin_of_somebody_else_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "site" / "glow_worm-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: glow-worm\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[cmdorc_telemetry]\nglow = glow\n")
    monkeypatch.syspath_prepend(info.parent)
    assert "'glow' is the name of glow-worm; expected another name" in refused(tmp_path, "glow")


def _not_found(name: str) -> None:
    raise metadata.PackageNotFoundError(name)


def test_the_name_is_that_of_the_plugin_alone(tmp_path: Path) -> None:
    said = refused(tmp_path, "cmdorc-telemetry-bell")
    assert "found 'cmdorc-telemetry-bell'; expected bell: the rest is added" in said


def test_a_folder_that_cannot_be_written_to_is_named() -> None:
    done = CliRunner().invoke(group, ["new-plugin", "--output", "/proc", "bell"])
    assert done.stderr == "error: /proc/cmdorc-telemetry-bell cannot be made: No such file or directory\n"
    assert done.exit_code == 1


def test_nothing_is_written_by_halves(tmp_path: Path) -> None:
    limited = ["bash", "-c", f"ulimit -f 1; trap '' XFSZ; exec {sys.executable} -m cmdorc_telemetry new-plugin bell"]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(DETACHED)}  # who measures writes, too
    environ = {**kept, "PYTHONDONTWRITEBYTECODE": "1"}  # half of it would be left, where others find it
    done = subprocess.run(limited, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "File too large" in done.stderr
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
