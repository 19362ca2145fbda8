"""``cmdorc run``: output, exit codes, chains, errors."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest


def test_output_is_there_before_the_command_is_over(project) -> None:
    gate = project.fifo("gate")
    project.commands('name = "Live"\ncommand = "echo first; read word < gate; echo $word"')
    process = project.start("run", "Live")
    assert process.stdout.readline() == b"first\n"
    assert process.poll() is None
    gate.write_text("second\n")
    assert process.stdout.read() == b"second\n"
    assert process.wait() == 0
    assert process.stderr.read() == b""


def test_a_part_of_a_line_is_there_too_where_one_command_runs(project) -> None:
    gate = project.fifo("gate")
    project.commands('name = "Ask"\ncommand = "printf \'sure? \'; read word < gate; echo $word"')
    process = project.start("run", "Ask")
    assert process.stdout.read(6) == b"sure? "
    gate.write_text("yes\n")
    assert process.wait() == 0


def test_with_several_commands_every_line_has_its_name(project) -> None:
    project.commands(
        'name = "A"\ncommand = "printf \'1\\\\n2\'"',
        'name = "Later"\ncommand = "echo 3 >&2"\ntriggers = ["command_success:A"]',
    )
    done = project.run("run", "A")
    assert done.stdout == "A     | 1\nA     | 2\nLater | 3\n"
    assert (done.returncode, done.stderr) == (0, "")


def test_a_line_that_does_not_end_is_not_held_back_for_ever(project) -> None:
    gate = project.fifo("gate")
    project.commands(
        'name = "A"\ncommand = "head -c 200000 /dev/zero; read word < gate"', 'name = "B"\ncommand = "true"'
    )
    process = project.start("run", "A", "B")
    assert process.stdout.read(5) == b"A | \0"
    opener = threading.Thread(target=gate.write_text, args=("\n",))  # waits until the command has written all
    opener.start()
    assert process.stdout.read().count(b"\0") == 199_999
    opener.join()
    assert process.wait() == 0


def test_binary_output_arrives_unchanged(project) -> None:
    project.commands('name = "Bytes"\ncommand = "head -c 3000000 /dev/urandom | tee copy"')
    done = project.run("run", "Bytes", text=False)
    assert len(done.stdout) == 3_000_000
    assert done.stdout == (project.folder / "copy").read_bytes()
    assert (done.returncode, done.stderr) == (0, b"")


def test_commands_have_cwd_env_variables_and_stdin(project) -> None:
    (project.folder / "sub").mkdir()
    project.commands(
        'name = "All"\ncwd = "sub"\nenv = { COLOUR = "{{ colour }}" }\ncommand = "pwd; echo {{ word }} ${COLOUR}; cat"',
        head='[variables]\nword = "file"\ncolour = "blue"',
    )
    done = project.run("run", "All", "--var", "word=a=b", stdin=None, input="typed\n")
    assert done.stdout == f"{project.folder / 'sub'}\na=b blue\ntyped\n"


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("exit 7", 7, "failed with exit code 7"),
        ("kill -9 $$", 137, "was killed by SIGKILL"),
        ("no-such-program-at-all", 127, "failed with exit code 127"),
        ("true", 0, ""),
    ],
)
def test_the_exit_code_is_that_of_the_command(project, command: str, code: int, said: str) -> None:
    project.commands(f'name = "It"\ncommand = "{command}"')
    done = project.run("run", "It")
    assert done.returncode == code
    assert done.stderr == (f"cmdorc: It {said}\n" if said else "")


def test_a_timeout_is_124_and_keeps_the_output(project) -> None:
    alive = project.fifo("alive")
    project.commands('name = "Long"\ntimeout_secs = 1\ncommand = "exec 3> alive; echo begun; sleep 60; echo no"')
    process = project.start("run", "Long")
    with alive.open("rb") as nobody:
        assert nobody.read() == b""  # the end of file comes when the last process has gone
    assert process.wait() == 124
    assert process.stdout.read() == b"begun\n"
    assert process.stderr.read() == b"cmdorc: Long was killed: it timed out after 1 seconds\n"


def test_what_left_the_process_group_is_not_waited_for(project) -> None:
    gate = project.fifo("gate")
    project.commands('name = "Daemon"\ntimeout_secs = 1\ncommand = "setsid sh -c \'echo up; read _ < gate\' & wait"')
    done = project.run("run", "Daemon")
    assert (done.returncode, done.stdout) == (124, "up\n")
    assert done.stderr == "cmdorc: Daemon was killed: it timed out after 1 seconds\n"
    gate.write_text("\n")


def test_what_cannot_be_started_is_126(project) -> None:
    project.commands('name = "Lost"\ncwd = "nowhere"\ncommand = "true"')
    done = project.run("run", "Lost")
    assert done.returncode == 126
    assert done.stderr.startswith("cmdorc: Lost could not be started: [Errno 2]")
    assert done.stderr.count("\n") == 1


def test_names_run_in_order_until_one_fails(project) -> None:
    project.commands(
        'name = "A"\ncommand = "echo a"',
        'name = "After"\ncommand = "echo after"\ntriggers = ["command_success:A"]',
        'name = "B"\ncommand = "exit 4"',
        'name = "Mourn"\ncommand = "echo sad"\ntriggers = ["command_failed:B"]',
        'name = "C"\ncommand = "echo never"',
    )
    done = project.run("run", "A", "B", "C")
    assert [line.split(" | ")[1] for line in done.stdout.splitlines()] == ["a", "after", "sad"]
    assert done.returncode == 4


def test_a_failure_of_what_is_triggered_is_told_and_does_not_count(project) -> None:
    project.commands(
        'name = "A"\ncommand = "true"',
        'name = "Bad"\ncommand = "exit 5"\ntriggers = ["command_success:A"]',
        'name = "Worse"\ncommand = "echo {{ nothing }}"\ntriggers = ["command_failed:Bad"]',
    )
    done = project.run("run", "A")
    assert done.returncode == 0
    first, second = done.stderr.splitlines()
    assert first == "cmdorc: Bad failed with exit code 5, triggered by command_success:A"
    assert second.startswith("cmdorc: Worse was not started: ")
    assert "Missing variable: 'nothing'" in second


def test_a_chain_in_which_one_is_cancelled(project) -> None:
    project.fifo("up")
    project.commands(
        'name = "Main"\ncommand = "read _ < up; echo main"',
        'name = "Slow"\ncommand = "echo slow; echo > up; sleep 60; echo no"\n'
        'triggers = ["command_started:Main"]\ncancel_on_triggers = ["command_success:Main"]',
    )
    done = project.run("run", "Main")
    assert sorted(done.stdout.splitlines()) == ["Main | main", "Slow | slow"]
    assert done.returncode == 0
    assert done.stderr == (
        "cmdorc: Slow was cancelled (cancel_on_trigger:command_success:Main), triggered by command_started:Main\n"
    )


def test_a_named_command_that_is_cancelled_is_143(project) -> None:
    project.fifo("up")
    project.commands(
        'name = "Slow"\ncommand = "echo > up; sleep 60"\ncancel_on_triggers = ["command_success:Other"]',
        'name = "Other"\ncommand = "read _ < up"\ntriggers = ["command_started:Slow"]',
    )
    assert project.run("run", "Slow").returncode == 143


def test_what_is_cancelled_while_it_is_being_started_makes_no_noise(project) -> None:
    """asyncio would say "Unknown child process pid" on stderr."""
    project.commands(
        *(f'name = "S{number}"\ncommand = "sleep 60"\ntriggers = ["orchestrator_started"]' for number in range(9)),
        'name = "A"\ncommand = "true"\ndebounce_in_ms = 60000\ntriggers = ["orchestrator_started"]',
    )
    done = project.run("run", "A")
    assert done.returncode == 3
    assert done.stderr.startswith("cmdorc: A was not started: ")
    assert done.stderr.count("\n") == 1


def test_a_retrigger_cancels_and_restarts(project) -> None:
    project.fifo("up")
    project.commands(
        'name = "Main"\ncommand = "read _ < up"',
        'name = "Job"\ncommand = "if [ -e seen ]; then echo again; else touch seen; echo > up; sleep 60; fi"\n'
        'triggers = ["command_started:Main", "command_success:Main"]',
    )
    done = project.run("run", "Main")
    assert done.stdout == "Job  | again\n"
    assert done.stderr == "cmdorc: Job was cancelled (retrigger policy), triggered by command_started:Main\n"


def test_a_retrigger_that_is_ignored_is_no_matter(project) -> None:
    project.fifo("up")
    project.fifo("gate")
    project.commands(
        'name = "Main"\ncommand = "read _ < up"',
        'name = "Job"\ncommand = "echo > up; read _ < gate; echo once"\non_retrigger = "ignore"\n'
        'triggers = ["command_started:Main", "command_success:Main"]',
        'name = "Release"\ncommand = "echo > gate"\ntriggers = ["command_success:Main"]',
    )
    done = project.run("run", "Main")
    assert done.stdout == "Job     | once\n"
    assert (done.returncode, done.stderr) == (0, "")


def test_a_debounced_command_is_3(project) -> None:
    project.commands('name = "A"\ncommand = "true"\ndebounce_in_ms = 60000')
    done = project.run("run", "A", "A")
    assert done.returncode == 3
    assert done.stderr.startswith("cmdorc: A was not started: Command 'A' is in debounce window")


def test_commands_of_start_and_end_run_and_are_not_waited_for(project) -> None:
    project.fifo("up")
    project.commands(
        'name = "Server"\ncommand = "echo up; echo > up; sleep 60"\ntriggers = ["orchestrator_started"]',
        'name = "Test"\ncommand = "read _ < up; echo tested"',
        'name = "Clean"\ncommand = "echo cleaned"\ntriggers = ["orchestrator_shutdown"]',
    )
    done = project.run("run", "Test")
    assert sorted(done.stdout.splitlines()) == ["Clean  | cleaned", "Server | up", "Test   | tested"]
    assert (done.returncode, done.stderr) == (0, "")


def test_output_files_are_written_as_cmdorc_does(project) -> None:
    project.commands(
        'name = "Kept"\ncommand = "echo kept; exit 3"', head='[output_storage]\ndirectory = "out"\nkeep_history = 2'
    )
    assert project.run("run", "Kept").stdout == "kept\n"
    (output,) = project.folder.glob("out/Kept/*/output.txt")
    assert output.read_text() == "kept\n"
    assert 'state = "failed"' in (output.parent / "metadata.toml").read_text()
    assert 'state = "failed"' in (project.folder / "out/Kept/latest_run.toml").read_text()


def test_output_files_that_cannot_be_written_stop_nothing_silently(project) -> None:
    (project.folder / "out").write_text("not a directory")
    project.commands('name = "A"\ncommand = "true"', head='[output_storage]\ndirectory = "out"\nkeep_history = 2')
    done = project.run("run", "A")
    assert done.returncode == 126
    assert done.stderr.startswith("cmdorc: A was not started: [Errno ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[command]\n", "cmdorc.toml is not valid TOML: "),
        ("\xff", "cmdorc.toml is not valid TOML: "),
        ('command = "x"\n', "cmdorc.toml is not a cmdorc configuration: "),
        ("[variables]\n", "cmdorc.toml: At least one [[command]] is required"),
        ('[[command]]\nname = "A"\ncommand = " "\ntriggers = []\n', "cmdorc.toml: Command for 'A' cannot be empty"),
        ('[[command]]\nname = 5\ncommand = "x"\ntriggers = []\n', "cmdorc.toml: found the command name 5"),
    ],
)
def test_a_broken_file_is_one_line_and_2(project, text: str, said: str) -> None:
    (project.folder / "cmdorc.toml").write_bytes(text.encode("latin-1"))
    for args in (["run", "A"], ["trigger", "a"], ["list"]):
        done = project.run(*args)
        assert done.returncode == 2
        assert done.stderr.startswith(f"cmdorc: {said}"), done.stderr
        assert (done.stderr.count("\n"), done.stdout) == (1, "")


def test_no_file_a_directory_and_a_wrong_name(project) -> None:
    done = project.run("run", "A")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no cmdorc.toml or config.toml in " in done.stderr
    for name, said in (("gone.toml", "gone.toml: no such file"), (".", ".: Is a directory")):
        done = project.run("run", "A", "-c", name)
        assert (done.returncode, done.stderr) == (2, f"cmdorc: {said}\n")


def test_cmdorc_toml_goes_before_config_toml_and_an_option_before_both(project) -> None:
    table = '[[command]]\nname = "A"\ncommand = "echo {}"\ntriggers = []\n'
    project.write(table.format("config"), "config.toml")
    assert project.run("run", "A").stdout == "config\n"
    project.write(table.format("cmdorc"))
    assert project.run("run", "A").stdout == "cmdorc\n"
    project.write(table.format("other"), "sub/other.toml")
    assert project.run("run", "A", "--config", "sub/other.toml").stdout == "other\n"


def test_an_unknown_name_stops_before_anything_runs(project) -> None:
    project.commands('name = "Build"\ncommand = "echo built"')
    done = project.run("run", "Build", "Biuld")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "cmdorc: cmdorc.toml has no command 'Biuld'. Did you mean 'Build'?\n"
    assert "`cmdorc list` shows what there is" in project.run("run", "xyz").stderr


def test_a_missing_variable_and_one_of_a_wrong_type_are_2(project) -> None:
    project.commands(
        'name = "A"\ncommand = "echo {{ word }}"', 'name = "B"\ncommand = "echo {{ n }}"', head="[variables]\nn = 3"
    )
    for name, said in (("A", "Missing variable: 'word'"), ("B", "expected str instance, int found")):
        done = project.run("run", name)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert done.stderr.startswith(f"cmdorc: {name} was not started: ")
        assert said in done.stderr
    done = project.run("run", "A", "--var", "word")
    assert done.returncode == 2
    assert "'word' is not KEY=VALUE" in done.stderr


def test_the_module_is_the_command(project) -> None:
    project.commands('name = "A"\ncommand = "exit 9"')
    command = [sys.executable, "-m", "cmdorc_cli", "run", "A"]
    done = subprocess.run(command, cwd=project.folder, env=project.env, check=False)
    assert done.returncode == 9
