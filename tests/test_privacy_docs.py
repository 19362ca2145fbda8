"""``docs/privacy.md`` promises nothing that no test holds: each promise has a row, each test there exists and runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from cmdorc_telemetry.cli import telemetry

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8")
ROWS = {
    promise: re.findall(r"`([^`]+)`", tests)
    for promise, tests in re.findall(r"^\| ([^|]+) \| (`(?:tests|plugins)/[^|]+) \|$", PAGE, re.MULTILINE)
}
PROMISES = (
    "Nothing turns it on but a yes, or an operator's variable where nobody decided",
    "Off, it opens no file but to see that it is off, no socket, and starts no thread",
    "An operator gets no DEBUG, and shares cmdorc's own events alone",
    "A person's no is final",
    "What is in force is the least of all that was said",
    "`DO_NOT_TRACK` beats everything",
    "A project only lowers, and what it tried is named",
    "A project that asks causes one line on standard error",
    "Nobody is asked in CI or without a terminal; the default is no",
    "Consent is to the fields that were shown; more waits, less does not",
    "What waits to be sent shrinks with its spec",
    "Consent is to the destinations that were shown",
    "Other specs have a consent of their own",
    "DEBUG asks for itself, and `--yes` is no answer",
    "DEBUG ends after 30 days, also in a program that runs",
    "More does not reach back",
    "What was recorded before an opt-in, or under a withdrawn one, is never sent",
    "A no, or less, stops programs that run before their next batch",
    "Opt-out ends sending, asks servers to erase, deletes by name",
    "An erasure that did not succeed is tried again, or given up by you",
    "`reset-id` makes another id and key, and nothing of the old one is sent",
    "`--local` shares with nobody",
    "What cannot be trusted or read switches everything off",
    "What is shown is what is sent, to the byte",
    "Everything that leaves is in the audit first",
    "Private fields reach nobody but destinations of your own",
    "What nobody declared is not shared, whoever adds it",
    "An anonymizer that fails or is missing holds back what would be shared",
    "A server can only ask for less",
    "No name, argument, variable, path, output or error text leaves, in any form",
    "Nobody else can read what is stored here",
    "The page of `view` loads nothing",
    "What we collect is what the spec says",
)
"""What the project promises a person. Whoever takes one back has to take it from here, too."""
COLLECT = """
import inspect, sys
import pytest
from _pytest.skipping import evaluate_skip_marks

class Look:
    def pytest_collection_finish(self, session):
        for item in session.items:
            runs = evaluate_skip_marks(item) is None and "pytest.skip(" not in inspect.getsource(item.function)
            print("COLLECTED" if runs else "SKIPPED", item.nodeid.partition("[")[0])

code = pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "--import-mode=importlib",
                    "-o", "addopts=", *sys.argv[1:]], plugins=[Look()])
sys.exit(code)
"""


def test_every_promise_has_its_row() -> None:
    assert tuple(ROWS) == PROMISES
    table = PAGE[PAGE.index("| promise | held by |") :]
    assert len(table.splitlines()) == 2 + len(PROMISES)  # no row that is read differently


@pytest.mark.timeout(120)  # half of all tests are imported for it
def test_every_test_that_is_named_exists_and_runs() -> None:
    named = sorted({test for tests in ROWS.values() for test in tests})
    assert all("::test_" in test for test in named)
    done = subprocess.run(
        [sys.executable, "-c", COLLECT, *named], cwd=ROOT, capture_output=True, text=True, check=False, timeout=110
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert set(re.findall(r"^COLLECTED (\S+)$", done.stdout, re.MULTILINE)) == set(named)
    assert "SKIPPED" not in done.stdout


def test_commands_files_and_links_that_are_named_are_there() -> None:
    for line in re.findall(r"cmdorc telemetry ([a-z-]+[^`#\n]*)", PAGE):
        words = shlex.split(line)
        command = telemetry.commands[words[0]]
        known = {name for each in command.params if isinstance(each, click.Option) for name in each.opts}
        assert {word for word in words if word.startswith("--")} <= known, line
    for target in re.findall(r"\]\((?!#)([^)]+)\)", PAGE):
        assert (ROOT / "docs" / target).is_file(), target


def test_it_lists_what_the_design_deletes() -> None:
    section = PAGE[PAGE.index("## Out again") : PAGE.index("## What nobody can promise you")]
    for word in ("journal", "spool", "history", "audit", "id", "key", "`local_file`", "--local-only"):
        assert word in section
