"""The user's file is edited whole or not at all; what is in it otherwise stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmdorc_telemetry.cli.userfile import edit, listing, setting
from cmdorc_telemetry.errors import ConfigError, StorageError


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", '[telemetry]\nenabled = true\nlevel = "minimal"\n'),
        ("# top\n[other]\na = 1 # b\n",
         '# top\n[other]\na = 1 # b\n\n[telemetry]\nenabled = true\nlevel = "minimal"\n'),
        ("[telemetry]\nenabled = false # off\nlevel = 'debug'\n",
         '[telemetry]\nenabled = true # off\nlevel = "minimal"\n'),
        ("telemetry.enabled = false\n", 'telemetry.enabled = true\ntelemetry.level = "minimal"\n'),
        ("[telemetry.to.x]\nplugin = 'y'\n",
         "[telemetry]\nenabled = true\nlevel = \"minimal\"\n\n[telemetry.to.x]\nplugin = 'y'\n"),
    ],
)  # fmt: skip
def test_keys_are_set_and_all_else_stays(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(before)
    edit(path, setting(enabled=True, level="minimal", debug_consent_given=None))
    assert path.read_text() == after


def test_none_takes_a_key_away(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[telemetry]\nlevel = 'standard'\nenabled = true\n")
    edit(path, setting(level=None))
    assert path.read_text() == "[telemetry]\nenabled = true\n"


def test_a_link_to_a_file_that_is_kept_elsewhere_stays_one(tmp_path: Path) -> None:
    kept = tmp_path / "dotfiles" / "cmdorc.toml"
    kept.parent.mkdir()
    kept.write_text("[telemetry]\n")
    link = tmp_path / "config.toml"
    link.symlink_to(kept)
    edit(link, listing("http", enabled=True))
    assert link.is_symlink()
    assert kept.read_text() == '[telemetry]\nplugins = ["http"]\n'


def test_what_is_wrong_already_is_said_and_not_made_worse(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("telemetry = 3\n")
    with pytest.raises(ConfigError, match="found int; expected a table"):
        edit(path, setting(enabled=True))
    assert path.read_text() == "telemetry = 3\n"


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        edit(tmp_path / "file" / "config.toml", setting(enabled=True))
