"""The user's file is edited whole or not at all; what is in it otherwise stays."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from cmdorc_telemetry import toml
from cmdorc_telemetry.cli import userfile
from cmdorc_telemetry.cli.arrays import taken_out, with_one_more
from cmdorc_telemetry.cli.userfile import edit, listing, setting
from cmdorc_telemetry.config import TelemetryLevel, load_layer
from cmdorc_telemetry.errors import ConfigError, StorageError
from cmdorc_telemetry.files import FileLock


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
         "[telemetry.to.x]\nplugin = 'y'\n\n[telemetry]\nenabled = true\nlevel = \"minimal\"\n"),
        ("[telemetry]\n\n# of x\n[telemetry.to.x]\nplugin = 'y'\n",
         "[telemetry]\nenabled = true\nlevel = \"minimal\"\n\n# of x\n[telemetry.to.x]\nplugin = 'y'\n"),
        ("[telemetry]", '[telemetry]\nenabled = true\nlevel = "minimal"\n'),
    ],
)  # fmt: skip
def test_keys_are_set_and_all_else_stays(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(before)
    edit(path, setting(enabled=True, level="minimal", debug_consent_given=None))
    assert path.read_text() == after


LISTS = {
    "none": ("", '[telemetry]\nplugins = ["http"]\n'),
    "inline": ('telemetry = { plugins = ["bell"], level = "off" } # x\n',
               'telemetry = { plugins = ["bell", "http"], level = "off" } # x\n'),
    "inline without": ('telemetry = { level = "off" } # x\n',
                       'telemetry = { level = "off", plugins = ["http"]} # x\n'),
    "dotted": ("telemetry.plugins = ['bell'] # x\ntelemetry.level = 'off'\n",
               "telemetry.plugins = ['bell', \"http\"] # x\ntelemetry.level = 'off'\n"),
    "dotted without": ("telemetry.to.x.plugin = 'y'\n[other]\n",
                       "telemetry.to.x.plugin = 'y'\ntelemetry.plugins = [\"http\"]\n[other]\n"),
    "quoted": ("[ 'telemetry' ]\n'plugins' = ['bell']\n", "[ 'telemetry' ]\n'plugins' = ['bell', \"http\"]\n"),
    "below its tables": (
        "[telemetry.to.x]\nplugin = 'y'\n[telemetry] # mine\nlevel = 'off'\n",
        "[telemetry.to.x]\nplugin = 'y'\n[telemetry] # mine\nplugins = [\"http\"]\nlevel = 'off'\n",
    ),
    "only its tables": ("# a\n[telemetry.to.x] # b\nplugin = 'y'\n",
                        "# a\n[telemetry.to.x] # b\nplugin = 'y'\n\n[telemetry]\nplugins = [\"http\"]\n"),
    "before others": ("[telemetry]\n[[command]]\nname = 'a'\n",
                      "[telemetry]\nplugins = [\"http\"]\n[[command]]\nname = 'a'\n"),
    "lines": ("[telemetry]\nplugins = [\n  'a', # one\n  'b',  # two\n]\n",
              "[telemetry]\nplugins = [\n  'a', # one\n  'b',  # two\n  \"http\",\n]\n"),
    "lines without a last comma": (
        "[telemetry]\nplugins = [\n\t'a', # one\n\t'b'  # two\n\t# end\n]\n",
        "[telemetry]\nplugins = [\n\t'a', # one\n\t'b',  # two\n\t\"http\"\n\t# end\n]\n",
    ),
    "lines without a last line": ("[telemetry]\nplugins = ['a',\n           'b' ]\n",
                                  "[telemetry]\nplugins = ['a',\n           'b',\n           \"http\"]\n"),
    "several on a line": ("[telemetry]\nplugins = [\n  'a', 'b', # two\n]\n",
                          "[telemetry]\nplugins = [\n  'a', 'b', \"http\", # two\n]\n"),
    "empty": ("[telemetry]\nplugins = [  ] # none\n", '[telemetry]\nplugins = ["http"] # none\n'),
    "empty but a comment": ("[telemetry]\nplugins = [\n    # none\n]\n",
                            '[telemetry]\nplugins = [\n    # none\n    "http",\n]\n'),
    "a hash in a name": ("[telemetry]\nplugins = ['a#,b'] # x\n", "[telemetry]\nplugins = ['a#,b', \"http\"] # x\n"),
    "CRLF": ("[telemetry]\r\nplugins = [\r\n  'a',\r\n]\r\n# x\r\n",
             "[telemetry]\r\nplugins = [\r\n  'a',\r\n  \"http\",\r\n]\r\n# x\r\n"),
    "no newline at the end": ("# grün ☃\n[telemetry]\nplugins = ['a']",
                              "# grün ☃\n[telemetry]\nplugins = ['a', \"http\"]"),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after"), LISTS.values(), ids=LISTS)
def test_a_name_is_put_at_the_end_of_the_list_however_that_is_written(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(before.encode())
    edit(path, listing("http", enabled=True))
    assert path.read_bytes().decode() == after
    there = path.stat().st_mtime_ns
    edit(path, listing("http", enabled=True))
    assert path.stat().st_mtime_ns == there
    edit(path, listing("http", enabled=False))
    assert "http" not in path.read_text()
    assert before.count("#") == path.read_text().count("#")
    assert before.count("\r\n") in (0, path.read_bytes().count(b"\n"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("['http', 'b']", "['b']"),
        ("[ 'a' , 'http' ]", "[ 'a' ]"),
        ("['a', 'http', 'b']", "['a', 'b']"),
        ("['http', \"http\", 'b', \"\\u0068ttp\"]", "['b']"),
        ("[\n  'a', # one\n  'http', # sends\n  'b',\n]", "[\n  'a', # one\n  # sends\n  'b',\n]"),
        ("[\n  'a', # one\n  'http'\n]", "[\n  'a', # one\n]"),
        ("[\n  'a', 'http'\n]", "[\n  'a'\n]"),
        ("['http']", "[]"),
    ],
)
def test_a_name_is_taken_out_and_comments_stay(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"[telemetry]\nplugins = {before} # x\n")
    edit(path, listing("http", enabled=False))
    assert path.read_text() == f"[telemetry]\nplugins = {after} # x\n"


blank = st.sampled_from(["", " ", "\n", "\n  ", ' # it\'s "a", ]\n', "\n\t# x, y\n"])
quoted = st.sampled_from(["'a'", '"b"', "'http'", '"http"', "'#'", "','", '"\\""', '"]"'])


@st.composite
def lists(draw: st.DrawFn) -> str:
    """A list of names, as somebody may write it."""
    names = draw(st.lists(quoted, max_size=4))
    text = "".join(f"{draw(blank)}{name}{draw(blank)}," for name in names)
    return f"[{text if draw(st.booleans()) else text[:-1]}{draw(blank)}]"


@settings(max_examples=300, deadline=None)
@given(lists(), st.booleans())
def test_whatever_a_list_looks_like_it_has_what_was_asked_for_and_its_comments(text: str, enabled: bool) -> None:
    array: Any = tomlkit.parse(f"x = {text}")["x"]
    names = array.unwrap()
    edited: Any = (with_one_more if enabled else taken_out)(array, "http")
    written = f"x = {edited.as_string()}"
    assert toml.loads(written)["x"] == ([*names, "http"] if enabled else [name for name in names if name != "http"])
    assert written.count("# ") == text.count("# ")


def test_a_list_that_nobody_wrote_is_a_list() -> None:
    assert with_one_more(["a"], "b") == ["a", "b"]
    assert taken_out(["a", "b", "a"], "a") == ["b"]


@pytest.mark.parametrize(
    "text",
    [
        "'telemetry'.to.x.plugin = 'y'\n",
        "[telemetry]\nplugins = ['a', '''http''']\n",
        'x = """\n[telemetry]\n"""\ntelemetry.level = "off"\n',
    ],
    ids=["dotted", "lines", "in a string"],
)
def test_what_cannot_be_edited_is_said_and_left_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="cannot be changed from here; expected an edit by hand"):
        edit(path, listing("http", enabled="http" not in text))
    assert path.read_text() == text


@pytest.mark.parametrize("linked", [True, False])
def test_a_file_that_is_read_only_is_left_as_it_is(tmp_path: Path, linked: bool) -> None:
    path, kept = tmp_path / "config.toml", tmp_path / "kept.toml"
    kept.write_text("[telemetry]\n")
    kept.chmod(0o400)
    path.symlink_to(kept) if linked else kept.rename(path)
    with pytest.raises(ConfigError, match="is read-only; expected a file that you may write to"):
        edit(path, listing("http", enabled=True))
    assert path.read_text() == "[telemetry]\n"
    edit(path, listing("http", enabled=False))  # nothing to be done


def test_a_byte_order_mark_is_no_part_of_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbf[telemetry]\nlevel = 'off'\n")
    assert load_layer(path).level is TelemetryLevel.OFF
    edit(path, listing("http", enabled=True))
    assert path.read_bytes() == b"[telemetry]\nplugins = [\"http\"]\nlevel = 'off'\n"


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o640])
def test_who_may_read_the_file_stays_its_users_business(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[telemetry]\n")
    path.chmod(mode)
    edit(path, listing("http", enabled=True))
    assert stat.S_IMODE(path.stat().st_mode) == mode


_EDIT = """
import sys
from pathlib import Path
import tomlkit
from cmdorc_telemetry.cli.userfile import edit, listing

print(flush=True)
sys.stdin.read()
edit(Path(sys.argv[1]), listing(sys.argv[2], enabled=True))
"""


def test_of_many_who_edit_it_at_once_none_is_lost(tmp_path: Path) -> None:
    path, names = tmp_path / "home" / "config.toml", [f"p{number}" for number in range(12)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    running = [subprocess.Popen([sys.executable, "-c", _EDIT, str(path), name], **pipes) for name in names]
    for each in running:
        each.stdout.readline()
    for each in running:
        each.stdin.close()
    assert [each.wait(60) for each in running] == [0] * len(names)
    for each in running:
        each.stdout.close()
    assert sorted(load_layer(path).plugins) == sorted(names)
    assert list(path.parent.iterdir()) == [path]


def test_what_somebody_else_did_meanwhile_is_not_done_again(tmp_path: Path) -> None:
    path, done = tmp_path / "config.toml", "[telemetry]\nplugins = ['http']  # as somebody else writes it\n"

    def change(table: Any) -> None:
        listing("http", enabled=True)(table)
        path.write_text(done)

    edit(path, change)
    assert path.read_text() == done


def test_a_lock_whose_file_was_taken_away_meanwhile_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acquire, taken = FileLock.acquire, []

    def late(lock: FileLock) -> bool:
        """As if whoever had it were done with it between opening its file and getting it."""
        held = acquire(lock)
        if not taken:
            taken.extend(tmp_path.glob(".*.lock"))
            taken[0].unlink()
        return held

    monkeypatch.setattr(FileLock, "acquire", late)
    path = tmp_path / "config.toml"
    with userfile._alone(path):
        other = FileLock(taken[0])
        assert not acquire(other, wait=False)
    assert list(tmp_path.iterdir()) == []


def test_where_no_lock_can_be_had(tmp_path: Path) -> None:
    (tmp_path / ".config.toml.lock").mkdir()
    (tmp_path / ".config.toml.lock.lock").mkdir()
    with pytest.raises(StorageError, match=r"config\.toml cannot be written: Is a directory"):
        edit(tmp_path / "config.toml", setting(enabled=True))


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


def test_a_file_that_others_may_write_is_not_edited(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[telemetry]\n")
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="expected a file of your own that only you can write to"):
        edit(path, listing("http", enabled=True))
    assert path.read_text() == "[telemetry]\n"
