"""``spec compare`` says what became of a spec, out of two files or out of git, and whether its version is enough."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry.spec import dump_json, load_spec

OLD = """\
[meta]
name = "acme.shop"
version = "1.0.0"

[[events]]
name = "shop.paid"
semantics = { what = "Somebody paid" }

[events.properties.plan]
type = "enum"
members = ["free", "team"]
"""
WORDS = OLD.replace("[[events]]", 'title = "Shop, 100%"\n[[events]]')
MORE = OLD.replace('"team"]', '"team", "pro"]')
LESS = OLD.replace('"free", ', "")


def at(version: str, text: str) -> str:
    return text.replace('"1.0.0"', version)


@pytest.fixture
def specs(machine: Any) -> Any:
    machine.project(OLD, "old.toml")
    return machine


@pytest.mark.parametrize(("new", "code", "said"), [
    (OLD, 0, "0 changes: 0 to agree to anew, 0 that break what is stored. Nothing changed."),
    (at('"0.9.0"', OLD), 1, "Nothing changed: from 1.0.0 to 0.9.0 is not enough. Expected 1.0.0 or later."),
    (at('"2.0.0"', OLD), 0, "Nothing changed."),
    (WORDS, 1, "The changes take a patch step: from 1.0.0 to 1.0.0 is not enough. Expected 1.0.1 or later."),
    (at('"1.0.1"', WORDS), 0, "The changes take a patch step: from 1.0.0 to 1.0.1 is enough."),
    (at('"1.0.1"', MORE), 1, "The changes take a minor step: from 1.0.0 to 1.0.1 is not enough. Expected 1.1.0"),
    (at('"1.1.0"', MORE), 0, "1 change: 1 to agree to anew, 0 that break what is stored. The changes take a minor"),
    (at('"1.9.0"', LESS), 1, "1 change: 0 to agree to anew, 1 that break what is stored. The changes take a major"),
    (at('"2.0.0-rc.1"', LESS), 0, "The changes take a major step: from 1.0.0 to 2.0.0-rc.1 is enough."),
    (at("2", LESS), 0, "The changes take a major step: from 1.0.0 to 2 is enough."),
])  # fmt: skip
def test_the_version_is_enough_or_not(specs: Any, new: str, code: int, said: str) -> None:
    specs.project(new, "new.toml")
    done = specs("spec", "compare", "old.toml", "new.toml", code=code)
    assert said in done.stdout.splitlines()[-1]
    assert done.stderr == ""


@pytest.mark.parametrize(("old", "new", "code"), [("1", "1", 0), ("1", "2", 0), ("2", "1", 1), ("1", '"1.0.0"', 1)])
def test_a_whole_number_stays_until_something_breaks(specs: Any, old: str, new: str, code: int) -> None:
    specs.project(at(old, OLD), "old.toml")
    specs.project(at(new, MORE), "new.toml")
    specs("spec", "compare", "old.toml", "new.toml", code=code)
    specs.project(at(old, LESS).replace('["team"]', '["free"]'), "less.toml")
    done = specs("spec", "compare", "old.toml", "less.toml", code=1)
    assert f"Expected {int(old) + 1} or later." in done.stdout


def test_each_change_is_said_with_what_hangs_on_it(specs: Any) -> None:
    specs.project(MORE.replace('"free", ', ""), "new.toml")
    done = specs("spec", "compare", "old.toml", "new.toml", code=1)
    assert done.stdout.splitlines()[:4] == [
        "acme.shop 1.0.0 → 1.0.0",
        "widened   events.shop.paid.properties.plan  members +pro −free",
        "          needs a new yes",
        "          breaks what is stored: stored values may not fit",
    ]


def test_a_script_gets_an_object_a_change_and_one_that_sums_up(specs: Any) -> None:
    specs.project(at('"1.1.0"', WORDS.replace('"free", ', "")), "new.toml")
    done = specs("spec", "compare", "--json", "old.toml", "new.toml", code=1)
    words, less, summed = map(json.loads, done.stdout.splitlines())
    assert words == {"file": "new.toml", "line": 1, "change": "reworded", "at": "meta", "told": "title",
                     "asks": False, "breaks": "", "step": "patch"}  # fmt: skip
    assert (less["line"], less["change"], less["breaks"]) == (10, "narrowed", "stored values may not fit")
    assert summed == {"old": "1.0.0", "new": "1.1.0", "step": "major", "expected": "2.0.0", "enough": False,
                      "asks": False, "breaks": True}  # fmt: skip
    specs.project(OLD, "new.toml")
    (summed,) = map(json.loads, specs("spec", "compare", "--json", "old.toml", "new.toml").stdout.splitlines())
    assert (summed["step"], summed["expected"], summed["enough"]) == (None, "1.0.0", True)


def test_github_shows_each_where_it_stands_and_what_the_version_is_not_enough_for(specs: Any) -> None:
    text = at('"1.1.0"', WORDS.replace('"free", ', "")).replace('"Somebody paid"', '"50% off:\\n, all"')
    specs.project(text, "a,b.toml")
    words, meant, less, version = specs("spec", "compare", "--github", "old.toml", "a,b.toml",
                                        code=1).stdout.splitlines()  # fmt: skip
    assert words == "::notice file=a%2Cb.toml,line=1,title=spec reworded::meta was reworded: title"
    assert meant.startswith("::notice file=a%2Cb.toml,line=8,title=spec re-meant::events.shop.paid.semantics.what was")
    assert meant.endswith("what Somebody paid → 50%25 off: , all")
    assert less == ("::error file=a%2Cb.toml,line=10,title=spec narrowed::events.shop.paid.properties.plan was "
                    "narrowed: members −free; breaks what is stored: stored values may not fit")  # fmt: skip
    assert version == ("::error file=a%2Cb.toml,line=3,title=spec version::The changes take a major step: from 1.0.0 "
                       "to 1.1.0 is not enough. Expected 2.0.0 or later.")  # fmt: skip
    specs.project(at('"2.0.0"', LESS), "new.toml")
    assert specs("spec", "compare", "--github", "old.toml", "new.toml").stdout.startswith("::notice ")
    specs.project(at('"1.1.0"', MORE), "new.toml")
    (more,) = specs("spec", "compare", "--github", "old.toml", "new.toml").stdout.splitlines()
    assert more.endswith("members +pro; needs a new yes")


def test_toml_and_both_spellings_of_json_are_compared_with_each_other(specs: Any) -> None:
    specs.project(dump_json(load_spec("old.toml")), "newer.json")
    older = json.loads((specs.work / "newer.json").read_text())
    older["meta"] = {"name": older["meta"].pop("key"), **older["meta"], "version": 1}
    older["events"] = [{"name": event.pop("key"), **event, "version": 1} for event in older["events"]]
    specs.project(json.dumps(older), "older.json")
    for old, new in (("old.toml", "newer.json"), ("newer.json", "old.toml"), ("newer.json", "older.json"),
                     ("older.json", "old.toml")):  # fmt: skip
        assert specs("spec", "compare", old, new).stdout.splitlines()[2].endswith("Nothing changed.")
    specs.project(MORE, "more.toml")
    specs("spec", "compare", "newer.json", "more.toml", code=1)
    specs.project(dump_json(load_spec("more.toml")), "more.json")
    # The document says 1.0.0: it is of three numbers, though that means no more than 1.
    done = specs("spec", "compare", "--github", "newer.json", "more.json", code=1)
    assert done.stdout.startswith("::error file=more.json,line=")
    assert "Expected 1.1.0 or later." in done.stdout
    del older["meta"]["version"]
    specs.project(json.dumps(older), "first.json")
    specs("spec", "compare", "first.json", "older.json")


@pytest.mark.parametrize(("args", "message"), [
    (["old.toml"], "Expected OLD and NEW, or FILE and --against GIT-REF."),
    (["old.toml", "old.toml", "old.toml"], "Expected OLD and NEW, or FILE and --against GIT-REF."),
    (["old.toml", "old.toml", "--against", "HEAD"], "Expected OLD and NEW, or FILE and --against GIT-REF."),
    (["--json", "--github", "old.toml", "old.toml"], "--json and --github contradict each other."),
    (["old.toml", "none.toml"], "error: none.toml: cannot be read: No such file or directory\n"),
    (["old.toml", "broken.toml"], "error: broken.toml: meta: has no 'name'; expected that key, which is required\n"),
    (["broken.toml", "old.toml"], "error: broken.toml: meta: has no 'name'; expected that key, which is required\n"),
    (["old.toml", "other.toml"],
     "error: other.toml: meta.name: is the spec 'bank', and the old one 'acme.shop'; expected two versions of one"),
])  # fmt: skip
def test_what_cannot_be_compared_is_told(specs: Any, args: list[str], message: str) -> None:
    specs.project("meta = {}", "broken.toml")
    specs.project(OLD.replace("acme.shop", "bank"), "other.toml")
    done = specs("spec", "compare", *args, code=2)
    assert message in done.stderr
    assert done.stdout == ""


# -- out of git --------------------------------------------------------------------------------------------------------


def git(folder: Path, *args: str) -> str:
    environ = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull,
               "EMAIL": "x@example.org"}  # fmt: skip
    settings = ("init.defaultBranch=main", "protocol.file.allow=always", "user.name=x")
    command = ["git", *(part for each in settings for part in ("-c", each)), *args]
    return subprocess.run(command, cwd=folder, env=environ, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(specs: Any) -> Any:
    """Two commits of a spec in a directory below the top, and a change that is not committed."""
    git(specs.work, "init", "--quiet")
    (specs.work / "sub dir").mkdir()
    for text in (OLD, at('"1.1.0"', MORE)):
        specs.project(text, "sub dir/shop.toml")
        git(specs.work, "add", ".")
        git(specs.work, "commit", "--quiet", "--message", "x")
    specs.project(at('"2.0.0"', LESS), "sub dir/shop.toml")
    return specs


def test_the_old_version_is_read_from_git(repository: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "sub dir/shop.toml"
    for ref, begin in (("HEAD", "acme.shop 1.1.0 → 2.0.0"), ("main~1", "acme.shop 1.0.0 → 2.0.0")):
        assert repository("spec", "compare", path, "--against", ref).stdout.splitlines()[0] == begin
    first = git(repository.work, "rev-parse", "HEAD~1")
    assert "1.0.0 → 2.0.0" in repository("spec", "compare", path, "--against", first[:12]).stdout
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as git sets it for hooks
    monkeypatch.chdir(repository.work / "sub dir")
    assert "1.1.0 → 2.0.0" in repository("spec", "compare", "shop.toml", "--against", "HEAD").stdout
    (repository.work / "link.toml").symlink_to("sub dir/shop.toml")
    monkeypatch.chdir("/")
    link = str(repository.work / "link.toml")
    assert "1.1.0 → 2.0.0" in repository("spec", "compare", link, "--against", "HEAD").stdout


@pytest.mark.parametrize(("path", "ref", "message"), [
    ("sub dir/shop.toml", "gone", "error: --against: there is no commit 'gone'; expected a commit that is there\n"),
    ("sub dir/shop.toml", "--upload-pack=x", "error: --against: there is no commit '--upload-pack=x'; expected"),
    ("sub dir/shop.toml", "", "error: --against: there is no commit ''; expected a commit that is there\n"),
    ("sub dir/new.toml", "HEAD",
     "error: HEAD:sub dir/new.toml: sub dir/new.toml is not in that commit; expected one that has it, or OLD and"),
    ("large.toml", "HEAD", "error: HEAD:large.toml: is larger than 1 MiB\n"),
    ("latin.toml", "HEAD", "error: HEAD:latin.toml: cannot be read: 'utf-8' codec can't decode byte 0xe4"),
])  # fmt: skip
def test_what_git_does_not_have_is_told(repository: Any, path: str, ref: str, message: str) -> None:
    (repository.work / "large.toml").write_bytes(b"#" * ((1 << 20) + 1))
    (repository.work / "latin.toml").write_bytes(b"# \xe4")
    git(repository.work, "add", "large.toml", "latin.toml")
    git(repository.work, "commit", "--quiet", "--message", "x")
    for name in ("sub dir/new.toml", "large.toml", "latin.toml"):
        repository.project(OLD, name)
    done = repository("spec", "compare", path, "--against", ref, code=2)
    assert done.stderr.startswith(message)
    assert done.stdout == ""


def test_a_shallow_clone_is_named(repository: Any) -> None:
    git(repository.work, "clone", "--quiet", "--depth", "1", f"file://{repository.work}", "clone")
    done = repository("spec", "compare", "clone/sub dir/shop.toml", "--against", "HEAD~1", code=2)
    assert done.stderr == ("error: --against: there is no commit 'HEAD~1'; expected a deeper clone, which this one is "
                           "not: `git fetch --unshallow`\n")  # fmt: skip


def test_outside_of_a_repository_git_is_quoted(specs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(specs.work.parent))
    done = specs("spec", "compare", "old.toml", "--against", "HEAD", code=2)
    assert done.stderr.startswith("error: old.toml: git says: not a git repository")
    assert done.stderr.endswith("expected a file in a git repository, or OLD and NEW\n")


def test_without_git_it_is_said(specs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(specs.site))
    done = specs("spec", "compare", "old.toml", "--against", "HEAD", code=1)
    assert done.stderr == "error: git is not installed, which --against takes: compare OLD and NEW instead\n"


def test_a_git_that_hangs_is_given_up(specs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from cmdorc_telemetry.cli import comparison

    (specs.site / "git").parent.mkdir(exist_ok=True)
    (specs.site / "git").write_text("#!/bin/sh\nexec sleep 60\n")
    (specs.site / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(specs.site), prepend=os.pathsep)
    monkeypatch.setattr(comparison, "_SECONDS", 0.2)
    done = specs("spec", "compare", "old.toml", "--against", "HEAD", code=1)
    assert done.stderr == "error: git took longer than 0.2 s: compare OLD and NEW instead\n"
