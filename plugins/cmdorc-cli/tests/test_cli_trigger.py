"""``cmdorc trigger`` and ``cmdorc list``."""

from __future__ import annotations

import json


def test_an_event_starts_its_commands_and_their_chains(project) -> None:
    project.commands(
        'name = "Lint"\ncommand = "echo lint"\ntriggers = ["saved"]',
        'name = "Test"\ncommand = "echo test"\ntriggers = ["command_success:Lint"]',
        'name = "Other"\ncommand = "echo other"\ntriggers = ["opened"]',
    )
    done = project.run("trigger", "saved")
    assert done.stdout == "Lint | lint\nTest | test\n"
    assert (done.returncode, done.stderr) == (0, "")


def test_the_first_failure_among_the_direct_runs_counts(project) -> None:
    project.commands(
        'name = "A"\ncommand = "true"\ntriggers = ["go"]',
        'name = "Chained"\ncommand = "exit 9"\ntriggers = ["command_success:A"]',
        'name = "B"\ncommand = "exit 4"\ntriggers = ["go"]',
        'name = "C"\ncommand = "exit 5"\ntriggers = ["go"]',
    )
    done = project.run("trigger", "go")
    assert done.returncode == 4
    assert sorted(done.stderr.splitlines()) == [
        "cmdorc: B failed with exit code 4, triggered by go",
        "cmdorc: C failed with exit code 5, triggered by go",
        "cmdorc: Chained failed with exit code 9, triggered by command_success:A",
    ]


def test_a_chained_failure_alone_does_not_count(project) -> None:
    project.commands(
        'name = "A"\ncommand = "true"\ntriggers = ["go"]',
        'name = "Chained"\ncommand = "exit 9"\ntriggers = ["command_success:A"]',
    )
    assert project.run("trigger", "go").returncode == 0


def test_a_command_that_cannot_start_counts(project) -> None:
    project.commands(
        'name = "A"\ncommand = "echo a"\ntriggers = ["go"]',
        'name = "B"\ncommand = "echo {{ nothing }}"\ntriggers = ["go"]',
    )
    done = project.run("trigger", "go")
    assert (done.returncode, done.stdout) == (2, "A | a\n")
    assert done.stderr.startswith("cmdorc: B was not started: ")


def test_an_event_that_nobody_listens_to_is_3(project) -> None:
    project.commands('name = "A"\ncommand = "echo a"\ntriggers = ["saved"]')
    done = project.run("trigger", "svaed")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "cmdorc: no command in cmdorc.toml listens to 'svaed'. Did you mean 'saved'?\n"


def test_a_refusal_is_3_unless_another_command_started(project) -> None:
    kept = '[output_storage]\ndirectory = "out"\nkeep_history = -1'
    first = 'name = "A"\ncommand = "echo a"\ntriggers = ["go", "orchestrator_started"]\ndebounce_in_ms = 60000'
    project.commands(first, head=kept)
    done = project.run("trigger", "go")
    assert done.returncode == 3
    assert done.stderr.startswith("cmdorc: A was not started: Command 'A' is in debounce window")
    project.commands(first, 'name = "B"\ncommand = "echo b"\ntriggers = ["go"]', head=kept)
    assert project.run("trigger", "go").returncode == 0


def test_an_event_that_only_cancels_is_fired(project) -> None:
    project.commands(
        'name = "Server"\ncommand = "sleep 60"\ntriggers = ["orchestrator_started"]\ncancel_on_triggers = ["stop"]'
    )
    done = project.run("trigger", "stop")
    assert done.returncode == 0
    assert done.stderr == "cmdorc: Server was cancelled (cancel_on_trigger:stop), triggered by orchestrator_started\n"


def test_the_event_of_the_start_is_fired_once(project) -> None:
    project.commands('name = "Setup"\ncommand = "echo set up"\ntriggers = ["orchestrator_started"]')
    done = project.run("trigger", "orchestrator_started")
    assert (done.returncode, done.stdout, done.stderr) == (0, "set up\n", "")


def test_list_is_aligned(project) -> None:
    project.commands(
        'name = "Lint"\ncommand = "x"\ntriggers = ["saved", "Lint"]',
        'name = "Server"\ncommand = "x"\ntriggers = ["go"]\ncancel_on_triggers = ["stop", "end"]',
        'name = "Alone"\ncommand = "x"',
    )
    done = project.run("list")
    assert done.stdout == "Lint    saved, Lint\nServer  go; cancelled by stop, end\nAlone\n"
    assert (done.returncode, done.stderr) == (0, "")


def test_list_as_json(project) -> None:
    project.commands('name = "Grüße"\ncommand = "echo hi"\ntriggers = ["go"]\ncancel_on_triggers = ["stop"]')
    (entry,) = json.loads(project.run("list", "--json").stdout)
    assert entry == {"name": "Grüße", "command": "echo hi", "triggers": ["go"], "cancel_on_triggers": ["stop"]}
