"""What is installed is found without being imported, and remembered for as long as it is still so."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path

import pytest

from cmdorc_telemetry import discovery, toml
from cmdorc_telemetry.discovery import PUBLISHED, Installed, installed, remedy

ROOT = Path(__file__).parents[1]
OLD = 1_600_000_000


class Site:
    """A folder on ``sys.path`` with the metadata of distributions, and how often it was read."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.scans = folder, 0
        folder.mkdir()
        monkeypatch.setattr(sys, "path", [str(folder)])
        scan = discovery._scan

        def counted() -> list[Installed]:
            self.scans += 1
            return scan()

        monkeypatch.setattr(discovery, "_scan", counted)

    def install(self, distribution: str, version: str = "1.2", *, name: str = "", age: float = OLD) -> Path:
        """As pip would have done, at the moment ``age``."""
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        module = f"plugin_of_{distribution.replace('-', '_')}"
        (info / "entry_points.txt").write_text(f"[cmdorc_telemetry]\n{name or distribution} = {module}\n")
        os.utime(info, (age, age))
        return info


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path / "site", monkeypatch)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "plugins.json"


def remove(info: Path) -> None:
    for path in info.iterdir():
        path.unlink()
    info.rmdir()


def test_what_is_installed_is_listed_by_name(site: Site) -> None:
    site.install("zeta-dist", name="bell")
    site.install("alpha-dist", "0.3")
    found = installed()
    assert [str(point) for point in found] == [
        "alpha-dist (alpha-dist 0.3, plugin_of_alpha_dist)",
        "bell (zeta-dist 1.2, plugin_of_zeta_dist)",
    ]


def test_a_broken_installation_hurts_nobody(site: Site) -> None:
    site.install("one")
    (site.install("broken", name="one") / "METADATA").unlink()
    assert [str(point) for point in installed()] == [
        "one (one 1.2, plugin_of_one)",
        "one (unknown unknown, plugin_of_broken)",
    ]


def test_an_entry_point_of_no_distribution_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    point = metadata.EntryPoint("bell", "sys", "cmdorc_telemetry")
    monkeypatch.setattr(metadata, "entry_points", lambda **_: [point])
    assert [str(each) for each in installed()] == ["bell (unknown unknown, sys)"]


@pytest.mark.parametrize("value", ["a_module", "a_module [extra]", "a_module:here.there", "a_module:here.there[x, y]"])
def test_what_an_entry_point_names_is_loaded(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("a_module")
    module.here = types.SimpleNamespace(there="treasure")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_module", module)
    wanted: object = "treasure" if ":" in value else module
    point = Installed("x", value, "d", "1")
    assert point.load() is wanted
    assert metadata.EntryPoint("x", value, "cmdorc_telemetry").load() is wanted


def test_what_was_found_is_remembered(site: Site, cache: Path) -> None:
    site.install("one")
    first = installed(cache)
    assert [installed(cache) for _ in range(3)] == [first] * 3
    assert (site.scans, [point.name for point in first]) == (1, ["one"])
    assert cache.stat().st_mode & 0o777 == 0o600


def test_nothing_installed_is_remembered_too(site: Site, cache: Path) -> None:
    assert installed(cache) == installed(cache) == []
    assert site.scans == 1


def test_metadata_is_not_even_imported_for_what_is_remembered(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from cmdorc_telemetry.discovery import installed
print(len(installed(Path(sys.argv[1]))), "importlib.metadata" in sys.modules)
"""
    told = [
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "plugins.json")], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert [scanned for _, scanned in told] == ["True", "False"]
    assert told[0][0] == told[1][0] != "0"


def test_installing_upgrading_and_removing_are_seen(site: Site, cache: Path) -> None:
    one = site.install("one")
    installed(cache)
    site.install("two")
    assert [point.name for point in installed(cache)] == ["one", "two"]
    remove(one)
    site.install("one", "1.3")
    assert [point.version for point in installed(cache)] == ["1.3", "1.2"]
    remove(site.folder / "two-1.2.dist-info")
    assert [point.name for point in installed(cache)] == ["one"]
    remove(site.folder / "one-1.3.dist-info")
    site.install("one", "1.3", name="uno", age=OLD + 1)
    assert [point.name for point in installed(cache)] == ["uno"], "the same version, installed again"


def test_another_path_is_another_environment_and_both_are_remembered(
    site: Site, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install("one")
    (tmp_path / "other").mkdir()
    for _ in range(3):
        monkeypatch.setattr(sys, "path", [str(site.folder)])
        assert [point.name for point in installed(cache)] == ["one"]
        monkeypatch.setattr(sys, "path", [str(tmp_path / "other")])
        assert installed(cache) == []
    assert site.scans == 2


def test_the_working_directory_is_part_of_an_empty_path(
    site: Site, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install("one")
    monkeypatch.setattr(sys, "path", [""])
    monkeypatch.chdir(site.folder)
    assert [point.name for point in installed(cache)] == ["one"]
    monkeypatch.chdir(tmp_path)
    assert installed(cache) == []


def test_only_so_many_environments_are_remembered(
    site: Site, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def enter(number: int) -> None:
        monkeypatch.setattr(sys, "path", [str(tmp_path / f"environment-{number}")])
        installed(cache)

    for number in range(17):
        enter(number)
    sizes = cache.stat().st_size
    enter(16)
    assert site.scans == 17
    enter(0)  # forgotten: the oldest
    assert site.scans == 18
    assert cache.stat().st_size == sizes


def test_what_was_installed_a_moment_ago_is_not_remembered_yet(site: Site, cache: Path) -> None:
    site.install("one", age=discovery.clock.wall())
    assert installed(cache) == installed(cache) != []
    assert (site.scans, cache.exists()) == (2, False)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'[["key"]]', b'[["key", [["one", "x", "y"]]]]'])
def test_a_file_that_is_something_else_is_replaced(content: bytes, site: Site, cache: Path) -> None:
    site.install("one")
    cache.write_bytes(content)
    assert [point.name for point in installed(cache)] == ["one"]
    assert [point.name for point in installed(cache)] == ["one"]
    assert site.scans == 1


def test_a_place_that_cannot_be_written_or_is_no_folder_changes_nothing(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install("one")
    archive = tmp_path / "some.zip"
    archive.write_bytes(b"PK\x05\x06" + bytes(18))
    monkeypatch.setattr(sys, "path", [str(site.folder), str(archive), str(tmp_path / "none")])
    assert [point.name for point in installed(tmp_path / "no" / "such" / "plugins.json")] == ["one"]
    cache = tmp_path / "plugins.json"
    os.utime(archive, (OLD, OLD))
    installed(cache)
    before = site.scans
    installed(cache)
    assert site.scans == before
    os.utime(archive, (OLD + 5, OLD + 5))
    installed(cache)
    assert site.scans == before + 1


# -- what is not installed ---------------------------------------------------------------------------------------------


def test_nobody_is_told_to_install_what_this_project_does_not_publish() -> None:
    published = {}
    for path in ROOT.glob("plugins/*/pyproject.toml"):
        project = toml.loads(path.read_text(encoding="utf-8"))["project"]
        for name in project.get("entry-points", {}).get("cmdorc_telemetry", {}):
            published[name] = f"pip install {project['name']}"
    assert {name: remedy(name, (), "x") for name in PUBLISHED} == published


@pytest.mark.parametrize(
    ("name", "there", "said"),
    [
        ("HTTP", ["http", "file"], "correct here: did you mean 'http'?"),
        ("flie", ["http", "file"], "correct here: did you mean 'file'?"),
        ("oltp", [], "correct here: did you mean 'otlp'?"),
        ("jut", ["jot"], "correct here: did you mean 'jot'?"),
        ("team", ["http", "file"], "correct here: installed are file, http"),
        ("team", [], "correct here: installed are none"),
    ],
)
def test_what_is_named_otherwise_is_corrected(name: str, there: list[str], said: str) -> None:
    assert remedy(name, there, "here") == said
