"""What tests of the whole repository share: skips are failures in CI; a home; the built wheels, installed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from cmdorc_telemetry.home import Home

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / ".ci" / "constraints.txt"


# Under nohup, or behind a shell's &, these are ignored, and so they would be by every child.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
FOR_WANT_OF = ("no Chromium", "no Prometheus", "no tmux")
"""What may be missing in CI, too: where nobody may install it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "wheels" in fixtures:
            item.add_marker(pytest.mark.xdist_group("wheels"))  # one process builds them, once
        if "house" in fixtures:
            item.add_marker(pytest.mark.wheels)
            item.add_marker(pytest.mark.timeout(300))  # the first of them installs everything


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _forbidden_skips(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if count := _forbidden_skips(config):
        terminalreporter.section("skipped, which is a failure in CI", red=True)
        terminalreporter.line(f"{count} skipped (reasons below). CI has to run every test: install what is missing.")


def _forbidden_skips(config: pytest.Config) -> int:
    reporter = config.pluginmanager.get_plugin("terminalreporter")  # absent in xdist's workers
    if reporter is None or not os.environ.get("CI"):
        return 0
    reasons = [str(report.longrepr) for report in reporter.stats.get("skipped", ())]
    return sum(not any(want in reason for want in FOR_WANT_OF) for reason in reasons)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A new home, which programs of this process take for theirs: no variable and no project says anything else."""
    for name in ("DO_NOT_TRACK", "CMDORC_TELEMETRY", "CMDORC_TELEMETRY_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CMDORC_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    home = Home(tmp_path / "home")
    home.root.mkdir()
    return home


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel of every distribution of this repository, by the distribution's folder name (`.` for the core)."""
    built = {}
    for project in [ROOT, *sorted(file.parent for file in ROOT.glob("plugins/*/pyproject.toml"))]:
        folder = tmp_path_factory.mktemp("wheel")
        command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
        subprocess.run(command, cwd=project, check=True, stdout=subprocess.DEVNULL)
        (built["." if project == ROOT else project.name],) = folder.iterdir()
    return built


@pytest.fixture(scope="session")
def house(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with these wheels, and those of all that they need: what `pip install` finds in it is enough."""
    folder = tmp_path_factory.mktemp("house")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-qq", "--wheel-dir", str(folder)]
    plugin_authors = [f"{wheels['.']}[testing]", "editables", "hatchling", "mypy", "pip", "ruff"]
    command += ["--constraint", str(CONSTRAINTS), *map(str, wheels.values()), "cmdorc", *plugin_authors]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="session")
def fresh(house: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a virtual environment with some distributions, what they need, and nothing of the checkout. Its folder."""

    def make(*distributions: str) -> Path:
        folder = tmp_path_factory.mktemp("environment")
        venv.create(folder)
        command = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "-qq"]
        command += ["--disable-pip-version-check", "--no-index", "--find-links", str(house), "--no-compile"]
        subprocess.run([*command, "--constraint", str(CONSTRAINTS), *distributions], cwd=folder, check=True)
        return folder

    return make


@pytest.fixture(scope="session")
def wheel_env(fresh: Callable[..., Path], wheels: dict[str, Path]) -> Path:
    """A fresh virtual environment with the wheels of all distributions and nothing of the checkout. Its folder."""
    return fresh(*map(str, wheels.values()))
