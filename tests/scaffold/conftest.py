"""An author of a plugin: has the core's wheel in a fresh environment, and an index to install more from."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

DETACHED = ("CMDORC", "DO_NOT", "PYTHON", "COVERAGE", "COV_", "PYTEST", "PIP")


class Author:
    """Somebody in a directory of their own, who types commands."""

    def __init__(self, environment: Path, index: Path, folder: Path) -> None:
        self.folder = folder
        kept = {key: value for key, value in os.environ.items() if not key.startswith(DETACHED)}
        self.environ = {
            **kept, "PATH": os.pathsep.join((str(environment / "bin"), os.environ["PATH"])),
            "HOME": str(folder), "CMDORC_HOME": str(folder / "home"), "VIRTUAL_ENV": str(environment),
            "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_QUIET": "1",
        }  # fmt: skip

    def __call__(self, line: str, *, where: Path | None = None, code: int = 0) -> str:
        """Run a line in a shell; it must end with ``code``."""
        done = subprocess.run(["bash", "-c", line], cwd=where or self.folder, env=self.environ, capture_output=True,
                              text=True, timeout=120, check=False)  # fmt: skip
        assert done.returncode == code, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture
def newcomer(fresh: Callable[..., Path], house: Path, tmp_path: Path) -> Author:
    """One who has nothing but the core."""
    return Author(fresh("cmdorc-telemetry", "pip"), house, tmp_path)


@pytest.fixture(scope="module")
def environment(fresh: Callable[..., Path]) -> Path:
    return fresh("cmdorc-telemetry", "pip", "hatchling")


@pytest.fixture
def author(environment: Path, house: Path, tmp_path: Path) -> Author:
    """One who wrote plugins before."""
    return Author(environment, house, tmp_path)
