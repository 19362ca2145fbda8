"""What is counted, what of it survives, and that nothing is ever taken for more common than it is."""

from __future__ import annotations

import errno
import hmac
import sqlite3
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmdorc_telemetry import files
from cmdorc_telemetry_anonymizer.operations import Secret
from cmdorc_telemetry_anonymizer.rarity import Rarity, Seen
from cmdorc_telemetry_anonymizer.secret import Key

ALICE, BOB = "6f1c2a9e-0000-4000-8000-000000000001", "6f1c2a9e-0000-4000-8000-000000000002"


def secret(text: bytes) -> bytes:
    return hmac.digest(b"key", text, "sha256")


class Counts(Rarity):
    """Counts one value at a time."""

    def is_common(self, name: str, value: str, event_id: str, k: int, secret: Secret) -> bool:
        return bool(self.common([Seen(name, value, k)], event_id, secret))


def test_a_value_is_common_from_the_kth_event_on(tmp_path: Path) -> None:
    rarity = Counts(tmp_path)
    seen = [rarity.is_common("os", "linux", str(number), 3, secret) for number in range(5)]
    assert seen == [False, False, True, True, True]
    assert not rarity.is_common("os", "darwin", "5", 3, secret)
    assert not rarity.is_common("arch", "linux", "6", 3, secret), "another property"


def test_what_is_common_for_one_rule_may_be_rare_for_another(tmp_path: Path) -> None:
    rarity = Counts(tmp_path)
    assert [rarity.is_common("os", "linux", str(number), 2, secret) for number in range(2)] == [False, True]
    assert not rarity.is_common("os", "linux", "2", 4, secret)
    assert rarity.is_common("os", "linux", "3", 4, secret)


def test_an_event_that_comes_again_counts_once(tmp_path: Path) -> None:
    rarity = Counts(tmp_path)
    assert not any(rarity.is_common("os", "linux", event, 3, secret) for event in "aabbabab")
    assert rarity.is_common("os", "linux", "c", 3, secret)


def test_the_values_of_an_event_are_counted_together(tmp_path: Path) -> None:
    rarity, values = Rarity(tmp_path), [Seen("os", "linux", 2), Seen("arch", "arm64", 3), Seen("arch", "x86_64", 2)]
    assert rarity.common(values, "1", secret) == set()
    assert rarity.common(values, "2", secret) == {values[0], values[2]}
    assert rarity.common(values[:1], "3", secret) == {values[0]}, "it is known"
    assert rarity.common([], "3", secret) == set()
    assert sorted(length for (length,) in rows(tmp_path)) == [2 * 8] * 3
    assert rarity.common(values, "4", secret) == set(values)
    assert Rarity(tmp_path).common(values, "5", secret) == set(values)
    assert sorted(length for (length,) in rows(tmp_path)) == [2 * 8, 2 * 8, 3 * 8], (
        "no more of them is kept than it takes"
    )


def test_what_is_known_to_be_common_is_so_while_counts_cannot_be_used(tmp_path: Path) -> None:
    rarity, values = Rarity(tmp_path), [Seen("os", "linux", 2), Seen("arch", "arm64", 3)]
    for number in range(2):
        rarity.common(values, str(number), secret)
    (tmp_path / "seen.db").unlink()
    (tmp_path / "seen.db").mkdir()
    assert rarity.common(values, "3", secret) == {values[0]}


def test_counts_survive_the_process(tmp_path: Path) -> None:
    for number in range(2):
        assert not Counts(tmp_path).is_common("os", "linux", str(number), 3, secret)
    assert Counts(tmp_path).is_common("os", "linux", "2", 3, secret)
    assert Counts(tmp_path).is_common("os", "linux", "2", 3, secret)


def test_another_install_id_begins_anew(tmp_path: Path) -> None:
    key = Key(tmp_path)
    alice, bob = key.of(ALICE), key.of(BOB)
    rarity = Counts(tmp_path)
    assert [rarity.is_common("os", "linux", str(number), 2, alice) for number in range(3)] == [False, True, True]
    assert not rarity.is_common("os", "linux", "4", 2, bob)
    with sqlite3.connect(tmp_path / "seen.db") as db:
        assert db.execute("SELECT count(*) FROM seen").fetchone() == (1,), (
            "of the one that was given up nothing is left"
        )
    db.close()
    assert not Counts(tmp_path).is_common("os", "linux", "5", 2, alice)


def test_nothing_readable_is_kept(tmp_path: Path) -> None:
    rarity = Counts(tmp_path)
    rarity.is_common("command_completed plan", "secret-branch", "event-number-one", 3, Key(tmp_path).of(ALICE))
    for path in tmp_path.iterdir():
        data = path.read_bytes()
        for word in (b"secret-branch", b"event-number", b"plan", ALICE.encode()):
            assert word not in data, path
        assert path.stat().st_mode & 0o777 == 0o600, path
    assert {path.name for path in tmp_path.iterdir()} == {"key", "key.lock", "seen.db"}


@settings(max_examples=60, deadline=None)
@given(
    k=st.integers(2, 4), most=st.integers(1, 4),
    events=st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 12), st.booleans()), max_size=60),
)  # fmt: skip
def test_never_more_common_than_it_is(k: int, most: int, events: list[tuple[str, int, bool]]) -> None:
    """Against counting in a dict: exact where there is room for all values, and less where there is not."""
    exact: dict[str, set[int]] = defaultdict(set)
    with TemporaryDirectory() as folder:
        small, large = Counts(Path(folder) / "small", most), Counts(Path(folder) / "large", 6)
        for value, event, restart in events:
            if restart:
                small, large = Counts(Path(folder) / "small", most), Counts(Path(folder) / "large", 6)
            exact[value].add(event)
            known = small.is_common("p", value, str(event), k, secret)
            assert large.is_common("p", value, str(event), k, secret) == (len(exact[value]) >= k)
            assert not known or len(exact[value]) >= k
            assert len(rows(Path(folder) / "small")) <= most


def rows(folder: Path) -> list[tuple[int]]:
    db = sqlite3.connect(folder / "seen.db")
    try:
        return db.execute("SELECT length(events) FROM seen").fetchall()
    finally:
        db.close()


def test_space_is_bounded_and_what_repeats_stays(tmp_path: Path) -> None:
    rarity = Counts(tmp_path, 50)
    for number in range(400):
        rarity.is_common("p", f"once-{number}", str(number), 3, secret)
        if number % 10 == 0:
            rarity.is_common("p", "often", f"o{number}", 3, secret)
        assert len(rows(tmp_path)) <= 50
    assert rarity.is_common("p", "often", "last", 3, secret)
    assert max(length for (length,) in rows(tmp_path)) == 3 * 8


def test_where_counts_cannot_be_used_everything_is_rare(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_bytes(b"")
    rarity = Counts(tmp_path / "file")
    assert not any(rarity.is_common("os", "linux", str(number), 2, secret) for number in range(5))
    (warning,) = caplog.messages
    assert warning.startswith(f"{tmp_path / 'file' / 'seen.db'} cannot be used (")
    assert warning.endswith("): values whose rule says 'rare' are not shared")


def test_while_another_process_holds_the_counts_everything_is_rare(tmp_path: Path) -> None:
    assert not Counts(tmp_path).is_common("os", "linux", "0", 2, secret)
    db = sqlite3.connect(tmp_path / "seen.db", isolation_level=None)
    db.execute("BEGIN EXCLUSIVE")
    assert not Counts(tmp_path).is_common("os", "linux", "1", 2, secret)
    db.execute("ROLLBACK")
    db.close()
    assert Counts(tmp_path).is_common("os", "linux", "1", 2, secret)


def test_damaged_counts_are_set_aside_and_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "seen.db").write_bytes(b"no database, but long enough to be taken for one at first sight" * 40)
    rarity = Counts(tmp_path)
    assert [rarity.is_common("os", "linux", str(number), 2, secret) for number in range(4)] == [
        False,
        False,
        True,
        True,
    ]
    assert len(list(tmp_path.glob("seen.db.corrupt-*"))) == 1


# -- the key ---------------------------------------------------------------------------------------------------------


def test_the_key_is_made_once_and_is_for_the_user_alone(tmp_path: Path) -> None:
    folder = tmp_path / "telemetry" / "plugins" / "anonymizer"
    first = Key(folder).of(ALICE)(b"text")
    assert Key(folder).of(ALICE)(b"text") == first
    assert Key(folder).of(BOB)(b"text") != first
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "key").stat().st_mode & 0o777 == 0o600
    (folder / "key").unlink()
    assert Key(folder).of(ALICE)(b"text") != first


def test_a_process_that_outlives_an_opt_out_takes_the_new_key_with_the_new_id(tmp_path: Path) -> None:
    running = Key(tmp_path)
    running.of(ALICE)
    (tmp_path / "key").unlink()
    assert Key(tmp_path).of(BOB)(b"text") == running.of(BOB)(b"text")


@pytest.mark.parametrize("text", [b"", b"00" * 31, b"zz" * 32, b"\xff" * 64])
def test_what_is_no_key_is_moved_away(tmp_path: Path, text: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "key").write_bytes(text)
    first = Key(tmp_path).of(ALICE)(b"text")
    assert Key(tmp_path).of(ALICE)(b"text") == first
    (kept,) = tmp_path.glob("key.corrupt-*")
    assert kept.read_bytes() == text
    assert caplog.messages == [
        f"{tmp_path / 'key'} could not be read and was moved to {kept}; hashes are others from now on"
    ]


def test_a_directory_in_place_of_the_key_is_moved_away(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    assert Key(tmp_path).of(ALICE)(b"text") == Key(tmp_path).of(ALICE)(b"text")


def test_a_key_that_cannot_be_read_just_now_is_no_reason_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Key(tmp_path).of(ALICE)(b"text")

    def fail(path: Path) -> bytes:
        raise OSError(errno.EIO, "it is broken", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(files, "read", fail)
        with pytest.raises(OSError, match="it is broken"):
            Key(tmp_path).of(ALICE)
    assert Key(tmp_path).of(ALICE)(b"text") == first


COUNT = """
import hmac, sys
from pathlib import Path
from cmdorc_telemetry_anonymizer.rarity import Rarity, Seen
from cmdorc_telemetry_anonymizer.secret import Key

folder, who = Path(sys.argv[1]), sys.argv[2]
secret = Key(folder).of("install")
rarity = Rarity(folder)
print(secret(b"text").hex())
for number in range(60):
    rarity.common([Seen("p", f"value-{number % 5}", 48)], f"{who}-{number}", secret)
"""


def test_processes_share_the_key_and_the_counts(tmp_path: Path) -> None:
    """Four processes, each of five values twelve times: each value 48 times, and no count is lost."""
    folder = tmp_path / "shared"
    command = [sys.executable, "-c", COUNT, str(folder)]
    started = [subprocess.Popen([*command, who], stdout=subprocess.PIPE, text=True) for who in "abcd"]
    keys = set()
    for process in started:
        out, _ = process.communicate(timeout=50)
        assert process.returncode == 0
        keys.add(out)
    assert len(keys) == 1
    secret: Secret = Key(folder).of("install")
    assert [length for (length,) in rows(folder)] == [48 * 8] * 5
    assert Counts(folder).is_common("p", "value-0", "a-0", 48, secret)
