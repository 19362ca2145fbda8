"""The distributions as a user gets them: metadata, contents of the wheels, an environment made of nothing else."""

from __future__ import annotations

import re
import subprocess
import zipfile
from email import message_from_bytes
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import cmdorc_telemetry

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = sorted(file.parent for file in ROOT.glob("plugins/*/pyproject.toml"))
PROJECTS = [ROOT, *PLUGINS]
SCRIPTS = {
    "cmdorc-telemetry": "cmdorc-telemetry",
    "cmdorc-telemetry-server": "cmdorc-telemetry-server",
    "cmdorc-cli": "cmdorc",
}
"""The distributions that are programs. Every other one is a plugin that the core finds by its entry point."""

each_project = pytest.mark.parametrize("project", PROJECTS, ids=lambda project: settings(project)["project"]["name"])


def settings(project: Path) -> dict[str, Any]:
    return tomlkit.parse((project / "pyproject.toml").read_text(encoding="utf-8")).unwrap()


def package(project: Path) -> Path:
    """The one import package of a distribution."""
    (found,) = project.glob("cmdorc_*/")
    return found


def sources(project: Path) -> set[str]:
    files = (file for file in package(project).rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return {file.relative_to(project).as_posix() for file in files}


@each_project
def test_metadata_is_alike_in_all_distributions(project: Path) -> None:
    core, own = settings(ROOT)["project"], settings(project)
    assert own["project"]["version"] == cmdorc_telemetry.__version__
    for key in ("requires-python", "license", "authors", "readme"):
        assert own["project"][key] == core[key], key
    assert own["project"]["license"] == "MIT"
    assert own["project"]["description"]
    assert own["build-system"] == settings(ROOT)["build-system"]
    assert (project / "README.md").read_text(encoding="utf-8").startswith(f"# {own['project']['name']}\n")
    assert (package(project) / "py.typed").is_file()


@pytest.mark.parametrize("project", PLUGINS, ids=lambda project: project.name)
def test_a_plugin_is_named_after_its_folder_and_needs_the_core(project: Path) -> None:
    own = settings(project)["project"]
    assert own["name"] == project.name
    assert package(project).name == project.name.replace("-", "_")
    assert "cmdorc-telemetry" in {Requirement(line).name for line in own["dependencies"]}


@each_project
def test_its_entry_point_or_script_is_right_and_loads(project: Path) -> None:
    name = settings(project)["project"]["name"]
    found = {(point.group, point.name): point for point in metadata.distribution(name).entry_points}
    if name in SCRIPTS:
        point = found["console_scripts", SCRIPTS[name]]
        assert callable(point.load())
    else:
        point = found["cmdorc_telemetry", name.removeprefix("cmdorc-telemetry-")]
        assert any(hasattr(thing, "cmdorc_telemetry_impl") for thing in vars(point.load()).values())
    assert point.module.split(".")[0] == package(project).name


@each_project
def test_its_wheel_holds_the_import_package_and_nothing_else(project: Path, wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels["." if project == ROOT else project.name]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        (about,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        fields = message_from_bytes(wheel.read(about))
    assert names == sources(project)
    assert f"{package(project).name}/py.typed" in names
    assert fields["Version"] == cmdorc_telemetry.__version__
    assert fields["License-Expression"] == "MIT"
    assert fields["Description-Content-Type"] == "text/markdown"


def test_the_wheel_of_the_core_brings_its_data(wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels["."]) as wheel:
        assert "cmdorc_telemetry/spec/core.telemetry.toml" in wheel.namelist()
        assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist())


def test_the_wheels_work_without_the_checkout(wheel_env: Path, tmp_path: Path) -> None:
    def run(program: str, *arguments: str) -> str:
        command = [str(wheel_env / "bin" / program), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    for program in SCRIPTS.values():
        assert "Usage:" in run(program, "--help") or "usage:" in run(program, "--help")
    names = [package(project).name for project in PROJECTS]
    listing = "from importlib.metadata import entry_points\n"
    listing += "for point in entry_points(group='cmdorc_telemetry'): point.load()\n"
    listing += f"import sys, {', '.join(names)}\n"
    listing += "print(*{m.__file__ for m in list(sys.modules.values()) if getattr(m, '__file__', None)}, sep='\\n')\n"
    files = run("python", "-c", listing).splitlines()
    assert not [file for file in files if Path(file).is_relative_to(ROOT)]
    for name in names:
        assert any(Path(file).match(f"site-packages/{name}/__init__.py") for file in files), name


def test_every_distribution_is_under_the_import_contracts() -> None:
    linter = settings(ROOT)["tool"]["importlinter"]
    (contract,) = (one for one in linter["contracts"] if one["name"].startswith("The core knows no plugin"))
    packages = sorted(package(project).name for project in PLUGINS)
    assert sorted(linter["root_packages"]) == sorted([*packages, "cmdorc_telemetry"])
    assert contract["layers"] == [" | ".join(packages), "cmdorc_telemetry"]


def test_the_constraints_pin_every_requirement_and_name_no_place() -> None:
    lines = (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[a-z0-9-]+==[\w.!+]+( ; [^/@]+)?", line)] == []
    lists = [file.read_text(encoding="utf-8") for file in ROOT.glob(".ci/requirements*.txt")]
    wanted = [line.partition("#")[0].strip() for text in lists for line in text.splitlines()]
    for project in PROJECTS:
        own = settings(project)["project"]
        wanted += own.get("dependencies", [])
        wanted += [line for lines in own.get("optional-dependencies", {}).values() for line in lines]
    names = {canonicalize_name(Requirement(line).name) for line in wanted if line}
    ours = {settings(project)["project"]["name"] for project in PROJECTS}
    assert names - ours - {line.partition("==")[0] for line in pins} == set()


def test_every_line_excluded_from_coverage_says_why() -> None:
    pragma = re.compile(r"#\s*pragma:?\s*no\s*(cover|branch)(?! - \w)", re.IGNORECASE)
    for file in (ROOT / "cmdorc_telemetry").rglob("*.py"):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            assert not pragma.search(line), f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
