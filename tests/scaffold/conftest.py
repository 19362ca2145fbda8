"""A fresh environment with the core's wheel, as an author of a plugin has it; all other libraries are borrowed."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DETACHED = ("CMDORC", "DO_NOT", "PYTHON", "COVERAGE", "COV_", "PYTEST", "PIP")


class Author:
    """Somebody in a directory of their own, who types commands."""

    def __init__(self, environment: Path, folder: Path) -> None:
        self.folder = folder
        bin_ = environment / "bin"
        kept = {key: value for key, value in os.environ.items() if not key.startswith(DETACHED)}
        self.environ = {
            **kept, "PATH": os.pathsep.join((str(bin_), str(Path(sys.executable).parent), os.environ["PATH"])),
            "HOME": str(folder), "CMDORC_HOME": str(folder / "home"), "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # which means that there is none
            "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_QUIET": "1", "VIRTUAL_ENV": str(environment),
        }  # fmt: skip

    def __call__(self, line: str, *, where: Path | None = None, code: int = 0) -> str:
        """Run a line in a shell; it must end with ``code``."""
        done = subprocess.run(["bash", "-c", line], cwd=where or self.folder, env=self.environ, capture_output=True,
                              text=True, timeout=120, check=False)  # fmt: skip
        assert done.returncode == code, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("author")
    wheels = folder / "wheels"
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(wheels)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    place = folder / "environment"
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    (site,) = place.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (wheel,) = wheels.glob("*.whl")
    command = [str(python), "-m", "pip", "install", "-qq", "--no-index", "--no-deps", "--ignore-installed", str(wheel)]
    subprocess.run(command, check=True)
    for program in ("pytest", "mypy"):  # with the interpreter of this environment
        module = f"#!{python}\nimport runpy\nrunpy.run_module({program!r}, run_name='__main__', alter_sys=True)\n"
        (place / "bin" / program).write_text(module)
        (place / "bin" / program).chmod(0o755)
    return place


@pytest.fixture
def author(environment: Path, tmp_path: Path) -> Author:
    return Author(environment, tmp_path)
